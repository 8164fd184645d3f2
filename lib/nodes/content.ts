import { misconfigured } from '../base/failure.ts'
import { type BundleImage, digestInName, full } from '../bundle/images.ts'
import { type Bundle } from '../bundle/structure.ts'
import { unfit } from '../bundle/tar.ts'
import { imagePlace } from '../inputs/site.ts'
import { note, thisRun } from '../run/session.ts'
import { manifestOf } from './archive.ts'
import { type Node } from './nodes.ts'
import { askParts } from './ssh.ts'

/** What a node has. */
export interface NodeContent {
  /** by its reference: the image ID, `unknown` where it can't be told; is it complete and unpacked? */
  images: Map<string, { id: string; isUsable: boolean }>
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

/** The lines of a node's answer below a heading. */
type Lines = (heading: string) => string[]

/** An image's full name at this site, on a node: registry/repository/name:tag. */
export const targetReference = ({ target }: BundleImage): string =>
  `${imagePlace(thisRun().inputs)}/${target}`

/** The ID of the image that has this name on a node, if it is complete and unpacked. */
export function usableId({ images }: NodeContent, reference: string): string | undefined {
  const found = images.get(reference)
  return found?.isUsable ? found.id : undefined
}

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
  const lines: Lines = (heading) => parts.get(heading) ?? []
  refuseArchitecture(lines('architecture')[0] ?? '', bundle)
  const found = isDocker ? ofDocker(lines) : await ofContainerd(node, bundle, lines)
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

/** Shell text that asks Docker what it has; it leaves its directory in `$root`. */
const ASK_DOCKER = `
echo '== store'; docker info --format '{{json .DriverStatus}}'
echo '== images'; docker image ls --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}'
echo '== layers'
ids=$(docker image ls --no-trunc -q | sort -u)
if [ -n "$ids" ]; then docker image inspect --format '{{join .RootFS.Layers ","}}' $ids; fi
echo '== root'
root=$(docker info --format '{{.DockerRootDir}}')`

/** @throws Failure 78 */
function ofDocker(lines: Lines) {
  if (lines('store').some((line) => line.includes('io.containerd.snapshotter'))) {
    throw misconfigured`
      Docker keeps its images in containerd here (containerd-snapshotter): their IDs differ from those of the bundle
      此 Docker 使用 containerd 镜像存储（containerd-snapshotter），其镜像 ID 与离线包不同`.next`
      set features: {"containerd-snapshotter": false} in /etc/docker/daemon.json, or load there by hand
      请在 /etc/docker/daemon.json 中设置 features: {"containerd-snapshotter": false}，或手动加载`
  }
  // Docker knows a layer by all that is below it
  const chains = new Set(
    lines('layers').flatMap((line) => {
      const layers = line.split(',')
      return layers.map((_, index) => layers.slice(0, index + 1).join())
    }),
  )
  return {
    ...{ images: imagesOnDocker(lines('images')), idOf: new Map(), leases: [], clockAhead: 0 },
    hasLayer: ({ diffIds }: BundleImage, index: number) =>
      chains.has(diffIds.slice(0, index + 1).join()),
  }
}

/** @param lines of `docker image ls`: reference and image ID each */
function imagesOnDocker(lines: string[]): NodeContent['images'] {
  const pairs = lines.map((line) => line.split(' '))
  return new Map(pairs.map(([reference, id]) => [reference!, { id: id!, isUsable: true }]))
}

/** Shell text that asks containerd what it has; it leaves its directory in `$root`. */
const ASK_CONTAINERD = `
plugins=$(ctr --connect-timeout 5s plugins ls)
echo '== cri'; echo "$plugins" | grep -w 'io.containerd.grpc.v1 *cri' || true
echo '== images'; ctr -n k8s.io image check || true # it fails for an image of another platform
echo '== content'; ctr -n k8s.io content ls
echo '== leases'; ctr -n k8s.io leases ls
echo '== time'; date +%s
echo '== root'
root=$(sed -n "s/^root *= *['\\"]\\(.*\\)['\\"].*/\\1/p" /etc/containerd/config.toml 2>/dev/null) || true
root=\${root:-/var/lib/containerd}`

/** @throws Failure 78 */
async function ofContainerd(node: Node, bundle: Bundle, lines: Lines) {
  if (!lines('cri').some((line) => /\bok\b/.test(line))) {
    throw misconfigured`
      containerd on ${node.name} does not serve the kubelet (its CRI plugin is off): is Docker the runtime there?
      ${node.name} 上的 containerd 未启用 CRI 插件，kubelet 不使用它：运行时是否为 Docker？`.next(
      'set runtime: docker in the site file',
      '请在站点配置中设置 runtime: docker',
    )
  }
  const rows = rowsOf(lines('images'))
  // the CRI plugin also lists each image under its ID; ours are known by their manifests even before
  const idOf = new Map(bundle.images.map((image) => [manifestOf(image, bundle).digest, image.id]))
  for (const { name, digest } of rows) if (name.startsWith('sha256:')) idOf.set(digest, name)
  const ours = new Set(bundle.images.flatMap((image) => [image.source, targetReference(image)]))
  const ofUs = rows.filter(({ name }) => ours.has(name))
  await askManifests(node, ofUs, idOf)
  const content = keptContent(rows, lines('content'))
  return {
    images: imagesOnContainerd(ofUs, idOf),
    idOf,
    hasLayer: ({ layers }: BundleImage, index: number) =>
      content.has(`sha256:${digestInName(layers[index]!.name, bundle.file)}`),
    leases: lines('leases').flatMap((line) => {
      const [, id, time] = /^([\w.:+/=-]+)\s+(\d{4}-\S+)/.exec(line) ?? []
      return id ? [{ id, created: Date.parse(time!) / 1000 }] : []
    }),
    clockAhead: Number(lines('time')[0]) - Date.now() / 1000,
  }
}

/** A line of `ctr image check`: name, type, digest, state, size, unpacked. */
interface Row {
  name: string
  digest: string
  isUnpacked: boolean
  isUsable: boolean
}

const rowsOf = (lines: string[]): Row[] =>
  lines.flatMap((line) => {
    const [, name, digest, status, unpacked] =
      /^(\S+)\s+\S+\s+(sha256:[0-9a-f]{64})\s+(\w+).*\s(true|false)\s*$/.exec(line) ?? []
    const isUnpacked = unpacked === 'true'
    const isUsable = isUnpacked && status === 'complete'
    return name ? [{ name, digest: digest!, isUnpacked, isUsable }] : []
  })

const imagesOnContainerd = (rows: Row[], idOf: Map<string, string>): NodeContent['images'] =>
  new Map(
    rows.map(({ name, digest, isUsable }) => [
      name,
      { id: idOf.get(digest) ?? 'unknown', isUsable },
    ]),
  )

/**
 * What images refer to, by labels that containerd's garbage collection goes by. The rest is of an import
 * or a pull that has not ended, and may be gone in a moment.
 * @param listed the lines of `ctr content ls`: digest, size, age, labels
 */
function keptContent(rows: Row[], listed: string[]): Set<string> {
  const label = /(?<=containerd\.io\/gc\.ref\.content[^=,]*=)sha256:[0-9a-f]{64}/g
  const references = new Map(listed.map((line) => [line.split(/\s/)[0]!, line.match(label) ?? []]))
  const kept = new Set(rows.map(({ digest }) => digest))
  // what is added comes by too
  for (const digest of kept) references.get(digest)?.forEach((each) => kept.add(each))
  return new Set([...references.keys()].filter((digest) => kept.has(digest)))
}

/** Finds the image IDs of further manifests in the node's content; an index leads to one. */
async function askManifests(node: Node, rows: Row[], idOf: Map<string, string>) {
  const { architecture } = thisRun().inputs.site
  const unknown = new Set(rows.map(({ digest }) => digest).filter((digest) => !idOf.has(digest)))
  // the digest to read, and the digest that it is asked for
  let waiting = [...unknown].map((digest) => ({ digest, of: digest }))
  for (let depth = 0; depth < 2 && waiting.length > 0; depth++) {
    const questions = waiting.map(
      ({ digest }) => `echo '== ${digest}'; ctr -n k8s.io content get ${digest} || true; echo`,
    )
    const parts = await askParts(node, questions.join('\n'))
    waiting = waiting.flatMap(({ digest, of }) => {
      try {
        const { config, manifests } = JSON.parse(parts.get(digest)!.join('\n'))
        const next = manifests?.find(
          ({ platform }: any) => platform?.os === 'linux' && platform.architecture === architecture,
        )
        if (config?.digest) idOf.set(of, config.digest)
        else if (/^sha256:[0-9a-f]{64}$/.test(next?.digest)) return [{ digest: next.digest, of }]
      } catch {
        // it stays unknown
      }
      return []
    })
  }
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
    : rowsOf(lines).flatMap(({ name, isUnpacked }) => (isUnpacked ? [name] : []))
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
  const images = isDocker ? imagesOnDocker(lines) : imagesOnContainerd(rowsOf(lines), before.idOf)
  return { ...before, images }
}

/** Records what a node has of a bundle. */
export function noteContent(
  content: NodeContent,
  bundle: Bundle,
  node: Node,
  when: 'before' | 'again' | 'after',
) {
  const idOf = (image: BundleImage) => usableId(content, targetReference(image)) ?? null
  const images = Object.fromEntries(bundle.images.map((image) => [image.target, idOf(image)]))
  note({ event: 'node', when, node: node.name, images })
}
