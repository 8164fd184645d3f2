import { existsSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { closest } from 'fastest-levenshtein'
import { note } from '../audit/write.ts'
import { deleteCommand, ofThisCluster } from '../cluster/cluster.ts'
import { EXIT, Failure, type FailureDetails, UNCHANGED } from '../base/failure.ts'
import { crdsToRestore } from './crds.ts'
import { writeWhole } from '../base/files.ts'
import { type Release } from '../inputs/inputs.ts'
import { inNamespace, nameOf, objectsIn, type KubernetesObject } from '../cluster/kubernetes.ts'
import {
  ask,
  check,
  say,
  onFailureDescribe,
  questionFailed,
  report,
  placeholderFor,
  setVariable,
} from '../run/words.ts'
import { firstTime, thisRun } from '../run/session.ts'
import { endingFailure } from '../base/processes.ts'
import { hookReasons } from '../cluster/workload-state.ts'

/** A revision, as `helm history -o json` says it. */
interface Revision {
  revision: number
  updated: string
  status: string
  /** name and version of the chart: mspider-0.20.1 */
  chart: string
  description: string
}

/** What is known of a release before anything is done. */
interface ReleaseState {
  revisions: Revision[]
  last?: Revision
  deployed?: Revision
}

const states = new Map<string, ReleaseState>()

/** All revisions of a release that helm keeps; none when there is no such release. */
async function history({ release, namespace }: Release): Promise<ReleaseState> {
  const question = `helm history ${release} -n ${namespace} -o json`
  const ended = await ask(question)
  if (ended.exitCode !== 0 && !/release: not found/i.test(ended.stderr))
    throw questionFailed(question, ended)
  const revisions: Revision[] = ended.exitCode === 0 ? JSON.parse(ended.stdout) : []
  return {
    revisions,
    last: revisions.at(-1),
    deployed: lastDeployed(revisions),
  }
}

/**
 * The revision that is deployed; or that was until an upgrade that was cut off at its very end: helm
 * marks the old revision superseded first, and the new one deployed after it; with a KILL in between
 * that one stays pending, with a TERM it is failed (helm 3.22 pkg/action/upgrade.go).
 */
function lastDeployed(revisions: Revision[]): Revision | undefined {
  const newest = (wanted: string) => revisions.findLast(({ status }) => status === wanted)
  const isCutOff = /^(failed|pending-)/.test(revisions.at(-1)?.status ?? '')
  return newest('deployed') ?? (isCutOff ? newest('superseded') : undefined)
}

/** The version in `mspider-0.20.1`. */
export function chartVersion({ chart }: Release, revision: Revision): string {
  return revision.chart.slice(chart.length + 1)
}

/**
 * The command that brings a release back to a revision, for any terminal of this machine. Jobs that
 * stand in its way are deleted first.
 */
async function rollback(release: Release, revision: number, last?: Revision): Promise<string> {
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
function rollbackTarget({ release }: Release, { revisions }: ReleaseState): number | undefined {
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
function deleteImmutableJobs({ namespace }: Release, description = ''): string[] {
  const jobs = /field is immutable/.test(description)
    ? [...description.matchAll(/Job\.batch "([^"]+)" is invalid/g)].map(([, name]) => name!)
    : []
  return [...new Set(jobs)].map((name) =>
    deleteCommand({ kind: 'Job', metadata: { name, namespace } }),
  )
}

/**
 * Reads the state of the module's releases. From here on a failure says what became of them.
 * @throws Failure 66 a release does not exist or was never deployed · 75 one is pending: nothing may
 * be done to it until a person has cured it · 64 --install where the release exists
 */
export async function checkReleases() {
  if (!firstTime('checkReleases')) return
  const { releases, flags, module } = thisRun().inputs
  const names = releases.map(({ release, namespace }) => `${namespace}/${release}`).join(', ')
  const [en, zh] = flags.install
    ? [`check: ${names} does not exist yet`, `检查：${names} 尚不存在`]
    : [
        `check: ${names} is deployed, and no other helm is at work on it`,
        `检查：${names} 已部署，且没有其他 helm 正在操作`,
      ]
  await check(en!, zh!, async () => {
    if (flags.values && !existsSync(resolve(thisRun().inputs.stateDirectory, flags.values))) {
      throw new Failure(
        EXIT.missingInput,
        `the values file ${flags.values} does not exist`,
        `参数文件 ${flags.values} 不存在`,
      )
    }
    for (const release of releases) {
      const state = await history(release)
      states.set(release.release, state)
      note({
        event: 'state',
        release: release.release,
        revision: state.last?.revision,
        status: state.last?.status,
        chart: state.deployed?.chart,
      })
      await refusePending(release, state)
      refuseOtherChart(release, state)
      if (flags.install) refuseExisting(release, state)
      else if (!state.deployed) throw await notThere(release, state)
      else
        report(
          `  ${release.release}: revision ${state.deployed.revision}, ${state.deployed.chart}, ${state.deployed.status} ${state.deployed.updated}`,
        )
    }
    onFailureDescribe(() => describeReleases(releases))
  })
  if (flags.install)
    say(
      `an installation of ${module.name} takes its values from --values`,
      `安装 ${module.name} 时使用 --values 指定的参数`,
    )
}

async function refusePending(release: Release, { last, deployed }: ReleaseState) {
  if (!last || !/^(pending-|uninstalling)/.test(last.status)) return
  const cure = deployed ? await rollback(release, deployed.revision, last) : undefined
  const { release: name, namespace } = release
  throw new Failure(
    EXIT.tryLater,
    `release ${name} is ${last.status} since ${last.updated} (revision ${last.revision}): another helm is at work on it, or was killed`,
    `release ${name} 自 ${last.updated} 起处于 ${last.status}（revision ${last.revision}）：有其他 helm 正在操作，或曾被强行终止`,
    {
      state: UNCHANGED,
      next: cure
        ? [
            `first make sure that no helm is at work on it anywhere; then\n${cure}\nand run the same command again`,
            '请先确认任何机器上都没有 helm 正在操作它；然后执行上面的命令，再重新运行本脚本',
          ]
        : [
            `there is no deployed revision to go back to: a person decides. See: helm history ${name} -n ${namespace}, helm status ${name} -n ${namespace}`,
            '没有可回滚到的已部署 revision，须由人工判断。可用上述两条命令查看',
          ],
    },
  )
}

function refuseOtherChart({ release, chart }: Release, { deployed }: ReleaseState) {
  if (!deployed || new RegExp(`^${chart}-v?\\d`).test(deployed.chart)) return
  throw new Failure(
    EXIT.configuration,
    `${release} was deployed from another chart: ${deployed.chart}, not ${chart}`,
    `${release} 由另一个 chart 部署：${deployed.chart}，而不是 ${chart}`,
    { state: UNCHANGED },
  )
}

function refuseExisting({ release }: Release, { deployed, revisions }: ReleaseState) {
  if (!deployed && revisions.every(({ status }) => /^(failed|uninstalled)$/.test(status))) return
  throw new Failure(
    EXIT.usage,
    `--install is for a release that does not exist; ${release} does (${deployed?.chart ?? revisions.at(-1)?.status})`,
    `--install 仅用于尚不存在的 release；${release} 已存在（${deployed?.chart ?? revisions.at(-1)?.status}）`,
    {
      state: UNCHANGED,
      next: ['leave --install and --values out', '去掉 --install 和 --values'],
    },
  )
}

async function notThere({ release, namespace }: Release, { last }: ReleaseState): Promise<Failure> {
  const list = await ask(`helm list -n ${namespace} -q`)
  const others = list.stdout.split('\n').filter(Boolean)
  const near = others.length > 0 ? closest(release, others) : ''
  return new Failure(
    EXIT.missingInput,
    last
      ? `release ${release} in ${namespace} has no deployed revision; the last one is ${last.status}`
      : `there is no release ${release} in the namespace ${namespace}.` +
          (near ? ` There is: ${others.join(', ')}` : ''),
    last
      ? `命名空间 ${namespace} 中的 release ${release} 没有已部署的 revision；最后一个为 ${last.status}`
      : `命名空间 ${namespace} 中没有 release ${release}。` +
          (near ? `现有：${others.join('、')}` : ''),
    {
      said: last?.description,
      state: UNCHANGED,
      next: [
        `is it the right cluster? See what it has:\nhelm list -A ${ofThisCluster('--kube-context')}\nOnly if the module is to be installed in this cluster for the first time: upgrade with --install --values FILE`,
        '请先用上面的命令确认集群是否正确；仅在确需首次安装该模块时，才使用 --install --values FILE',
      ],
    },
  )
}

/**
 * What became of the releases, for a failure: compared with the state at the start.
 * @param afterRollback commands that are needed behind the rollback
 */
export async function describeReleases(
  releases: Release[],
  afterRollback: string[] = [],
): Promise<Partial<FailureDetails>> {
  const state: string[][] = []
  const next: string[] = []
  const jobs: string[] = []
  for (const release of releases) {
    const before = states.get(release.release)!
    const now = await history(release)
    const { release: name } = release
    if (now.last?.revision === before.last?.revision && now.last?.status === before.last?.status) {
      state.push([
        `release ${name} is as it was: ` +
          (now.last
            ? `revision ${now.last.revision}, ${now.last.chart}, ${now.last.status}`
            : 'not installed'),
        `release ${name} 未变：` +
          (now.last
            ? `revision ${now.last.revision}，${now.last.chart}，${now.last.status}`
            : '未安装'),
      ])
      continue
    }
    const target = rollbackTarget(release, before)
    const was =
      before.deployed && `before: revision ${before.deployed.revision}, ${before.deployed.chart}`
    state.push([
      `release ${name} is at revision ${now.last?.revision}, ${now.last?.chart}, ${now.last?.status} (${was ?? 'before: not installed'})`,
      `release ${name} 现为 revision ${now.last?.revision}，${now.last?.chart}，${now.last?.status}` +
        (before.deployed
          ? `（此前：revision ${before.deployed.revision}，${before.deployed.chart}）`
          : '（此前未安装）'),
    ])
    const hooks = now.last?.status === 'failed' ? await hookReasons(release) : ''
    if (hooks) state.push([hooks, ''])
    if (target) next.push(await rollback(release, target, now.last))
    jobs.push(...deleteImmutableJobs(release, now.last?.description))
  }
  if (next.length > 0) next.push(...afterRollback)
  for (const command of crdsToRestore) {
    state.push([
      `the CRDs may have been updated; to bring the saved ones back: ${command}`,
      '部分 CRD 可能已更新；恢复命令见上',
    ])
  }
  return {
    state: [state.map(([en]) => en).join('\n'), state.map(([, zh]) => zh).join('\n')],
    ...(next.length > 0 && { next: whatNext(next, jobs) }),
  }
}

/**
 * What to do after a failure in the midst of an upgrade.
 * @param back the commands that lead back
 * @param jobs the commands that delete the Jobs which stand in the way
 */
function whatNext(back: string[], jobs: string[]): [en: string, zh: string] {
  if (endingFailure()) {
    return [
      `run the same command again: it goes on from here; or, to go back:\n${back.join('\n')}`,
      '请重新执行同一命令，脚本会从当前状态继续；如需回滚，请执行上面的命令',
    ]
  }
  if (jobs.length > 0) {
    return [
      `to go back:\n${back.join('\n')}\nor, if these values are meant, delete the Jobs that stand in the way (a Job can't be changed):\n${jobs.join('\n')}\nand run the same command again`,
      '回滚请执行上面第一条命令；若参数无误，则用 kubectl delete job 删除同名 Job（Job 不可修改），再重新执行同一命令',
    ]
  }
  return [
    `to go back:\n${back.join('\n')}\nor mend the cause and run the same command again`,
    '回滚请执行上面的命令；或排除故障后重新执行同一命令',
  ]
}

/** The revision whose values are backed up: the last *deployed* one, not a failed one after it. */
export async function setLastDeployedRevision(release: Release) {
  await setVariable('revision', placeholderFor('last_deployed_revision', release), async () => {
    const { deployed, last } = await history(release)
    if (!deployed) throw await notThere(release, { revisions: [], last })
    return String(deployed.revision)
  })
}

/**
 * After the upgrade: the last revision must be deployed, at the exact version.
 * @throws Failure 1
 */
export async function checkReleased(release: Release) {
  const { variables } = thisRun()
  await check(
    `check: ${release.release} is deployed at the version above`,
    `检查：${release.release} 已部署为上述版本`,
    async () => {
      const { last } = await history(release)
      note({
        event: 'state',
        release: release.release,
        revision: last?.revision,
        status: last?.status,
        chart: last?.chart,
      })
      report(`  ${release.release}: revision ${last?.revision}, ${last?.chart}, ${last?.status}`)
      if (last?.status === 'deployed' && chartVersion(release, last) === variables['version'])
        return
      throw new Failure(
        EXIT.commandFailed,
        `${release.release} should be deployed at ${variables['version']}, but is ${last?.status} at ${last?.chart}`,
        `${release.release} 应部署为 ${variables['version']}，实际为 ${last?.chart}（${last?.status}）`,
        await describeReleases(thisRun().inputs.releases),
      )
    },
  )
}

/** What is known of the release from before, for other checks. */
export function stateBefore(release: Release): ReleaseState {
  return states.get(release.release) ?? { revisions: [] }
}
