import { closeSync, openSync } from 'node:fs'
import { note, sha256 } from '../audit/write.ts'
import { digestInName, full, type Bundle, type BundleImage } from '../bundle/structure.ts'
import { EXIT, Failure, UNCHANGED } from '../base/failure.ts'
import { imagePlace } from '../inputs/inputs.ts'
import { type Node } from './nodes.ts'
import { onNode } from './ssh.ts'
import { answer } from '../run/words.ts'
import { thisRun } from '../run/session.ts'
import { fromFile, type Member } from '../bundle/tar.ts'

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
export function targetReference({ target }: BundleImage): string {
  return `${imagePlace(thisRun().inputs)}/${target}`
}

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

const ASK_DOCKER = `
echo '== store'; docker info --format '{{json .DriverStatus}}'
echo '== images'; docker image ls --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}'
echo '== layers'
ids=$(docker image ls --no-trunc -q | sort -u)
if [ -n "$ids" ]; then docker image inspect --format '{{join .RootFS.Layers ","}}' $ids; fi
echo '== root'
root=$(docker info --format '{{.DockerRootDir}}')`

/**
 * Asks a node, in one question, what it has.
 * @throws Failure 69 it, or its containerd or Docker, can't be reached · 77 no login · 78 it is not the runtime of the kubelet · 65 the bundle is for another architecture
 */
export async function askNode(node: Node, bundle: Bundle): Promise<NodeContent> {
  const isDocker = node.runtime === 'docker'
  if (!isDocker && node.runtime !== 'containerd') {
    throw new Failure(
      EXIT.configuration,
      `the node runs ${node.runtime}; the manual knows Docker and containerd`,
      `节点的运行时为 ${node.runtime}；手册只涉及 Docker 和 containerd`,
      { state: UNCHANGED },
    )
  }
  const parts = await askParts(
    node,
    `echo '== architecture'; uname -m${isDocker ? ASK_DOCKER : ASK_CONTAINERD}
while [ ! -e "$root" ]; do root=$(dirname "$root"); done
echo "$root"
echo '== disk'; df -B1 --output=size,avail "$root" | tail -n 1`,
  )
  const lines = (name: string) => parts.get(name) ?? []
  checkArchitecture(lines('architecture')[0] ?? '', bundle)
  const [size = 0, free = 0] = (lines('disk')[0] ?? '').trim().split(/\s+/).map(Number)
  const common = { root: lines('root')[0] ?? '', size, free }
  if (isDocker) return { ...common, ...ofDocker(lines) }
  return { ...common, ...(await ofContainerd(node, bundle, lines)) }
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

/** The answer in parts, each under its `== heading`. */
async function askParts(node: Node, script: string): Promise<Map<string, string[]>> {
  const text = `${[...onNode(node), 'bash -s'].join(' ')} << 'EOF'\nexport LC_ALL=C\nset -eu${script.startsWith('\n') ? '' : '\n'}${script}\nEOF`
  const said = await answer(text)
  const parts = new Map<string, string[]>()
  let part: string[] = []
  for (const line of said.split('\n')) {
    const [, name] = /^== (.*)$/.exec(line) ?? []
    if (name === undefined) part.push(line)
    else parts.set(name, (part = []))
  }
  parts.forEach((each) => each.at(-1) === '' && each.pop())
  return parts
}

/** @throws Failure 65 */
function checkArchitecture(machine: string, { images, file }: Bundle) {
  const names: Record<string, string> = { x86_64: 'amd64', aarch64: 'arm64' }
  const architecture = names[machine] ?? machine
  const wanted = images[0]!.architecture
  if (architecture === wanted) return
  throw new Failure(
    EXIT.badBundle,
    `the node is ${architecture}, and the bundle ${file} is for ${wanted}`,
    `节点架构为 ${architecture}，而离线包 ${file} 适用于 ${wanted}`,
    {
      state: UNCHANGED,
      next: [
        'load the bundle of its architecture there, with a site file of that architecture',
        '请使用对应架构的离线包和站点配置',
      ],
    },
  )
}

function ofDocker(lines: (name: string) => string[]) {
  if (lines('store').some((line) => line.includes('io.containerd.snapshotter'))) {
    throw new Failure(
      EXIT.configuration,
      'Docker keeps its images in containerd here (containerd-snapshotter): their IDs are not those of the bundle',
      '此 Docker 使用 containerd 镜像存储（containerd-snapshotter），其镜像 ID 与离线包不同',
      {
        state: UNCHANGED,
        next: [
          'features: {"containerd-snapshotter": false} in /etc/docker/daemon.json, or load there by hand',
          '请在 /etc/docker/daemon.json 中设置 features: {"containerd-snapshotter": false}，或手动加载',
        ],
      },
    )
  }
  // Docker knows a layer by all that is below it
  const chains = new Set(
    lines('layers').flatMap((line) => {
      const layers = line.split(',')
      return layers.map((_, index) => layers.slice(0, index + 1).join())
    }),
  )
  return {
    ...dockerImages(lines('images')),
    idOf: new Map<string, string>(),
    hasLayer: ({ diffIds }: BundleImage, index: number) =>
      chains.has(diffIds.slice(0, index + 1).join()),
    leases: [],
    clockAhead: 0,
  }
}

async function ofContainerd(node: Node, bundle: Bundle, lines: (name: string) => string[]) {
  if (!lines('cri').some((line) => /\bok\b/.test(line))) {
    throw new Failure(
      EXIT.configuration,
      `containerd on ${node.name} does not serve the kubelet (its CRI plugin is off): is Docker the runtime there?`,
      `${node.name} 上的 containerd 未启用 CRI 插件，kubelet 不使用它：运行时是否为 Docker？`,
      {
        state: UNCHANGED,
        next: ['runtime: docker in the site file', '请在站点配置中设置 runtime: docker'],
      },
    )
  }
  const rows = rowsOf(lines('images'))
  // the CRI plugin also lists each image under its ID; ours are known by their manifests even before
  const known = new Map(bundle.images.map((image) => [manifestOf(image, bundle).digest, image.id]))
  for (const { name, digest } of rows) {
    if (name.startsWith('sha256:')) known.set(digest, name)
  }
  const wanted = new Set(bundle.images.flatMap((image) => [image.source, targetReference(image)]))
  const ofUs = rows.filter(({ name }) => wanted.has(name))
  await askManifests(
    node,
    ofUs.map(({ digest }) => digest),
    known,
  )
  const content = keptContent(
    rows.map(({ digest }) => digest),
    lines('content'),
  )
  return {
    ...containerdImages(ofUs, known),
    idOf: known,
    hasLayer: ({ layers }: BundleImage, index: number) =>
      content.has(`sha256:${digestInName(layers[index]!.name, bundle.file)}`),
    leases: lines('leases').flatMap((line) => {
      const [, id, time] = /^([\w.:+/=-]+)\s+(\d{4}-\S+)/.exec(line) ?? []
      return id ? [{ id, created: Date.parse(time!) / 1000 }] : []
    }),
    clockAhead: Number(lines('time')[0]) - Date.now() / 1000,
  }
}

/** The lines of `ctr image check`: name, type, digest, state, size, unpacked. */
function rowsOf(lines: string[]) {
  return lines.flatMap((line) => {
    const [, name, digest, status, unpacked] =
      /^(\S+)\s+\S+\s+(sha256:[0-9a-f]{64})\s+(\w+).*\s(true|false)\s*$/.exec(line) ?? []
    const usable = status === 'complete' && unpacked === 'true'
    return name ? [{ name, digest: digest!, usable, unpacked: unpacked === 'true' }] : []
  })
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

type Images = Pick<NodeContent, 'ids' | 'usable'>

/** @param lines reference and image ID each */
function dockerImages(lines: string[]): Images {
  const ids = new Map(lines.map((line) => line.split(' ') as [string, string]))
  return { ids, usable: ids }
}

/** @param idOf the digest that a reference stands for → image ID */
function containerdImages(rows: ReturnType<typeof rowsOf>, idOf: Map<string, string>): Images {
  const withId = ({ name, digest }: { name: string; digest: string }) =>
    [name, idOf.get(digest) ?? 'unknown'] as const
  return {
    ids: new Map(rows.map(withId)),
    usable: new Map(rows.filter(({ usable }) => usable).map(withId)),
  }
}

/**
 * What images refer to, by labels that containerd's garbage collection goes by. The rest is of an import
 * or a pull that has not ended, and may be gone in a moment.
 * @param images the digests that images stand for
 * @param listed the lines of `ctr content ls`: digest, size, age, labels
 */
function keptContent(images: string[], listed: string[]): Set<string> {
  const references = new Map(
    listed.map((line) => {
      const labels = line.match(/containerd\.io\/gc\.ref\.content[^=,]*=sha256:[0-9a-f]{64}/g) ?? []
      return [line.split(/\s/)[0]!, labels.map((label) => label.split('=')[1]!)]
    }),
  )
  const kept = new Set<string>()
  const keep = (digest: string) => {
    if (kept.has(digest) || !references.has(digest)) return
    kept.add(digest)
    references.get(digest)!.forEach(keep)
  }
  images.forEach(keep)
  return kept
}

/** Finds the image IDs of manifests that nobody knows yet, in the node's content; an index leads to one. */
async function askManifests(node: Node, digests: string[], known: Map<string, string>) {
  const waiting = new Map<string, string>() // the digest to read → the digest that it is asked for
  for (const digest of digests) if (!known.has(digest)) waiting.set(digest, digest)
  for (let depth = 0; depth < 2 && waiting.size > 0; depth++) {
    const script = [...waiting.keys()]
      .map((digest) => `echo '== ${digest}'; ctr -n k8s.io content get ${digest} || true; echo`)
      .join('\n')
    const parts = await askParts(node, script)
    for (const [digest, of] of [...waiting]) {
      waiting.delete(digest)
      try {
        const { config, manifests } = JSON.parse(parts.get(digest)!.join('\n'))
        const { architecture } = thisRun().inputs.site
        const next = manifests?.find(
          ({ platform }: any) => platform?.os === 'linux' && platform.architecture === architecture,
        )
        if (config?.digest) known.set(of, config.digest)
        else if (/^sha256:[0-9a-f]{64}$/.test(next?.digest)) waiting.set(next.digest, of)
      } catch {
        // it stays unknown
      }
    }
  }
}

const DOCKER = 'application/vnd.docker'

/**
 * The manifest of an image as containerd makes it of a docker-archive (containerd 1.6
 * images/archive/importer.go), so that both ways of loading lead to the same.
 */
export function manifestOf(
  image: BundleImage,
  { file }: Bundle,
): { text: string; digest: string; mediaType: string } {
  const known = manifests.get(image)
  if (known) return known
  const digestOf = ({ name }: Member) => `sha256:${digestInName(name, file)}`
  const mediaType = `${DOCKER}.distribution.manifest.v2+json`
  const text = JSON.stringify({
    schemaVersion: 2,
    mediaType,
    config: {
      mediaType: `${DOCKER}.container.image.v1+json`,
      digest: image.id,
      size: image.config.size,
    },
    layers: image.layers.map((layer) => ({
      mediaType: `${DOCKER}.image.rootfs.diff.tar${compressionOf(file, layer)}`,
      digest: digestOf(layer),
      size: layer.size,
    })),
  })
  const made = { text, digest: `sha256:${sha256(text)}`, mediaType }
  manifests.set(image, made)
  return made
}

const manifests = new Map<BundleImage, { text: string; digest: string; mediaType: string }>()

function compressionOf(file: string, layer: Member): '' | '.gzip' | '.zstd' {
  const magic = bytesAt(file, layer.offset, Math.min(4, layer.size)).toString('hex')
  if (magic.startsWith('1f8b')) return '.gzip'
  return magic === '28b52ffd' ? '.zstd' : ''
}

/** The bytes of a layer when it is unpacked: gzip keeps the number, modulo 4 GiB, at its end (RFC 1952). */
export function unpackedSize(file: string, layer: Member): number {
  const compression = compressionOf(file, layer)
  if (compression === '') return layer.size
  if (compression === '.zstd') return layer.size * 3 // it does not say
  const size = bytesAt(file, layer.offset + layer.size - 4, 4).readUInt32LE()
  // of several members the last one tells only its own; and 4 GiB are 0 again
  return size < layer.size * 0.99 ? layer.size * 3 : size
}

function bytesAt(file: string, offset: number, size: number): Buffer {
  const descriptor = openSync(file, 'r')
  try {
    return fromFile(descriptor)(offset, size)
  } finally {
    closeSync(descriptor)
  }
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
