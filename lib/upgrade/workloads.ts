import { commandFailed } from '../base/failure.ts'
import { deleteCommand } from '../cluster/cluster.ts'
import { inNamespace, type KubernetesObject, nameOf, objectsIn } from '../cluster/kubernetes.ts'
import { readNamespaces, stateOf, stuckPods, why } from '../cluster/workload-state.ts'
import { timeLimit } from '../inputs/flags.ts'
import { type Release } from '../inputs/types.ts'
import { answer } from '../run/ask.ts'
import { needed, settleDebt, word } from '../run/order.ts'
import { note, pause, report, thisRun } from '../run/session.ts'
import { check } from '../run/words.ts'
import { describeReleases } from './releases.ts'
import { rememberNotUp } from './rollback.ts'

/** Others of these names exist, with other rules: kruise's StatefulSet, volcano's Job. */
const KINDS = ['apps/Deployment', 'apps/StatefulSet', 'apps/DaemonSet', 'batch/Job']

/**
 * Waits until the Deployments, StatefulSets, DaemonSets and Jobs of the release's manifest are up, in
 * their new version.
 * @throws Failure 1 with each workload's reason and the rollback command, at the time limit or as soon
 * as a Job has failed
 */
export const waitForWorkloads = word('waitForWorkloads', async (release: Release) => {
  const { inputs } = thisRun()
  const { release: name, namespace } = release
  needed(release.isDeployed, 'isDeployed(release)', 'waitForWorkloads(release)')
  const limit = timeLimit(inputs.flags)
  await check(
    `check: the Deployments, StatefulSets, DaemonSets and Jobs of ${name} come up (time limit ${limit.text})`,
    `检查：${name} 的 Deployment、StatefulSet、DaemonSet 和 Job 均已就绪（时限 ${limit.text}）`,
    async () => {
      const manifest = objectsIn(await answer(`helm get manifest ${name} -n ${namespace}`))
      const wanted = manifest
        .filter(({ kind, apiVersion }) => KINDS.includes(`${apiVersion.split('/')[0]}/${kind}`))
        .map((object) => inNamespace(object, release.namespace))
      const begun = Date.now()
      const end = begun + limit.seconds * 1000
      const shown = new Map<string, string>()
      let unanswered = ''
      for (let round = 0; ; round++) {
        // the API server may be away for a moment: the network itself may be what is upgraded
        const cluster = await readNamespaces(wanted)
        if ('failure' in cluster) {
          if (Date.now() > end) throw cluster.failure
          if (unanswered !== cluster.failure.en) report(`  ${(unanswered = cluster.failure.en)} …`)
          await pause(2)
          continue
        }
        const { objects } = cluster
        const states = wanted.map((object) => ({ object, ...stateOf(object, objects) }))
        for (const { object, up, progress } of states) {
          const line = up ? `up: ${progress}` : `${progress}${why(object, objects)}`
          if (shown.get(nameOf(object)) !== line) report(`  ${nameOf(object)}  ${line}`)
          shown.set(nameOf(object), line)
        }
        const waiting = states.filter(({ up }) => !up)
        if (waiting.length === 0) {
          const up = wanted.map(nameOf)
          note({
            event: 'workloads',
            release: release.release,
            up,
            seconds: (Date.now() - begun) / 1000,
            imageIds: imageIds(wanted, objects),
          })
          return
        }
        if (waiting.some(({ failed }) => failed) || Date.now() > end) {
          await rememberNotUp(release)
          const reasons = waiting.map(
            ({ object, progress }) => `${nameOf(object)}: ${progress}${why(object, objects)}`,
          )
          const failure = commandFailed`
            ${waiting.length} of ${wanted.length} workloads of ${name} did not come up (time limit ${limit.text}):
            ${name} 的 ${wanted.length} 个工作负载中有 ${waiting.length} 个未就绪（时限 ${limit.text}）：`.items(
            reasons,
          )
          const behind = stuckPods(wanted, objects).map(deleteCommand)
          Object.assign(failure.details, await describeReleases(inputs.releases, behind))
          throw failure
        }
        await pause(round < 10 ? 1 : 3)
      }
    },
  )
  settleDebt(`waitForWorkloads(${name})`)
})

/** The image IDs that the pods of these workloads run, by image reference. */
function imageIds(
  wanted: KubernetesObject[],
  cluster: KubernetesObject[],
): Record<string, string[]> {
  const namespaces = new Set(wanted.map(({ metadata }) => metadata.namespace))
  const ids: Record<string, string[]> = {}
  for (const pod of cluster) {
    if (pod.kind !== 'Pod' || !namespaces.has(pod.metadata.namespace)) continue
    for (const { image, imageID } of pod['status'].containerStatuses ?? []) {
      if (imageID && !ids[image]?.includes(imageID)) (ids[image] ??= []).push(imageID)
    }
  }
  return ids
}
