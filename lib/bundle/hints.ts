import { gunzipSync } from 'node:zlib'
import { type BundleImage, full, isTexts } from './images.ts'
import { type Archive, archiveIn, unfit } from './tar.ts'

/** An item of hints.yaml: the values of the chart that make an image reference, and the image. */
export interface Hint {
  hint: string
  image: BundleImage
}

/**
 * The hints say from which values the chart's image references are made; charts-syncer pushes what they
 * name, and rewrites those values. So each must name an image of the archive, and each image be named.
 * @throws Failure 65
 */
export function hintsIn(bundle: Archive, images: BundleImage[]): Hint[] {
  const hints: unknown = bundle.parsed('hints.yaml', 'YAML')
  if (!isTexts(hints))
    throw bundle.unfit('hints.yaml is not a list of texts', 'hints.yaml 不是文本列表')
  const values = chartValues(bundle, 'original-chart/')
  const named = hints.map((hint) => {
    const reference = resolveHint(hint, values)
    const image = images.find(({ source }) => full(source) === full(reference))
    if (image) return { hint, image }
    throw bundle.unfit`
      the hint ${hint} gives ${reference}, which is not among the images
      hint ${hint} 解析为 ${reference}，镜像中没有它`
  })
  const unnamed = images.find((image) => !named.some((each) => each.image === image))
  if (!unnamed) return named
  throw bundle.unfit`
    no hint names the image ${unnamed.source}
    没有 hint 指向镜像 ${unnamed.source}`
}

/** The image reference that a hint gives with these values: `{{ .a.repository }}:{{ .a.tag }}`. */
export function resolveHint(hint: string, values: unknown): string {
  return hint.replace(/\{\{\s*((?:\.[\w-]+)+)\s*\}\}/g, (_, path: string) => {
    const keys = path.slice(1).split('.')
    const value = keys.reduce((inner: any, key) => inner?.[key], values)
    return ['string', 'number'].includes(typeof value) ? String(value) : '{{}}'
  })
}

/**
 * The default values of a chart, with those of its subcharts below their names, or their aliases;
 * subcharts are directories or packages.
 * @param chart the chart's directory in the archive: `original-chart/`
 * @throws Failure 65 where something in it can't be read
 */
export function chartValues(archive: Archive, chart: string): unknown {
  const { members, what, parsed } = archive
  const yamlAt = (name: string) =>
    members.some((each) => each.name === name) ? (parsed(name, 'YAML') ?? {}) : {}
  const { dependencies = [] } = yamlAt(`${chart}Chart.yaml`)
  const charts = `${chart}charts/`
  const below = members.flatMap(({ name }) =>
    name.startsWith(charts) ? [name.slice(charts.length)] : [],
  )
  const subcharts = new Map<string, unknown>()
  for (const directory of new Set(below.filter((name) => /\/./.test(name)).map(firstPart)))
    subcharts.set(directory, chartValues(archive, `${charts}${directory}/`))
  for (const file of below.filter((name) => /^[^/]+\.(tgz|tar\.gz)$/.test(name))) {
    const unpacked = packageIn(archive.content(`${charts}${file}`), `${what}: ${file}`)
    const name = firstPart(unpacked.members[0]?.name ?? '')
    subcharts.set(name, chartValues(unpacked, `${name}/`))
  }
  let values: unknown = yamlAt(`${chart}values.yaml`)
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

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/**
 * What a chart's package holds.
 * @param what how a failure calls it
 * @throws Failure 65
 */
export function packageIn(data: Buffer, what: string): Archive {
  let tar: Buffer
  try {
    tar = gunzipSync(data, { maxOutputLength: 1 << 28 })
  } catch (error) {
    const { message } = error as Error
    throw unfit(`${what} is not a chart package: ${message}`, `${what} 不是 chart 包：${message}`)
  }
  const read = (offset: number, size: number) => tar.subarray(offset, offset + size)
  return archiveIn(read, { offset: 0, size: tar.length }, what)
}
