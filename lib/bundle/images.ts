import { sha256 } from '../base/hash.ts'
import { type Archive, type Member, unfit } from './tar.ts'

export interface BundleImage {
  /** as the vendor called it: registry/path/name:tag */
  source: string
  /** as it is called at the site, behind registry and repository: name:tag */
  target: string
  /** the config digest, `sha256:…`: the same wherever the image is */
  id: string
  architecture: string
  config: Member
  layers: Member[]
  /** sha256:… of each layer when it is unpacked, from the configuration */
  diffIds: string[]
}

/** The layers of these images, each once. */
export const layersOf = (images: BundleImage[]): Member[] => [
  ...new Set(images.flatMap(({ layers }) => layers)),
]

/** The bytes of their layers. */
export const bytesOf = (images: BundleImage[]): number =>
  layersOf(images).reduce((sum, { size }) => sum + size, 0)

/**
 * The images of images.tar, a docker-archive: their configurations have the hashes in their names, all
 * is there that they need, and nothing else.
 * @param wanted the site's architecture: amd64 or arm64
 * @throws Failure 65 with the entry and what is wrong with it
 */
export function imagesIn(archive: Archive, wanted: string): BundleImage[] {
  const manifest: unknown = archive.parsed('manifest.json', 'JSON')
  if (!Array.isArray(manifest) || manifest.length === 0 || !manifest.every(isEntry))
    throw archive.unfit`
      manifest.json does not list images with Config, RepoTags and Layers
      manifest.json 未列出带有 Config、RepoTags、Layers 的镜像`
  const images = manifest.flatMap((entry) => imagesOf(archive, entry))
  const used = ['manifest.json', ...manifest.flatMap(({ Config, Layers }) => [Config, ...Layers])]
  const stray = archive.members.find(({ name }) => !used.includes(name) && name !== 'repositories')
  if (stray) {
    const name = JSON.stringify(stray.name)
    throw archive.unfit(`${name} belongs to no image`, `${name} 不属于任何镜像`)
  }
  const other = images.find(({ architecture }) => architecture !== wanted)
  if (other)
    throw archive.unfit`
      ${other.source} is for ${other.architecture}; the site file says ${wanted}
      ${other.source} 的架构为 ${other.architecture}，而站点配置为 ${wanted}`.next`
      download the bundle for ${wanted}, or correct architecture in the site file
      请下载 ${wanted} 架构的离线包，或修正站点配置中的 architecture`
  for (const image of images) {
    const first = images.find(({ target }) => target === image.target)!
    if (first.id !== image.id)
      throw archive.unfit`
        ${first.source} and ${image.source} would both be called ${image.target}
        ${first.source} 与 ${image.source} 在目标仓库中将重名为 ${image.target}`
  }
  return images
}

interface ManifestEntry {
  Config: string
  RepoTags: string[]
  Layers: string[]
}

/** A list of texts? */
export const isTexts = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((each) => typeof each === 'string')

const isEntry = (entry: any): entry is ManifestEntry =>
  isTexts([entry?.Config]) &&
  isTexts(entry.Layers) &&
  isTexts(entry.RepoTags) &&
  entry.RepoTags.length > 0

/** An entry of the manifest, as an image for each of its tags. */
function imagesOf(archive: Archive, { Config, RepoTags, Layers }: ManifestEntry): BundleImage[] {
  const { what } = archive
  const id = digestInName(Config, what)
  if (sha256(archive.content(Config)) !== id)
    throw archive.unfit`
      the image configuration ${Config} does not have the hash in its name
      镜像配置 ${Config} 与其名称中的哈希不符`
  const { architecture, rootfs } = archive.parsed(Config, 'JSON') ?? {}
  const layers = Layers.map((name) => archive.member(name))
  layers.forEach(({ name }) => digestInName(name, what))
  if (rootfs?.diff_ids?.length !== layers.length)
    throw archive.unfit`
      ${RepoTags[0]} has ${layers.length} layers, its configuration ${rootfs?.diff_ids?.length}
      ${RepoTags[0]} 有 ${layers.length} 层，而其配置为 ${rootfs?.diff_ids?.length} 层`
  return RepoTags.map((source) => ({
    source,
    target: targetOf(archive, source),
    id: `sha256:${id}`,
    architecture,
    config: archive.member(Config),
    layers,
    diffIds: rootfs.diff_ids,
  }))
}

/**
 * The hash in a name: `sha256:HEX`, `HEX.json`, `HEX.tar`, `HEX.tar.gz`.
 * @param what the archive, for a failure
 * @throws Failure 65
 */
export function digestInName(name: string, what: string): string {
  const digest = name.replace(/^sha256:/, '').replace(/\.(json|tar|tar\.gz)$/, '')
  if (/^[0-9a-f]{64}$/.test(digest)) return digest
  throw unfit`
    ${what}: ${JSON.stringify(name)} is not named after its sha256
    ${what}：${JSON.stringify(name)} 未以其 sha256 命名`
}

const REFERENCE =
  /^(?:[A-Za-z0-9.-]+(?::\d+)?\/)?(?:[a-z0-9][a-z0-9._-]*\/)*([a-z0-9][a-z0-9._-]*:\w[\w.-]{0,127})$/

/** The last path component and the tag: what charts-syncer keeps of an image's name. */
function targetOf(archive: Archive, source: string): string {
  const [, target] = REFERENCE.exec(source) ?? []
  if (target) return target
  throw archive.unfit`
    ${JSON.stringify(source)} is not an image reference with a tag
    ${JSON.stringify(source)} 不是带 tag 的镜像引用`
}

/** An image reference with what Docker leaves out: docker.io, library, :latest. */
export function full(reference: string): string {
  const tagged = /[:@][^/]*$/.test(reference) ? reference : `${reference}:latest`
  const first = tagged.split('/')[0]!
  if (!tagged.includes('/')) return `docker.io/library/${tagged}`
  return /[.:]|^localhost$/.test(first) ? tagged : `docker.io/${tagged}`
}
