import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { bytesOf, type Bundle } from '../bundle/structure.ts'
import { megabytes, readContent, setSource, tellRead } from '../bundle/of-this-run.ts'
import { EXIT, Failure } from '../base/failure.ts'
import { idThere, isComplete, localPackage, standingOf, type Standing } from './comparison.ts'
import { imagePlace } from '../inputs/inputs.ts'
import { lock } from '../base/locks.ts'
import { endingFailure } from '../base/processes.ts'
import { answer, check, onFailureDescribe, report, setVariable } from '../run/words.ts'
import { result, thisRun } from '../run/session.ts'
import { quote } from '../base/shell.ts'

/**
 * One script at a time pushes to a path of a registry.
 * @throws Failure 75 when another script holds it; it names the holder
 */
export async function lockRepository() {
  const { inputs, locks } = thisRun()
  const place = imagePlace(inputs)
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
 * Are all images of the bundle in the registry, with the same image ID, and is the chart in the chart
 * repository? A registry that can't be asked is told after a bundle that is damaged.
 * @throws Failure 78 where a name holds another image, unless --replace-tags is given · 65 · 69 · 77
 */
export async function isInPlace(bundle: Bundle | undefined): Promise<boolean> {
  const { inputs } = thisRun()
  const place = imagePlace(inputs)
  const inPlace = await check(
    `only if an image of the bundle is not in ${place} with the same image ID, or the chart is not in the chart repository`,
    `仅当 ${place} 中缺少离线包中的镜像（按镜像 ID 比较），或 chart 仓库中缺少该 chart 时执行`,
    async () => {
      const standing = await standingOf(bundle!, 'before').catch(async (failure: unknown) => {
        if (failure instanceof Failure && failure.exitCode === EXIT.unreachable)
          await readContent(bundle!).then(tellRead)
        throw failure
      })
      last = { bundle: bundle!, standing }
      setResult(standing)
      onFailureDescribe(async () => describe(await standingOf(bundle!, 'after')))
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
      // the answer is needed later: it comes while the bundle is read
      if (!done) void programHelp().catch(() => {})
      return done
    },
  )
  return inPlace ?? false
}

/** The bundle at work, and how it stood before the sync. */
let last: { bundle: Bundle; standing: Standing } | undefined
const outcomes = new Map<Bundle, object>()

/** What --json says of the bundle at work. */
function setResult({ missing, different, chart }: Standing) {
  const { bundle, standing: before } = last!
  const { file, chart: name, version, images, bytes } = bundle
  outcomes.set(bundle, {
    file,
    chart: name,
    version,
    images: images.length,
    bytes,
    pushed: before.missing.length + before.different.length - missing.length - different.length,
    missing: missing.map(({ target }) => target),
    different: different.map(({ image }) => image.target),
    chartInPlace: chart === 'there',
    checksum: bundle.checksum?.from ?? null,
  })
  result({ bundles: [...outcomes.values()] })
}

function otherImages({ different }: Standing): Failure {
  const { inputs } = thisRun()
  const place = imagePlace(inputs)
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

let help: Promise<string> | undefined

/** What tells the three charts-syncers apart. */
function programHelp(): Promise<string> {
  help ??= answer('charts-syncer sync --help 2>&1')
  return help
}

/**
 * Sets `$source`, the bundle's file, for a download `$offset` and `$size` of the bundle in it, and
 * `$bundle`, the name under which the charts-syncer that is installed reads it: `<chart>-<version>.bundle.tar`, or, DaoCloud's, `<chart>_<version>.bundle.tar`
 * (upstream 0.20 pkg/client/intermediate/intermediate.go).
 * @throws Failure 78 where charts-syncer can't read bundles, or not one of this version
 */
export async function setBundle(bundle: Bundle | undefined) {
  await setSource(bundle)
  if (bundle?.inDownload) {
    await setVariable('offset', '', async () => String(bundle.region.offset))
    await setVariable('size', '', async () => String(bundle.region.size))
  }
  await setVariable('bundle', '{chart}-{version}.bundle.tar', async () => {
    const help = await programHelp()
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
 * Must the chart not go to the chart repository? It is there already, and charts-syncer would say that
 * nothing is out of sync and push no image (upstream 0.20 pkg/syncer/index.go).
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
  let arrived = -1
  let isAsking = false
  const timer = setInterval(async () => {
    if (isAsking) return
    isAsking = true
    try {
      const now = []
      for (const image of wanted) {
        if ((await idThere(image)) === image.id) now.push(image)
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
      const standing = await standingOf(bundle!, 'after')
      setResult(standing)
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
        describe(standing),
      )
    },
  )
}

/** What is in place now, for a failure. */
function describe(standing: Standing) {
  const { bundle } = last!
  const { missing, different, chart } = standing
  setResult(standing)
  const there = bundle.images.length - missing.length - different.length
  const state: [string, string] = [
    `${there} of ${bundle.images.length} images of ${bundle.chart} ${bundle.version} are in ${imagePlace(thisRun().inputs)}; the chart ${chart === 'there' ? 'is' : 'is not'} in the chart repository`,
    `${bundle.chart} ${bundle.version} 的 ${bundle.images.length} 个镜像中有 ${there} 个已在镜像仓库中；chart ${chart === 'there' ? '已' : '未'}在 chart 仓库中`,
  ]
  const next: [string, string] = [
    (endingFailure() ? '' : 'mend the cause and ') +
      'run the same command again: what is there is kept',
    '请重新执行同一命令，已就绪的内容会保留',
  ]
  return { state, next }
}

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
