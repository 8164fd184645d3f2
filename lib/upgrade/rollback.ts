import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { writeWhole } from '../base/files.ts'
import { deleteCommand, ofThisCluster } from '../cluster/cluster.ts'
import { inNamespace, type KubernetesObject, nameOf, objectsIn } from '../cluster/kubernetes.ts'
import { readNamespaces, stateOf, why } from '../cluster/workload-state.ts'
import { type Release } from '../inputs/types.ts'
import { ask } from '../run/ask.ts'
import { endingFailure, thisRun } from '../run/session.ts'
import { history, type ReleaseState, type Revision } from './history.ts'

/**
 * The command that brings a release back to a revision, for any terminal of this machine. Jobs that
 * are in its way are deleted first.
 */
export async function rollback(
  release: Release,
  revision: number,
  last?: Revision,
): Promise<string> {
  const { release: name, namespace } = release
  const jobs = last ? await jobsInTheWay(release, revision, last) : []
  return [
    ...jobs.map(deleteCommand),
    `helm rollback ${name} ${revision} -n ${namespace} ${ofThisCluster('--kube-context')}`,
  ].join(' && \\\n')
}

/**
 * Jobs of a revision that are still there, and that the last revision does not know: helm was ended
 * between creating the new one's objects and deleting the old one's. A rollback would take the live Job
 * for its baseline, and change what can't be changed (helm 3.22 pkg/kube/client.go, update).
 */
async function jobsInTheWay(
  { release, namespace }: Release,
  revision: number,
  last: Revision,
): Promise<KubernetesObject[]> {
  const jobsOf = async (revision: number) => {
    const question = `helm get manifest ${release} -n ${namespace} --revision ${revision}`
    const { stdout } = await ask(question)
    return objectsIn(stdout)
      .filter(({ kind }) => kind === 'Job')
      .map((job) => inNamespace(job, namespace))
  }
  const isThere = async (job: KubernetesObject) => {
    const { stdout } = await ask(
      `kubectl get job ${job.metadata.name} -n ${job.metadata.namespace} --ignore-not-found -o name`,
    )
    return stdout !== ''
  }
  const jobs = await jobsOf(revision)
  const known = jobs.length > 0 ? (await jobsOf(last.revision)).map(nameOf) : []
  const unknown = jobs.filter((job) => !known.includes(nameOf(job)))
  const found: KubernetesObject[] = []
  for (const job of unknown) if (await isThere(job)) found.push(job)
  return found
}

/** The revision to go back to: the newest before this run that was deployed and came up. */
export function rollbackTarget(
  { release }: Release,
  { revisions }: ReleaseState,
): number | undefined {
  const bad = revisionsThatDidNotComeUp()[release] ?? []
  const good = revisions.filter(
    ({ status, revision }) => /^(deployed|superseded)$/.test(status) && !bad.includes(revision),
  )
  return good.at(-1)?.revision
}

const notUpPath = () => join(thisRun().inputs.stateDirectory, 'did-not-come-up.json')

/** By release: revisions that helm calls deployed, but whose workloads did not come up. */
function revisionsThatDidNotComeUp(): Record<string, number[]> {
  return existsSync(notUpPath()) ? JSON.parse(readFileSync(notUpPath(), 'utf8')) : {}
}

/** Remembers that the present revision did not come up, so that no rollback goes to it. */
export async function rememberNotUp(release: Release) {
  const { last } = await history(release)
  const known = revisionsThatDidNotComeUp()
  const revisions = [...new Set([...(known[release.release] ?? []), last!.revision])]
  writeWhole(notUpPath(), JSON.stringify({ ...known, [release.release]: revisions }) + '\n')
}

/** The commands that delete the Jobs which helm could not change: a Job's pod template is immutable. */
export function deleteImmutableJobs({ namespace }: Release, description = ''): string[] {
  const jobs = /field is immutable/.test(description)
    ? [...description.matchAll(/Job\.batch "([^"]+)" is invalid/g)].map(([, name]) => name!)
    : []
  return [...new Set(jobs)].map((name) =>
    deleteCommand({ kind: 'Job', metadata: { name, namespace } }),
  )
}

/**
 * What to do after a failure in the midst of an upgrade.
 * @param back the commands that lead back
 * @param jobs the commands that delete the Jobs in the way
 */
export function whatNext(back: string[], jobs: string[]): [en: string, zh: string] {
  if (endingFailure()) {
    return [
      `run the same command again: it goes on from here; or, to go back:\n${back.join('\n')}`,
      '请重新执行同一命令，脚本会从当前状态继续；如需回滚，请执行上面的命令',
    ]
  }
  if (jobs.length > 0) {
    return [
      `to go back:\n${back.join('\n')}\nor, if these values are meant, delete the Jobs in the way (a Job can't be changed):\n${jobs.join('\n')}\nand run the same command again`,
      '回滚请依次执行 “to go back” 下的命令；若参数无误，则执行其后的 kubectl delete job（Job 不可修改），再重新执行同一命令',
    ]
  }
  return [
    `to go back:\n${back.join('\n')}\nor fix the cause and run the same command again`,
    '回滚请执行上面的命令；或排除故障后重新执行同一命令',
  ]
}

/** The failed hooks of a release, for a failed `helm upgrade`: which Job, and why. */
export async function hookReasons(release: Release): Promise<string> {
  const { stdout } = await ask(`helm get hooks ${release.release} -n ${release.namespace}`)
  const hooks = objectsIn(stdout)
    .filter(({ kind }) => kind === 'Job')
    .map((object) => inNamespace(object, release.namespace))
  const found = await readNamespaces(hooks)
  const cluster = 'objects' in found ? found.objects : []
  return hooks
    .map((object) => ({ object, ...stateOf(object, cluster) }))
    .filter(({ up, object }) => !up && cluster.some((each) => nameOf(each) === nameOf(object)))
    .map(({ object, progress }) => `${nameOf(object)}: ${progress}${why(object, cluster)}`)
    .join('\n')
}
