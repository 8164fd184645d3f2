import { audit } from './audit.ts'
import { EXIT, Failure } from './failure.ts'
import { deletePod, describeReleases } from './releases.ts'
import { timeLimit } from './flags.ts'
import { type Release } from './inputs.ts'
import { nameOf, objectsIn, type KubernetesObject } from './kubernetes.ts'
import { pause } from './processes.ts'
import { answer, check, report } from './run.ts'
import { thisRun } from './session.ts'
import { readNamespaces, standingOf, stuckPods, why } from './standing.ts'

const KINDS = ['Deployment', 'StatefulSet', 'DaemonSet', 'Job']

/**
 * Waits until the Deployments, StatefulSets, DaemonSets and Jobs of the release's manifest are up, in
 * their new version.
 * @throws Failure 1 with each workload's reason and the rollback command, at the time limit or as soon
 * as a Job has failed
 */
export async function waitForWorkloads(release: Release) {
  const { inputs } = thisRun()
  const limit = timeLimit(inputs.flags)
  await check(
    `check: the Deployments, StatefulSets, DaemonSets and Jobs of ${release.release} come up (time limit ${limit.text})`,
    `检查：${release.release} 的 Deployment、StatefulSet、DaemonSet 和 Job 均已就绪（时限 ${limit.text}）`,
    async () => {
      const manifest = objectsIn(
        await answer(`helm get manifest ${release.release} -n ${release.namespace}`),
      )
      const wanted = manifest
        .filter(({ kind }) => KINDS.includes(kind))
        .map((object) => ({
          ...object,
          metadata: {
            ...object.metadata,
            namespace: object.metadata.namespace ?? release.namespace,
          },
        }))
      const end = Date.now() + limit.seconds * 1000
      const shown = new Map<string, string>()
      for (;;) {
        const cluster = await readNamespaces(wanted)
        const standings = wanted.map((object) => ({ object, ...standingOf(object, cluster) }))
        for (const { object, up, progress } of standings) {
          const line = up ? `up: ${progress}` : `${progress}${why(object, cluster)}`
          if (shown.get(nameOf(object)) !== line) report(`  ${nameOf(object)}  ${line}`)
          shown.set(nameOf(object), line)
        }
        const waiting = standings.filter(({ up }) => !up)
        if (waiting.length === 0) {
          audit({
            event: 'workloads',
            release: release.release,
            up: wanted.map(nameOf),
            imageIds: imageIds(wanted, cluster),
          })
          return
        }
        if (waiting.some(({ failed }) => failed) || Date.now() > end) {
          const reasons = waiting.map(
            ({ object, progress }) => `${nameOf(object)}: ${progress}${why(object, cluster)}`,
          )
          throw new Failure(
            EXIT.commandFailed,
            `${waiting.length} of ${wanted.length} workloads of ${release.release} did not come up within ${limit.text}:\n${reasons.join('\n')}`,
            `${release.release} 的 ${wanted.length} 个工作负载中有 ${waiting.length} 个未能在 ${limit.text} 内就绪，原因见上`,
            await describeReleases([release], stuckPods(wanted, cluster).map(deletePod)),
          )
        }
        await pause(1)
      }
    },
  )
}

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
