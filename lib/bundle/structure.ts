import { createHash } from 'node:crypto'
import {
  closeSync,
  createReadStream,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { parse } from 'yaml'
import { EXIT, Failure, UNCHANGED } from '../base/failure.ts'
import { fromFile, membersOf, unfit, type Member, type Read, type Region } from './tar.ts'

/** An image of a bundle. */
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

/** A bundle that has passed the check of its structure. */
export interface Bundle {
  /** the file as it was given: the bundle itself, or the download around it */
  file: string
  /** the bundle's name inside the download; undefined where the file is the bundle itself */
  inDownload?: string
  /** where the bundle is in the file */
  region: Region
  chart: string
  version: string
  images: BundleImage[]
  /** hints.yaml: the values of the chart that make an image reference, and the image */
  hints: { hint: string; image: BundleImage }[]
  /** bytes of the layers, each counted once */
  bytes: number
  /** the sha512 that was delivered with it, and of what */
  checksum?: { of: string; region: Region; sha512: string; from: string }
}

/** A bundle of a chart that the module does not have: exit 65. */
export class OtherChart extends Failure {
  constructor(what: string, chart: string, charts: string[]) {
    super(
      EXIT.badBundle,
      `${what} is a bundle of the chart ${chart}, not of ${charts.join(', ')}`,
      `${what} 是 chart ${chart} 的离线包，而不是 ${charts.join('、')}`,
      {
        state: ['nothing was pushed or loaded', '未推送或加载任何内容'],
        next: ['name the module that it belongs to: --module', '请用 --module 指定其所属模块'],
      },
    )
  }
}

const DIGEST = /^[0-9a-f]{64}$/

/**
 * The bundle files of a chart: the file that is named, or those of a directory, by their names.
 * @param path a file, or a directory
 * @param charts the module's charts, and what else its bundles may be called
 * @throws Failure 66 where there is none
 */
export function bundleFiles(
  path: string,
  charts: string[],
  { mayBeMissing = false } = {},
): string[] {
  if (!existsSync(path)) {
    throw new Failure(EXIT.missingInput, `${path} does not exist`, `${path} 不存在`, {
      state: UNCHANGED,
      next: [
        '--bundle names a bundle, the download around it, or a directory of them',
        '--bundle 应指向离线包、其外层下载文件，或存放离线包的目录',
      ],
    })
  }
  if (!statSync(path).isDirectory()) return [path]
  const all = readdirSync(path).filter((name) => name.endsWith('.tar'))
  const ours = all.filter((name) => charts.some((chart) => new RegExp(`^${chart}[-_.]`).test(name)))
  if (ours.length === 0 && !mayBeMissing) {
    const what = all.length > 0 ? `it has ${all.join(', ')}` : 'it has no .tar'
    throw new Failure(
      EXIT.missingInput,
      `no bundle of ${charts.join(', ')} in ${path}: ${what}`,
      `${path} 中没有 ${charts.join('、')} 的离线包（现有：${all.join('、') || '无'}）`,
      { state: UNCHANGED },
    )
  }
  return ours.sort().map((name) => join(path, name))
}

/**
 * Reads what a bundle holds and checks all that can be told without reading its layers: the archives,
 * which files they have, the images' configurations against their hashes, tags, architecture, hints.
 * @param charts the charts that the module has
 * @param architecture of the site: amd64 or arm64
 * @throws Failure 65 with the entry and what is wrong with it
 */
export function readBundle(file: string, charts: string[], architecture: string): Bundle {
  const descriptor = openSync(file, 'r')
  try {
    const bytes = fromFile(descriptor)
    const { region, inDownload, checksum } = findBundle(bytes, file)
    const what = inDownload ? `${basename(file)}/${inDownload}` : basename(file)
    const members = membersOf(bytes, region, what)
    for (const { name } of members) {
      if (!/^(hints\.yaml|images\.tar|original-chart\/.+)$/.test(name))
        throw unfit(
          `${what}: ${JSON.stringify(name)} does not belong into a bundle`,
          `${what}：${JSON.stringify(name)} 不属于离线包`,
        )
    }
    const text = (name: string) => readMember(bytes, members, name, what).toString()
    const { name: chart, version } =
      yamlOf(text('original-chart/Chart.yaml'), what, 'Chart.yaml') ?? {}
    if (!charts.includes(chart)) throw new OtherChart(what, String(chart), charts)
    if (!/^v?\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?$/.test(String(version)))
      throw unfit(
        `${what}: Chart.yaml has no version like 1.2.3: ${JSON.stringify(version)}`,
        `${what}：Chart.yaml 中没有形如 1.2.3 的版本：${JSON.stringify(version)}`,
      )
    const images = imagesIn(bytes, memberOf(members, 'images.tar', what), what)
    checkArchitecture(images, architecture, what)
    checkTargets(images, what)
    const listed: unknown = yamlOf(text('hints.yaml'), what, 'hints.yaml')
    const hints = checkHints(
      listed,
      chartValues(bytes, members, 'original-chart/', what),
      images,
      what,
    )
    return {
      file,
      inDownload,
      region,
      chart,
      version: String(version),
      images,
      hints,
      bytes: bytesOf(images),
      checksum,
    }
  } finally {
    closeSync(descriptor)
  }
}

/** The bundle in the file: the file itself, or the one bundle in the download around it. */
function findBundle(bytes: Read, file: string): Pick<Bundle, 'region' | 'inDownload' | 'checksum'> {
  const whole = { offset: 0, size: statSync(file).size }
  const members = membersOf(bytes, whole, basename(file))
  const beside = checksumBeside(file, whole)
  if (members.some(({ name }) => name === 'images.tar' || name === 'hints.yaml'))
    return { region: whole, checksum: beside }
  const bundles = members.filter(({ name }) => name.endsWith('.bundle.tar'))
  const [bundle] = bundles
  if (!bundle || bundles.length > 1 || !/^[\w./+-]+$/.test(bundle.name))
    throw unfit(
      `${basename(file)} is neither a bundle (hints.yaml, images.tar, original-chart/) nor a download with one bundle in it; it has ${
        members
          .map(({ name }) => name)
          .slice(0, 10)
          .join(', ') || 'nothing'
      }`,
      `${basename(file)} 既不是离线包，也不是含有一个离线包的下载文件`,
    )
  const inside = members
    .filter(({ name, size }) => /sha512/i.test(name) && size < 65536)
    .flatMap((member) => {
      const listed = readMember(bytes, members, member.name, basename(file)).toString()
      const sha512 = sha512In(listed, basename(bundle.name))
      return sha512 ? [{ of: bundle.name, region: bundle, sha512, from: member.name }] : []
    })
  return { region: bundle, inDownload: bundle.name, checksum: beside ?? inside[0] }
}

/** The sha512 file that was downloaded with a file: beside it, with sha512 in its name. */
function checksumBeside(file: string, region: Region): Bundle['checksum'] {
  const directory = dirname(file)
  const name = basename(file)
  for (const from of readdirSync(directory).filter((each) => /sha512/i.test(each))) {
    const path = join(directory, from)
    const found = statSync(path, { throwIfNoEntry: false })
    if (!found?.isFile() || found.size > 65536) continue
    const isOfThis = from.startsWith(name) || from.startsWith(name.replace(/\.tar$/, ''))
    const sha512 = sha512In(readFileSync(path, 'utf8'), name, isOfThis)
    if (sha512) return { of: name, region, sha512, from }
    if (from.startsWith(name))
      throw unfit(
        `${from} is called after ${name}, but holds no sha512 of it`,
        `${from} 以 ${name} 命名，但其中没有它的 sha512`,
      )
  }
  return undefined
}

/** The sha512 of a file in `sha512sum`'s format; or the only one, in a file that is called after it. */
function sha512In(listed: string, name: string, isOfThis = false): string | undefined {
  const lines = listed
    .split('\n')
    .map((line) => /^([0-9a-fA-F]{128})(?:[ \t]+\*?(.+?))?\s*$/.exec(line))
  const found = lines.find((line) => line?.[2] !== undefined && basename(line[2]) === name)
  const only = lines.filter((line) => line !== null)
  if (found) return found[1]!.toLowerCase()
  return isOfThis && only.length === 1 ? only[0]![1]!.toLowerCase() : undefined
}

/** The images of images.tar, a docker-archive. */
function imagesIn(bytes: Read, archive: Member, what: string): BundleImage[] {
  const where = `${what}: images.tar`
  const members = membersOf(bytes, archive, where)
  const manifest = jsonOf(
    readMember(bytes, members, 'manifest.json', where).toString(),
    where,
    'manifest.json',
  )
  const isManifest =
    Array.isArray(manifest) &&
    manifest.length > 0 &&
    manifest.every(isObject) &&
    manifest.every(
      ({ Config, RepoTags, Layers }) =>
        typeof Config === 'string' &&
        Array.isArray(RepoTags) &&
        RepoTags.length > 0 &&
        RepoTags.every((tag) => typeof tag === 'string') &&
        Array.isArray(Layers) &&
        Layers.every((layer) => typeof layer === 'string'),
    )
  if (!isManifest)
    throw unfit(
      `${where}: manifest.json does not list images with Config, RepoTags and Layers`,
      `${where}：manifest.json 未列出带有 Config、RepoTags、Layers 的镜像`,
    )
  const used = new Set(['manifest.json'])
  const images = (manifest as any[]).flatMap(({ Config, RepoTags, Layers }): BundleImage[] => {
    const id = digestInName(Config, where)
    const data = readMember(bytes, members, Config, where)
    if (createHash('sha256').update(data).digest('hex') !== id)
      throw unfit(
        `${where}: the image configuration ${Config} does not have the hash in its name`,
        `${where}：镜像配置 ${Config} 与其名称中的哈希不符`,
      )
    const { architecture, rootfs } = (jsonOf(data.toString(), where, Config) ?? {}) as any
    const layers = Layers.map((name: string) => memberOf(members, name, where))
    layers.forEach(({ name }: Member) => digestInName(name, where))
    if (rootfs?.diff_ids?.length !== layers.length)
      throw unfit(
        `${where}: ${RepoTags[0]} has ${layers.length} layers, its configuration ${rootfs?.diff_ids?.length}`,
        `${where}：${RepoTags[0]} 有 ${layers.length} 层，而其配置为 ${rootfs?.diff_ids?.length} 层`,
      )
    ;[Config, ...Layers].forEach((name) => used.add(name))
    return RepoTags.map((source: string) => ({
      source,
      target: targetOf(source, where),
      id: `sha256:${id}`,
      architecture,
      config: memberOf(members, Config, where),
      layers,
      diffIds: rootfs.diff_ids,
    }))
  })
  const stray = members.find(({ name }) => !used.has(name) && name !== 'repositories')
  if (stray)
    throw unfit(
      `${where}: ${JSON.stringify(stray.name)} belongs to no image`,
      `${where}：${JSON.stringify(stray.name)} 不属于任何镜像`,
    )
  return images
}

/** The hash in a name: `sha256:HEX`, `HEX.json`, `HEX.tar`, `HEX.tar.gz`. */
export function digestInName(name: string, where: string): string {
  const digest = name.replace(/^sha256:/, '').replace(/\.(json|tar|tar\.gz)$/, '')
  if (DIGEST.test(digest)) return digest
  throw unfit(
    `${where}: ${JSON.stringify(name)} is not called after its sha256`,
    `${where}：${JSON.stringify(name)} 未以其 sha256 命名`,
  )
}

/** The last path component and the tag: what charts-syncer keeps of an image's name. */
function targetOf(source: string, where: string): string {
  const [, name, tag] =
    /^(?:[A-Za-z0-9.-]+(?::\d+)?\/)?(?:[a-z0-9][a-z0-9._-]*\/)*([a-z0-9][a-z0-9._-]*):(\w[\w.-]{0,127})$/.exec(
      source,
    ) ?? []
  if (name && tag) return `${name}:${tag}`
  throw unfit(
    `${where}: ${JSON.stringify(source)} is no image reference with a tag`,
    `${where}：${JSON.stringify(source)} 不是带 tag 的镜像引用`,
  )
}

function checkArchitecture(images: BundleImage[], wanted: string, what: string) {
  const other = images.find(({ architecture }) => architecture !== wanted)
  if (!other) return
  throw new Failure(
    EXIT.badBundle,
    `${what}: ${other.source} is for ${other.architecture}; the site file says ${wanted}`,
    `${what}：${other.source} 的架构为 ${other.architecture}，而站点配置为 ${wanted}`,
    {
      state: ['nothing was pushed or loaded', '未推送或加载任何内容'],
      next: [
        `fetch the bundle for ${wanted}, or correct architecture in the site file`,
        `请下载 ${wanted} 架构的离线包，或修正站点配置中的 architecture`,
      ],
    },
  )
}

function checkTargets(images: BundleImage[], what: string) {
  const seen = new Map<string, BundleImage>()
  for (const image of images) {
    const other = seen.get(image.target)
    if (other && other.id !== image.id)
      throw unfit(
        `${what}: ${other.source} and ${image.source} would both be called ${image.target}`,
        `${what}：${other.source} 与 ${image.source} 在目标仓库中将重名为 ${image.target}`,
      )
    seen.set(image.target, image)
  }
}

/**
 * The hints say from which values the chart's image references are made; charts-syncer pushes what they
 * name, and rewrites those values. So each must name an image of the archive, and each image be named.
 */
function checkHints(
  hints: unknown,
  values: unknown,
  images: BundleImage[],
  what: string,
): Bundle['hints'] {
  if (!Array.isArray(hints) || !hints.every((hint) => typeof hint === 'string'))
    throw unfit(`${what}: hints.yaml is no list of texts`, `${what}：hints.yaml 不是文本列表`)
  const named = hints.map((hint: string) => {
    const reference = resolveHint(hint, values)
    const image = images.find(({ source }) => full(source) === full(reference))
    if (!image)
      throw unfit(
        `${what}: the hint ${hint} gives ${reference}, which is not among the images`,
        `${what}：hint ${hint} 解析为 ${reference}，镜像中没有它`,
      )
    return { hint, image }
  })
  const unnamed = images.find((image) => !named.some((each) => each.image === image))
  if (unnamed)
    throw unfit(
      `${what}: no hint names the image ${unnamed.source}`,
      `${what}：没有 hint 指向镜像 ${unnamed.source}`,
    )
  return named
}

/** The image reference that a hint gives with these values: `{{ .a.repository }}:{{ .a.tag }}`. */
export function resolveHint(hint: string, values: unknown): string {
  return hint.replace(/\{\{\s*((?:\.[\w-]+)+)\s*\}\}/g, (_, path: string) => {
    const value = path
      .slice(1)
      .split('.')
      .reduce((inner: any, key) => inner?.[key], values)
    return ['string', 'number'].includes(typeof value) ? String(value) : '{{}}'
  })
}

/** An image reference with what Docker leaves out: docker.io, library, :latest. */
export function full(reference: string): string {
  const tagged = /[:@][^/]*$/.test(reference) ? reference : `${reference}:latest`
  const first = tagged.split('/')[0]!
  if (!tagged.includes('/')) return `docker.io/library/${tagged}`
  return /[.:]|^localhost$/.test(first) ? tagged : `docker.io/${tagged}`
}

/**
 * The default values of a chart, with those of its subcharts below their names, or their aliases;
 * subcharts are directories or packages.
 * @param chart the chart's directory in the archive: `original-chart/`
 * @throws Failure 65 where something in it can't be read
 */
export function chartValues(bytes: Read, members: Member[], chart: string, what: string): unknown {
  const yamlAt = (name: string) =>
    members.some((each) => each.name === name)
      ? yamlOf(readMember(bytes, members, name, what).toString(), what, name)
      : undefined
  const { dependencies = [] } = yamlAt(`${chart}Chart.yaml`) ?? {}
  const below = members
    .filter(({ name }) => name.startsWith(`${chart}charts/`))
    .map(({ name }) => name.slice(`${chart}charts/`.length))
  const subcharts = new Map<string, unknown>()
  for (const directory of new Set(below.filter((name) => /\/./.test(name)).map(firstPart))) {
    subcharts.set(directory, chartValues(bytes, members, `${chart}charts/${directory}/`, what))
  }
  for (const file of below.filter((name) => /^[^/]+\.(tgz|tar\.gz)$/.test(name))) {
    const unpacked = membersOfPackage(
      readMember(bytes, members, `${chart}charts/${file}`, what),
      file,
    )
    const name = firstPart(unpacked.members[0]?.name ?? '')
    subcharts.set(
      name,
      chartValues(unpacked.read, unpacked.members, `${name}/`, `${what}: ${file}`),
    )
  }
  let values: unknown = yamlAt(`${chart}values.yaml`) ?? {}
  for (const [name, defaults] of subcharts) {
    const dependency = dependencies.find((each: any) => each?.name === name)
    values = merged({ [dependency?.alias ?? name]: defaults }, values)
  }
  return values
}

const firstPart = (path: string) => path.split('/')[0]!

/** What is over the defaults, key by key. */
function merged(under: any, over: any): any {
  if (over === undefined) return under
  if (!isObject(under) || !isObject(over)) return over
  const keys = [...new Set([...Object.keys(under), ...Object.keys(over)])]
  return Object.fromEntries(keys.map((key) => [key, merged(under[key], over[key])]))
}

/**
 * The members of a chart's package.
 * @param what how a failure calls it
 * @throws Failure 65
 */
export function membersOfPackage(data: Buffer, what: string): { read: Read; members: Member[] } {
  let tar: Buffer
  try {
    tar = gunzipSync(data, { maxOutputLength: 1 << 28 })
  } catch (error) {
    throw unfit(
      `${what} is no chart package: ${(error as Error).message}`,
      `${what} 不是 chart 包：${(error as Error).message}`,
    )
  }
  const read: Read = (offset, size) => tar.subarray(offset, offset + size)
  return { read, members: membersOf(read, { offset: 0, size: tar.length }, what) }
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

function memberOf(members: Member[], name: string, where: string): Member {
  const member = members.find((each) => each.name === name)
  if (member) return member
  throw unfit(
    `${where}: ${JSON.stringify(name)} is missing`,
    `${where}：缺少 ${JSON.stringify(name)}`,
  )
}

/** The content of a small member. */
function readMember(bytes: Read, members: Member[], name: string, where: string): Buffer {
  const { offset, size } = memberOf(members, name, where)
  if (size > 16 * 1024 * 1024)
    throw unfit(
      `${where}: ${JSON.stringify(name)} is too large: ${size} bytes`,
      `${where}：${JSON.stringify(name)} 过大：${size} 字节`,
    )
  return bytes(offset, size)
}

function jsonOf(text: string, where: string, name: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw unfit(
      `${where}: ${name} is not JSON: ${(error as Error).message}`,
      `${where}：${name} 不是有效的 JSON`,
    )
  }
}

function yamlOf(text: string, where: string, name: string): any {
  try {
    return parse(text, { uniqueKeys: false, merge: true })
  } catch (error) {
    throw unfit(
      `${where}: ${name} is not YAML: ${(error as Error).message}`,
      `${where}：${name} 不是有效的 YAML`,
    )
  }
}

/**
 * Reads all of a bundle once more, and checks each layer against the hash in its name, and the whole
 * against the checksum that was delivered with it.
 * @param progress gets the bytes that were read
 * @param signal ends it early, with its reason
 * @throws Failure 65 naming what is damaged
 */
export async function checkContent(
  bundle: Bundle,
  progress: (bytes: number) => void,
  signal?: AbortSignal,
) {
  const { file, images, checksum } = bundle
  const hashOf = (region: Region, algorithm: 'sha256' | 'sha512') =>
    hashOfRegion(file, region, algorithm, (bytes) => {
      signal?.throwIfAborted()
      progress(bytes)
    })
  for (const layer of layersOf(images)) {
    const digest = await hashOf(layer, 'sha256')
    if (digest === digestInName(layer.name, file)) continue
    const of = images.filter((image) => image.layers.includes(layer)).map(({ source }) => source)
    throw unfit(
      `${basename(file)}: the layer ${layer.name} (of ${of.join(', ')}) does not have the hash in its name`,
      `${basename(file)}：层 ${layer.name}（属于 ${of.join('、')}）与其名称中的哈希不符`,
    )
  }
  if (checksum && (await hashOf(checksum.region, 'sha512')) !== checksum.sha512)
    throw unfit(
      `${checksum.of} does not have the sha512 that ${checksum.from} says`,
      `${checksum.of} 与 ${checksum.from} 中的 sha512 不符`,
    )
}

async function hashOfRegion(
  file: string,
  { offset, size }: Region,
  algorithm: 'sha256' | 'sha512',
  progress: (bytes: number) => void,
): Promise<string> {
  const hash = createHash(algorithm)
  if (size === 0) return hash.digest('hex')
  const end = offset + size - 1
  for await (const piece of createReadStream(file, {
    start: offset,
    end,
    highWaterMark: 1 << 20,
  })) {
    hash.update(piece)
    progress(piece.length)
  }
  return hash.digest('hex')
}
