import { type Failure } from '../base/failure.ts'
import { ask, questionFailed } from '../run/ask.ts'
import { deleteCommand } from './cluster.ts'
import { type KubernetesObject, nameOf } from './kubernetes.ts'

/** Is a workload up, and if not, how far is it? */
interface WorkloadState {
  up: boolean
  /** it can't come up any more: waiting is of no use */
  failed?: boolean
  /** how far it is: 1 of 2 replicas are available */
  progress: string
}

/**
 * The workloads, pods and events of the namespaces of these objects; or the failure, where the API
 * server did not answer.
 */
export async function readNamespaces(
  objects: KubernetesObject[],
): Promise<{ objects: KubernetesObject[] } | { failure: Failure }> {
  const found: KubernetesObject[] = []
  for (const namespace of new Set(objects.map(({ metadata }) => metadata.namespace!))) {
    const question = `kubectl get deployments.apps,statefulsets.apps,daemonsets.apps,jobs.batch,replicasets.apps,pods,events -n ${namespace} -o json --request-timeout=20s`
    const ended = await ask(question)
    if (ended.exitCode !== 0) return { failure: questionFailed(question, ended) }
    found.push(...JSON.parse(ended.stdout).items)
  }
  return { objects: found }
}

/** Is the workload up, in the version that was wanted? */
export function stateOf(wanted: KubernetesObject, cluster: KubernetesObject[]): WorkloadState {
  const object = cluster.find((each) => nameOf(each) === nameOf(wanted))
  if (!object) {
    const gone = wanted.kind === 'Job' && wanted['spec']?.ttlSecondsAfterFinished !== undefined
    return { up: gone, progress: gone ? 'done and removed' : 'not in the cluster' }
  }
  const { spec, status = {} } = object
  const seen = (status.observedGeneration ?? 0) >= ((object.metadata['generation'] as number) ?? 0)
  if (object.kind === 'Job') {
    const condition = (type: string) =>
      status.conditions?.find((each: any) => each.type === type && each.status === 'True')
    const failed = condition('Failed')
    if (failed)
      return { up: false, failed: true, progress: `failed: ${failed.reason}: ${failed.message}` }
    if (condition('Complete')) return { up: true, progress: 'complete' }
    if (spec.suspend) return { up: true, progress: 'suspended' }
    return { up: false, progress: `${status.succeeded ?? 0} of ${spec.completions ?? 1} completed` }
  }
  if (object.kind === 'DaemonSet') {
    const { desiredNumberScheduled: desired = 0, numberAvailable: available = 0 } = status
    const updated =
      spec.updateStrategy?.type === 'OnDelete' ? desired : (status.updatedNumberScheduled ?? 0)
    const up = seen && updated === desired && available === desired
    return {
      up,
      progress: `${Math.min(updated, available)} of ${desired} pods are new and available`,
    }
  }
  const replicas = spec.replicas ?? 1
  const byHand =
    object.kind === 'StatefulSet' &&
    (spec.updateStrategy?.type === 'OnDelete' || spec.updateStrategy?.rollingUpdate?.partition > 0)
  const updated = byHand ? replicas : (status.updatedReplicas ?? 0)
  const available =
    (object.kind === 'StatefulSet'
      ? (status.availableReplicas ?? status.readyReplicas)
      : status.availableReplicas) ?? 0
  const up =
    seen && updated === replicas && available === replicas && (status.replicas ?? 0) === replicas
  const fresh =
    object.kind === 'Deployment' ? availableOfNewest(object, cluster) : Math.min(updated, available)
  return { up, progress: `${fresh} of ${replicas} replicas are new and available` }
}

/** How many pods of a Deployment's newest ReplicaSet are available; its own count has the old ones in it. */
function availableOfNewest(deployment: KubernetesObject, cluster: KubernetesObject[]): number {
  const revision = 'deployment.kubernetes.io/revision'
  const newest = cluster.find(
    (each) =>
      each.kind === 'ReplicaSet' &&
      isOwnedBy(each, deployment.metadata['uid']) &&
      each.metadata.annotations?.[revision] === deployment.metadata.annotations?.[revision],
  )
  return newest?.['status'].availableReplicas ?? 0
}

const isOwnedBy = ({ metadata }: KubernetesObject, owner: unknown): boolean =>
  (metadata['ownerReferences'] as { uid: string }[] | undefined)?.some(
    ({ uid }) => uid === owner,
  ) ?? false

/** Why a workload is not up, from its pods, or from what kept it from having any. */
export function why(workload: KubernetesObject, cluster: KubernetesObject[]): string {
  const object = cluster.find((each) => nameOf(each) === nameOf(workload))
  if (!object) return ''
  const uid = object.metadata['uid']
  const owners = [
    uid,
    ...cluster
      .filter((each) => each.kind === 'ReplicaSet' && isOwnedBy(each, uid))
      .map(({ metadata }) => metadata['uid']),
  ]
  const pods = cluster.filter(
    (each) => each.kind === 'Pod' && owners.some((owner) => isOwnedBy(each, owner)),
  )
  const { updateRevision } = object['status'] ?? {}
  const reasons = pods
    .map((pod) => ({ pod, reason: podReason(pod, cluster) }))
    .filter(({ reason }) => reason !== '')
    .map(({ pod, reason }) => {
      // a StatefulSet waits for it before it makes the new one (kubernetes/kubernetes#67250)
      const isOld =
        object.kind === 'StatefulSet' &&
        !pod.metadata['deletionTimestamp'] &&
        pod.metadata.labels?.['controller-revision-hash'] !== updateRevision
      return isOld
        ? `${reason}\n      it is of an older revision and blocks the new one; to delete it · 该 Pod 属于旧 revision，阻塞更新，可删除：\n      ${deleteCommand(pod)}`
        : reason
    })
  if (reasons.length === 0) {
    const failure = object['status']?.conditions?.find(
      (each: any) => each.type === 'ReplicaFailure' && each.status === 'True',
    )
    if (failure) reasons.push(failure.message)
    const event = cluster.findLast(
      (each) =>
        each.kind === 'Event' &&
        each['type'] === 'Warning' &&
        owners.includes(each['involvedObject'].uid),
    )
    if (event && !failure) reasons.push(event['message'])
  }
  return [...new Set(reasons)].map((reason) => `\n      ${reason}`).join('')
}

/**
 * Pods of StatefulSets that never got ready in their new revision. A StatefulSet waits for such a pod
 * even after a rollback (kubernetes/kubernetes#67250); it comes back when somebody deletes it.
 */
export function stuckPods(
  workloads: KubernetesObject[],
  cluster: KubernetesObject[],
): KubernetesObject[] {
  const names = workloads.filter(({ kind }) => kind === 'StatefulSet').map(nameOf)
  const sets = cluster.filter((each) => names.includes(nameOf(each)))
  return cluster.filter(
    (each) =>
      each.kind === 'Pod' &&
      sets.some(
        ({ metadata, status }) =>
          isOwnedBy(each, metadata['uid']) &&
          each.metadata.labels?.['controller-revision-hash'] === status.updateRevision,
      ) &&
      !each['status'].conditions?.some(
        (condition: any) => condition.type === 'Ready' && condition.status === 'True',
      ),
  )
}

/** What is wrong with a pod; '' when nothing is. */
function podReason(pod: KubernetesObject, cluster: KubernetesObject[]): string {
  const { status } = pod
  const node = pod['spec'].nodeName
  const where = `pod ${pod.metadata.name}${node ? ` on ${node}` : ''}`
  const unscheduled = status.conditions?.find(
    (each: any) => each.type === 'PodScheduled' && each.status === 'False',
  )
  if (unscheduled) return `no room · 无法调度: ${where}: ${unscheduled.message}`
  if (status.phase === 'Failed' && status.reason)
    return `${where}: ${status.reason}: ${status.message ?? ''}`
  for (const container of [
    ...(status.initContainerStatuses ?? []),
    ...(status.containerStatuses ?? []),
  ]) {
    const { waiting, terminated } = container.state ?? {}
    const last = terminated ?? container.lastState?.terminated
    const logs = `kubectl logs ${pod.metadata.name} -c ${container.name} -n ${pod.metadata.namespace} --previous`
    if (
      /ImagePullBackOff|ErrImage|InvalidImageName|ImageInspectError|RegistryUnavailable/.test(
        waiting?.reason ?? '',
      )
    ) {
      const pull = cluster.findLast(
        (each) =>
          each.kind === 'Event' &&
          each['involvedObject'].uid === pod.metadata['uid'] &&
          /Failed to pull image/.test(each['message']),
      )
      return `image can't be pulled · 镜像无法拉取: ${where}: ${container.image}: ${pull?.['message'] ?? waiting.message}`
    }
    if (waiting?.reason === 'CrashLoopBackOff' || (last && last.exitCode !== 0)) {
      const { exitCode, reason, message = '' } = last ?? {}
      return `crash · 容器崩溃: ${where}: container ${container.name} ended with exit code ${exitCode} (${reason}) ${message}, ${container.restartCount} restarts; see: ${logs}`
    }
    if (waiting && waiting.reason !== 'ContainerCreating' && waiting.reason !== 'PodInitializing') {
      return `${where}: ${waiting.reason}: ${waiting.message ?? ''}`
    }
  }
  const events = cluster.filter(
    (each) =>
      each.kind === 'Event' &&
      each['type'] === 'Warning' &&
      each['involvedObject'].uid === pod.metadata['uid'],
  )
  const ready = status.conditions?.find((each: any) => each.type === 'Ready')?.status === 'True'
  const event = events.at(-1)
  return ready || !event ? '' : `${where}: ${event['reason']}: ${event['message']}`
}
