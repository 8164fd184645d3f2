import { misconfigured } from '../base/failure.ts'
import { type BundleImage, full } from '../bundle/images.ts'
import { type Bundle } from '../bundle/structure.ts'
import { unfit } from '../bundle/tar.ts'
import { imagePlace } from '../inputs/site.ts'
import { note, thisRun } from '../run/session.ts'
import { ASK_CONTAINERD, containerdImages, ofContainerd, rowsOf } from './containerd.ts'
import { ASK_DOCKER, dockerImages, ofDocker } from './docker.ts'
import { type Node } from './nodes.ts'
import { askParts } from './ssh.ts'

/** What a node has. */
export interface NodeContent {
  /** image reference → image ID, of the images that are complete and unpacked */
  usable: Map<string, string>
  /** image reference → image ID, of all; `unknown` where it can't be told */
  ids: Map<string, string>
  /** containerd: the digest that a reference stands for → image ID */
  idOf: Map<string, string>
  /** is the layer there, as part of any image? */
  hasLayer: (image: BundleImage, index: number) => boolean
  /** the root directory of containerd or Docker, and the bytes of its disk */
  root: string
  free: number
  size: number
  /** containerd's leases, and when each was made, in seconds since 1970 on the node's clock */
  leases: { id: string; created: number }[]
  /** how far the node's clock is ahead of ours, in seconds */
  clockAhead: number
}

/** An image's full name at this site, on a node: registry/repository/name:tag. */
export const targetReference = ({ target }: Pick<BundleImage, 'target'>): string =>
  `${imagePlace(thisRun().inputs)}/${target}`

/**
 * Asks a node, in one question, what it has.
 * @throws Failure 69 it, or its containerd or Docker, can't be reached · 77 no login · 78 it is not the runtime of the kubelet · 65 the bundle is for another architecture
 */
export async function askNode(node: Node, bundle: Bundle): Promise<NodeContent> {
  const isDocker = node.runtime === 'docker'
  if (!isDocker && node.runtime !== 'containerd') {
    throw misconfigured`
      the node runs ${node.runtime}; the manual knows Docker and containerd
      节点的运行时为 ${node.runtime}；手册只涉及 Docker 和 containerd`
  }
  const parts = await askParts(
    node,
    `echo '== architecture'; uname -m${isDocker ? ASK_DOCKER : ASK_CONTAINERD}
while [ ! -e "$root" ]; do root=$(dirname "$root"); done
echo "$root"
echo '== disk'; df -B1 --output=size,avail "$root" | tail -n 1`,
  )
  const lines = (heading: string) => parts.get(heading) ?? []
  refuseArchitecture(lines('architecture')[0] ?? '', bundle)
  const ours = new Set(bundle.images.flatMap((image) => [image.source, targetReference(image)]))
  const found = isDocker ? ofDocker(lines) : await ofContainerd(node, bundle, ours, lines)
  const [size = 0, free = 0] = (lines('disk')[0] ?? '').trim().split(/\s+/).map(Number)
  return { ...found, root: lines('root')[0] ?? '', size, free }
}

/** @throws Failure 65 */
function refuseArchitecture(machine: string, { images, file }: Bundle) {
  const names: Record<string, string> = { x86_64: 'amd64', aarch64: 'arm64' }
  const architecture = names[machine] ?? machine
  const wanted = images[0]!.architecture
  if (architecture === wanted) return
  throw unfit`
    the node is ${architecture}, and the bundle ${file} is for ${wanted}
    节点架构为 ${architecture}，而离线包 ${file} 适用于 ${wanted}`.next`
    load the bundle of its architecture there, with a site file of that architecture
    请使用对应架构的离线包和站点配置`
}

/**
 * Which of these images a node has not, by their names.
 * @param images full references: registry/repository/name:tag
 * @throws Failure as `askNode` does
 */
export async function missingOnNode(node: Node, images: string[]): Promise<string[]> {
  const isDocker = node.runtime === 'docker'
  const list = isDocker
    ? "docker image ls --format '{{.Repository}}:{{.Tag}}'"
    : 'ctr -n k8s.io image check || true'
  const lines = (await askParts(node, `echo '== images'; ${list}`)).get('images')!
  // what the kubelet pulled may lack its layers (discard_unpacked_layers), and works
  const names = isDocker
    ? lines
    : rowsOf(lines).flatMap(({ name, unpacked }) => (unpacked ? [name] : []))
  const there = new Set(names.map(full))
  return images.filter((image) => !there.has(full(image)))
}

/**
 * What a node has after the images were tagged, from what `ctr image check` or `docker image ls` said.
 * @param before what it had before
 */
export function contentAfter(said: string, node: Node, before: NodeContent): NodeContent {
  const lines = said.split('\n')
  const isDocker = node.runtime === 'docker'
  const images = isDocker ? dockerImages(lines) : containerdImages(rowsOf(lines), before.idOf)
  return { ...before, ...images }
}

/** Records what a node has of a bundle. */
export function noteContent(
  { usable }: NodeContent,
  { images }: Bundle,
  node: Node,
  when: 'before' | 'again' | 'after',
) {
  const found = images.map((image) => [image.target, usable.get(targetReference(image)) ?? null])
  note({ event: 'node', when, node: node.name, images: Object.fromEntries(found) })
}
