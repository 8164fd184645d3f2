import { basename, resolve } from 'node:path'
import { note } from '../audit/write.ts'
import { bundleFiles, checkContent, OtherChart, readBundle, type Bundle } from './structure.ts'
import { EXIT, Failure } from '../base/failure.ts'
import { bundleNames, bundlePath } from '../inputs/inputs.ts'
import { check, report, setVariable } from '../run/words.ts'
import { thisRun } from '../run/session.ts'

/**
 * The module's bundles, each checked as far as that is possible without reading the layers. A dry run
 * goes on as with one.
 * @throws Failure 66 there is none · 65 one is damaged or unfit
 */
export async function findBundles(): Promise<(Bundle | undefined)[]> {
  const { inputs } = thisRun()
  const { module, releases, site, stateDirectory } = inputs
  const charts = releases.map(({ chart }) => chart)
  const path = bundlePath(inputs)
  const found = await check(
    `check: each bundle of ${module.name} in ${path} has nothing in it but what belongs there, its images are ${site.architecture}, have the hash that they are called by, and are those of the hints`,
    `检查：${path} 中 ${module.name} 的每个离线包只含应有的文件，镜像架构为 ${site.architecture}，与其名称中的哈希一致，且与 hints 对应`,
    async () => {
      const files = bundleFiles(resolve(stateDirectory, path), bundleNames(module))
      const bundles = files.flatMap((file) => bundleIn(file, charts, files.length === 1))
      for (const bundle of bundles) {
        const { file, inDownload, chart, version, images, bytes, checksum } = bundle
        report(
          `  ${inDownload ?? basename(file)}: ${chart} ${version}, ${images.length} images, ${megabytes(bytes)}` +
            (checksum
              ? `, sha512 in ${checksum.from}`
              : ", no sha512 file: its chart can't be checked · 没有 sha512 文件，无法校验其 chart"),
        )
        note({
          event: 'bundle',
          file,
          inDownload,
          chart,
          version,
          checksum: checksum?.sha512,
          images: Object.fromEntries(images.map(({ target, id }) => [target, id])),
        })
      }
      if (bundles.length === 0 && badBundles.length === 0) {
        throw new Failure(
          EXIT.missingInput,
          `no bundle of ${charts.join(', ')} in ${path}`,
          `${path} 中没有 ${charts.join('、')} 的离线包`,
        )
      }
      fileCount = files.length
      // the download and the bundle that was unpacked beside it
      return bundles.filter(
        (bundle, index) => !bundles.slice(0, index).some((other) => isSameBundle(other, bundle)),
      )
    },
  )
  return found ?? [undefined]
}

/** Bundles of a directory that are damaged or unfit: told at the end, so that the others come in. */
export const badBundles: Failure[] = []

/** the files that the directory has of the module */
let fileCount = 0

/** The bundle in a file; none where it is of another chart, or bad, and others stand beside it. */
function bundleIn(file: string, charts: string[], isAlone: boolean): Bundle[] {
  try {
    return [readBundle(file, charts, thisRun().inputs.site.architecture)]
  } catch (error) {
    if (!(error instanceof Failure) || isAlone) throw error
    if (error instanceof OtherChart) report(`  ${basename(file)}: not taken: ${error.en}`)
    else addBadBundle(error)
    return []
  }
}

function addBadBundle(failure: Failure) {
  badBundles.push(failure)
  report(`  NOT TAKEN · 未处理: ${failure.en}`)
}

function isSameBundle(one: Bundle, other: Bundle): boolean {
  if (one.chart !== other.chart || one.version !== other.version) return false
  const images = ({ images }: Bundle) =>
    JSON.stringify(images.map(({ source, id }) => [source, id]))
  if (images(one) === images(other)) return true
  throw new Failure(
    EXIT.badBundle,
    `${one.file} and ${other.file} are both ${one.chart} ${one.version}, with other images: name one with --bundle FILE`,
    `${one.file} 与 ${other.file} 都是 ${one.chart} ${one.version}，但镜像不同：请用 --bundle FILE 指定其一`,
  )
}

/**
 * Ends a run in which a bundle of the directory was bad; the others are in.
 * @throws Failure 65
 */
export async function tellBadBundles() {
  const [first, ...more] = badBundles
  if (!first) return
  const problems = [first, ...more].map(({ en }) => en)
  throw new Failure(
    EXIT.badBundle,
    problems.join('\n'),
    [first, ...more].map(({ zh }) => zh).join('\n'),
    {
      ...first.details,
      state: ['the other bundles are in', '其他离线包均已处理'],
    },
  )
}

/** Sets `$source`: the bundle's file. */
export async function setSource(bundle: Bundle | undefined) {
  const path = bundlePath(thisRun().inputs)
  const isFile = path.endsWith('.tar')
  await setVariable('source', isFile ? path : `${path}/{bundle_file}`, async () => bundle!.file)
}

/**
 * Reads the whole bundle, each layer against its hash, before anything leaves this machine.
 * @returns whether it is right; a bad one of several is told at the end
 * @throws Failure 65
 */
export async function checkBundleContent(bundle: Bundle | undefined): Promise<boolean> {
  const isRight = await check(
    'check: each layer has the hash that it is called by, and the whole the sha512 that was delivered with it, if one was',
    '检查：每一层都与其名称中的哈希一致；若随附 sha512，则整个文件也与其一致',
    async () => {
      try {
        await (begun.get(bundle!) ?? readContent(bundle!)).then(tellRead)
        return true
      } catch (error) {
        if (!(error instanceof Failure) || fileCount < 2) throw error
        addBadBundle(error)
        return false
      }
    },
  )
  return isRight ?? true
}

/** Tells that the bytes of a bundle are right. */
export function tellRead(bytes: number) {
  report(`  ${megabytes(bytes)} are read and right · 已读取并校验`)
}

/** Bundles that are being read already. */
const begun = new Map<Bundle, Promise<number>>()

/**
 * Begins to read a bundle for `checkBundleContent`, while something else is waited for.
 * @returns ends it, where it turns out that nobody needs the bundle
 */
export function readAhead(bundle: Bundle): () => void {
  const end = new AbortController()
  const read = readContent(bundle, end.signal)
  read.catch(() => {}) // told where it is awaited
  begun.set(bundle, read)
  return () => end.abort()
}

/**
 * The same, where it is no step of its own.
 * @returns the bytes that were read
 * @throws Failure 65
 */
export async function readContent(bundle: Bundle, signal?: AbortSignal): Promise<number> {
  let read = 0
  let told = 0
  const progress = (bytes: number) => {
    read += bytes
    if (read - told < 1 << 30) return
    told = read
    report(`  ${megabytes(read)} are read`)
  }
  await checkContent(bundle, progress, signal)
  return read
}

/** For people: 412 MB. */
export const megabytes = (bytes: number) =>
  bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${Math.round(bytes / 1e6)} MB`
