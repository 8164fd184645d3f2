import { existsSync, readFileSync, rmSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { note } from './audit.ts'
import {
  bundleFiles,
  chartValues,
  checkContent,
  OtherChart,
  readBundle,
  resolveHint,
  type Bundle,
  type BundleImage,
} from './bundle.ts'
import { EXIT, Failure } from './failure.ts'
import { bundleNames, bundlePath, containerRepository } from './inputs.ts'
import { lock } from './locks.ts'
import { endingFailure } from './processes.ts'
import {
  chartAt,
  imageIdAt,
  ociChartAt,
  siteRegistry,
  usePlainHttp,
  type Server,
} from './registry.ts'
import { answer, check, onFailureDescribe, report, setVariable } from './run.ts'
import { result, thisRun } from './session.ts'
import { quote } from './shell.ts'
import { membersOf, type Read } from './tar.ts'

/** How a bundle stands at the site's registry and chart repository. */
interface Standing {
  missing: BundleImage[]
  /** names that exist and hold another image */
  different: { image: BundleImage; found: string }[]
  /** is the chart there, made for this registry? `other`: its images are elsewhere, or it can't be read */
  chart: 'there' | 'missing' | 'other'
  /** an image reference of another chart, for a failure */
  otherReference?: string
}

const registry = () => siteRegistry(thisRun().inputs.site)

/** The path in the registry that the module's images are pushed to: release.daocloud.io/skoala. */
const repositoryPath = () => containerRepository(thisRun().inputs)

/**
 * One script at a time pushes to a path of a registry.
 * @throws Failure 75 when another script holds it; it names the holder
 */
export async function lockRepository() {
  const { inputs, locks } = thisRun()
  const place = `${inputs.site.containerRegistry}/${repositoryPath()}`
  await check(
    `lock: nobody else pushes to ${place}`,
    `加锁：没有其他人在向 ${place} 推送`,
    async () => {
      locks.push(lock(`registry path ${place}`, { script: inputs.script }))
      locks.push(lock(`working files in ${inputs.stateDirectory}`, { script: inputs.script }))
      removeWorkingFiles() // of a run that was killed
    },
  )
}

/** What charts-syncer unpacks, some gigabytes. */
const removeWorkingFiles = () =>
  rmSync(join(thisRun().inputs.stateDirectory, 'charts-syncer'), { recursive: true, force: true })

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
              : ', no sha512 file: its chart can’t be checked'),
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
      // the download and the bundle that was unpacked beside it
      return bundles.filter(
        (bundle, index) => !bundles.slice(0, index).some((other) => isSameBundle(other, bundle)),
      )
    },
  )
  return found ?? [undefined]
}

/** Bundles of a directory that are damaged or unfit: told at the end, so that the others come in. */
const badBundles: Failure[] = []

/** The bundle in a file; none where it is of another chart, or bad, and others stand beside it. */
function bundleIn(file: string, charts: string[], isAlone: boolean): Bundle[] {
  try {
    return [readBundle(file, charts, thisRun().inputs.site.architecture)]
  } catch (error) {
    if (!(error instanceof Failure) || isAlone) throw error
    if (error instanceof OtherChart) report(`  ${basename(file)}: not taken: ${error.en}`)
    else badBundles.push(error)
    return []
  }
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
      state: ['the other bundles are in', '其他离线包均已同步'],
    },
  )
}

/** Is everything of the bundle in place, and right? */
const isComplete = ({ missing, different, chart }: Standing) =>
  missing.length + different.length === 0 && chart === 'there'

/**
 * Are all images of the bundle in the registry, with the same image ID, and is the chart in the chart
 * repository? A registry that can't be asked is told after a bundle that is damaged.
 * @throws Failure 78 where a name holds another image, unless --replace-tags is given · 65 · 69 · 77
 */
export async function isInPlace(bundle: Bundle | undefined): Promise<boolean> {
  const { inputs } = thisRun()
  const place = `${inputs.site.containerRegistry}/${repositoryPath()}`
  const inPlace = await check(
    `only if an image of the bundle is not in ${place} with the same image ID, or the chart is not in the chart repository`,
    `仅当 ${place} 中缺少离线包中的镜像（按镜像 ID 比较），或 chart 仓库中缺少该 chart 时执行`,
    async () => {
      const standing = await standingOf(bundle!, 'before').catch(async (failure: unknown) => {
        if (failure instanceof Failure && failure.exitCode === EXIT.unreachable)
          await readContent(bundle!)
        throw failure
      })
      setResult(bundle!, standing, 0)
      last = { bundle: bundle!, standing }
      onFailureDescribe(describe)
      if (standing.different.length > 0 && !inputs.flags['replace-tags'])
        throw otherImages(standing)
      if (standing.chart === 'other' && inputs.site.chartRepository.kind !== 'LOCAL')
        throw otherChart(bundle!, standing)
      const { images, chart, version } = bundle!
      const there = images.length - standing.missing.length - standing.different.length
      const done = isComplete(standing)
      const theChart = `the chart ${chart} ${version} ${standing.chart === 'there' ? 'is' : 'is not'}`
      report(
        `  ${there} of ${images.length} images are there, ${theChart}` +
          (done ? ': nothing to do · 均已就绪，无需同步' : ''),
      )
      return done
    },
  )
  return inPlace ?? false
}

/** The bundle and standing that a failure describes. */
let last: { bundle: Bundle; standing: Standing } | undefined
const outcomes = new Map<Bundle, object>()

function setResult(bundle: Bundle, { missing, different, chart }: Standing, pushed: number) {
  const { file, chart: name, version, images, bytes } = bundle
  outcomes.set(bundle, {
    file,
    chart: name,
    version,
    images: images.length,
    bytes,
    pushed,
    missing: missing.map(({ target }) => target),
    different: different.map(({ image }) => image.target),
    chartInPlace: chart === 'there',
    checksum: bundle.checksum?.from ?? null,
  })
  result({ bundles: [...outcomes.values()] })
}

function otherImages({ different }: Standing): Failure {
  const { inputs } = thisRun()
  const place = `${inputs.site.containerRegistry}/${repositoryPath()}`
  const list = different.map(
    ({ image, found }) => `${place}/${image.target}  is ${found}, in the bundle ${image.id}`,
  )
  return new Failure(
    EXIT.configuration,
    `another image stands under a name that the bundle has:\n${list.join('\n')}`,
    '以上名称在镜像仓库中已存在，但内容与离线包不同',
    {
      state: ['nothing was pushed', '未推送任何内容'],
      next: [
        'find out who pushed it: a running workload may use it. To put the image of the bundle in its place: --replace-tags',
        '请先确认是谁推送的，正在运行的工作负载可能在使用它。如需替换为离线包中的镜像：--replace-tags',
      ],
    },
  )
}

function otherChart({ chart, version }: Bundle, { otherReference }: Standing): Failure {
  return new Failure(
    EXIT.configuration,
    `the chart ${chart} ${version} in the chart repository is made for other places: it has ${otherReference}`,
    `chart 仓库中的 ${chart} ${version} 指向其他位置：${otherReference}`,
    {
      state: ['nothing was pushed', '未推送任何内容'],
      next: [
        'is project right in the site file? If so, delete this version from the chart repository, and run the same command again',
        '请确认站点配置中的 project；若无误，请从 chart 仓库删除该版本后重新执行同一命令',
      ],
    },
  )
}

async function standingOf(bundle: Bundle, when: 'before' | 'after'): Promise<Standing> {
  const server = registry()
  const path = repositoryPath()
  const ids = await Promise.all(
    bundle.images.map(({ target }) => {
      const [name, tag] = target.split(':') as [string, string]
      return imageIdAt(server, `${path}/${name}`, tag)
    }),
  )
  const { chart, otherReference } = await chartStanding(bundle)
  const images = Object.fromEntries(bundle.images.map(({ target }, at) => [target, ids[at]]))
  note({ event: 'registry', when, path: `${server.address}/${path}`, images, chart })
  return {
    missing: bundle.images.filter((_, at) => ids[at] === undefined),
    different: bundle.images.flatMap((image, at) => {
      const found = ids[at]
      return found !== undefined && found !== image.id ? [{ image, found }] : []
    }),
    chart,
    otherReference,
  }
}

/** The chart that is in the chart repository, and whether its values name the bundle's images at this site. */
async function chartStanding(bundle: Bundle): Promise<Pick<Standing, 'chart' | 'otherReference'>> {
  const { chart, hints } = bundle
  const package_ = await storedChart(bundle)
  if (!package_) return { chart: 'missing' }
  try {
    const data = gunzipSync(package_)
    const read: Read = (offset, size) => data.subarray(offset, offset + size)
    const what = `${chart}-${bundle.version}.tgz`
    const members = membersOf(read, { offset: 0, size: data.length }, what)
    const values = chartValues(read, members, `${chart}/`, what)
    const place = `${registry().address}/${repositoryPath()}`
    for (const { hint, image } of hints) {
      const reference = resolveHint(hint, values)
      if (reference.replace(/:latest$/, '') !== `${place}/${image.target}`.replace(/:latest$/, ''))
        return { chart: 'other', otherReference: reference }
    }
    return { chart: 'there' }
  } catch (error) {
    const words = error instanceof Failure ? error.en : (error as Error).message
    return { chart: 'other', otherReference: `no readable package: ${words}` }
  }
}

async function storedChart({ chart, version }: Bundle): Promise<Buffer | undefined> {
  const { site } = thisRun().inputs
  const { kind, url, login, caFile, plainHttp } = site.chartRepository
  if (kind === 'LOCAL') {
    const path = localPackage(chart, version)
    return existsSync(path) ? readFileSync(path) : undefined
  }
  const server: Server = { address: url!, caFile, login: login ? 'CHART_REPO' : undefined }
  if (kind !== 'OCI') return chartAt(server, chart, version)
  const [host, ...path] = url!.replace(/^oci:\/\//, '').split('/')
  if (plainHttp) usePlainHttp(host!)
  return ociChartAt({ ...server, address: host! }, [...path, chart].join('/'), version)
}

const localPackage = (chart: string, version: string) =>
  join(thisRun().inputs.stateDirectory, `local-repo/${chart}-${version}.tgz`)

/**
 * Reads the whole bundle, each layer against its hash, before anything leaves this machine.
 * @throws Failure 65
 */
export async function checkBundleContent(bundle: Bundle | undefined) {
  await check(
    'check: each layer has the hash that it is called by, and the whole the sha512 that was delivered with it',
    '检查：每一层都与其名称中的哈希一致，整个文件与随附的 sha512 一致',
    () => readContent(bundle!),
  )
}

async function readContent(bundle: Bundle) {
  let read = 0
  let told = 0
  await checkContent(bundle, (bytes) => {
    read += bytes
    if (read - told < 1 << 30) return
    told = read
    report(`  ${megabytes(read)} are read`)
  })
  report(`  ${megabytes(read)} are read and right`)
}

/**
 * Sets `$source`, the bundle's file, for a download `$offset` and `$size` of the bundle in it, and `$bundle`, the name under which the charts-syncer that is
 * installed reads it: `<chart>-<version>.bundle.tar`, or, DaoCloud's, `<chart>_<version>.bundle.tar`
 * (upstream 0.20 pkg/client/intermediate/intermediate.go).
 * @throws Failure 78 where charts-syncer can't read bundles, or not one of this version
 */
export async function setBundle(bundle: Bundle | undefined) {
  const path = bundlePath(thisRun().inputs)
  const isFile = path.endsWith('.tar')
  await setVariable('source', isFile ? path : `${path}/{bundle_file}`, async () => bundle!.file)
  if (bundle?.inDownload) {
    await setVariable('offset', '', async () => String(bundle.region.offset))
    await setVariable('size', '', async () => String(bundle.region.size))
  }
  await setVariable('bundle', '{chart}-{version}.bundle.tar', async () => {
    const help = await answer('charts-syncer sync --help 2>&1')
    if (help.includes('--use-plain-http')) {
      throw new Failure(
        EXIT.configuration,
        'this charts-syncer (v2) reads *.wrap.tgz only, not the bundles of DCE',
        '此 charts-syncer（v2）只能读取 *.wrap.tgz，无法读取 DCE 的离线包',
        {
          next: [
            'put charts-syncer 0.20.x, or that of DaoCloud, on PATH',
            '请将 charts-syncer 0.20.x 或 DaoCloud 的 charts-syncer 加入 PATH',
          ],
        },
      )
    }
    const isFork = help.includes('--auto-create-repository')
    const { chart, version } = bundle!
    if (!isFork && !/^\d+\.\d+\.\d+$/.test(version)) {
      throw new Failure(
        EXIT.configuration,
        `this charts-syncer (upstream v0) reads bundles of versions like 1.2.3 only, not ${version}`,
        `此 charts-syncer（上游 v0）只能读取形如 1.2.3 版本的离线包，而不是 ${version}`,
        { next: ['put the charts-syncer of DaoCloud on PATH', '请使用 DaoCloud 的 charts-syncer'] },
      )
    }
    return `${chart}${isFork ? '_' : '-'}${version}.bundle.tar`
  })
}

/**
 * The directory that charts-syncer shall put the chart into, where it must not go to the chart
 * repository: it is there already, and charts-syncer would say that nothing is out of sync and push no
 * image (upstream 0.20 pkg/syncer/index.go).
 */
export function onlyImages(bundle: Bundle | undefined): boolean {
  return bundle !== undefined && last?.bundle === bundle && last.standing.chart === 'there'
}

/**
 * Runs the sync, and says meanwhile how many images have arrived; charts-syncer's working files, some
 * gigabytes, are gone afterwards.
 */
export async function watchSync(sync: () => Promise<unknown>) {
  const { dryRun } = thisRun()
  if (dryRun) return void (await sync())
  const { bundle, standing } = last!
  const { missing, different } = standing
  // ours, for another registry: charts-syncer would keep it
  if (standing.chart === 'other') rmSync(localPackage(bundle.chart, bundle.version))
  const wanted = [...missing, ...different.map(({ image }) => image)]
  const bytesOf = (images: BundleImage[]) =>
    [...new Set(images.flatMap(({ layers }) => layers))].reduce((sum, { size }) => sum + size, 0)
  let arrived = -1
  let isAsking = false
  const timer = setInterval(async () => {
    if (isAsking) return
    isAsking = true
    try {
      const now = []
      for (const image of wanted) {
        const [name, tag] = image.target.split(':') as [string, string]
        if ((await imageIdAt(registry(), `${repositoryPath()}/${name}`, tag)) === image.id)
          now.push(image)
      }
      if (now.length !== arrived)
        report(
          `  ${now.length} of ${wanted.length} images are pushed · 已推送 (${megabytes(bytesOf(now))} of ${megabytes(bytesOf(wanted))})`,
        )
      arrived = now.length
    } catch {
      // the check afterwards tells
    } finally {
      isAsking = false
    }
  }, 3000)
  try {
    await sync()
  } finally {
    clearInterval(timer)
    removeWorkingFiles()
  }
}

/**
 * After the sync all must be in place: that charts-syncer ends with 0 is no proof.
 * @throws Failure 1 naming what is not
 */
export async function checkArrived(bundle: Bundle | undefined) {
  await check(
    'check: every image is in the registry with the image ID of the bundle, and the chart is in the chart repository',
    '检查：所有镜像均已在镜像仓库中且镜像 ID 与离线包一致，chart 已在 chart 仓库中',
    async () => {
      const pushed = last!.standing.missing.length + last!.standing.different.length
      const standing = await standingOf(bundle!, 'after')
      last = { bundle: bundle!, standing }
      setResult(bundle!, standing, pushed)
      const { missing, different, chart } = standing
      if (isComplete(standing)) {
        report(`  ${bundle!.images.length} images and the chart are there · 均已就绪`)
        return
      }
      const lines = [
        ...missing.map(({ target }) => `missing: ${target}`),
        ...different.map(({ image, found }) => `another image: ${image.target} is ${found}`),
        ...(chart === 'there' ? [] : [`${chart}: the chart ${bundle!.chart} ${bundle!.version}`]),
      ]
      throw new Failure(
        EXIT.commandFailed,
        `charts-syncer ended with 0, but not everything is in place:\n${lines.join('\n')}`,
        'charts-syncer 退出码为 0，但以上内容未就绪',
        await describe(),
      )
    },
  )
}

/** What is in place, for a failure. */
async function describe() {
  const { bundle } = last!
  const before = last!.standing
  const standing = await standingOf(bundle, 'after')
  const { missing, different, chart } = standing
  const pushed = before.missing.length + before.different.length - missing.length - different.length
  setResult(bundle, standing, pushed)
  const there = bundle.images.length - missing.length - different.length
  const state: [string, string] = [
    `${there} of ${bundle.images.length} images of ${bundle.chart} ${bundle.version} are in ${thisRun().inputs.site.containerRegistry}/${repositoryPath()}; the chart ${chart === 'there' ? 'is' : 'is not'} in the chart repository`,
    `${bundle.chart} ${bundle.version} 的 ${bundle.images.length} 个镜像中有 ${there} 个已在镜像仓库中；chart ${chart === 'there' ? '已' : '未'}在 chart 仓库中`,
  ]
  const next: [string, string] = [
    (endingFailure() ? '' : 'mend the cause and ') +
      'run the same command again: what is there is kept',
    '请重新执行同一命令，已就绪的内容会保留',
  ]
  return { state, next }
}

const megabytes = (bytes: number) =>
  bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${Math.round(bytes / 1e6)} MB`

/** The URL that charts-syncer is told: OCI repositories are http or https to it. */
export function repositoryUrl(): string {
  const { url = '', plainHttp } = thisRun().inputs.site.chartRepository
  return url.replace(/^oci:/, plainHttp ? 'http:' : 'https:')
}

/** The site's own CAs, as words of the shell: of the registry, and of the chart repository. */
export function caFiles(): string[] {
  const { site } = thisRun().inputs
  const files = [site.containerRegistryCaFile, site.chartRepository.caFile]
  return [...new Set(files.filter((file) => file !== undefined))].map(quote)
}
