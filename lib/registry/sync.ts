import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { commandFailed, EXIT, Failure, misconfigured } from '../base/failure.ts'
import { type FailureDetails } from '../base/failure.ts'
import { lock } from '../base/locks.ts'
import { lines, quote, type ShellLines } from '../base/shell.ts'
import { megabytes, verifyContent } from '../bundle/content.ts'
import { bytesOf } from '../bundle/images.ts'
import { ensureRight, setSource } from '../bundle/of-this-run.ts'
import { type Bundle } from '../bundle/structure.ts'
import { imagePlace } from '../inputs/site.ts'
import { answer, onFailureDescribe } from '../run/ask.ts'
import { prepare } from '../run/command.ts'
import { asScript, mustComeFirst, needed, owe, settleDebt, word } from '../run/order.ts'
import { endingFailure, report, result, thisRun } from '../run/session.ts'
import { setVariable } from '../run/variables.ts'
import { check, say } from '../run/words.ts'
import { localPackage } from './chart-repository.ts'
import { compare, type Comparison, idThere, isComplete } from './comparison.ts'

declare module '../run/session.ts' {
  interface Run {
    /** what tells the three charts-syncers apart */
    syncerHelp?: Promise<string>
  }
}

declare module '../bundle/structure.ts' {
  interface Bundle {
    /** what was in place before the sync, as isInPlace(bundle) found it */
    before?: Comparison
    /** was it put where charts-syncer reads it, by placeBundle(bundle)? */
    isPlaced?: boolean
    /** did charts-syncer run, in watchSync(bundle, …)? */
    isSynced?: boolean
    /** what --json says of it */
    outcome?: object
  }
}

/**
 * One script at a time pushes to a path of a registry.
 * @throws Failure 75 when another script holds it; it names the holder
 */
export const lockRepository = word('lockRepository', async () => {
  const { inputs, locks } = thisRun()
  const place = imagePlace(inputs)
  await check(
    `lock: nobody else pushes to ${place}`,
    `加锁：没有其他人在向 ${place} 推送`,
    async () => {
      for (const target of [`registry path ${place}`, `working files in ${inputs.stateDirectory}`])
        locks.push(lock(target, { script: inputs.script }))
      removeOurs('charts-syncer') // of a run that was killed
    },
  )
})

/** What charts-syncer unpacks is some gigabytes. */
const removeOurs = (name: string) =>
  rmSync(join(thisRun().inputs.stateDirectory, name), { recursive: true, force: true })

/**
 * Are all images of the bundle in the registry, with the same image ID, and is the chart in the chart
 * repository? A registry that can't be asked is told after a bundle that is damaged.
 * @throws Failure 78 where a name is that of another image, unless --replace-tags is given · 65 · 69 · 77
 */
export const isInPlace = word('isInPlace', async (bundle: Bundle): Promise<boolean> => {
  const { inputs, reached } = thisRun()
  if (!reached.has('lockRepository')) throw mustComeFirst('lockRepository()', 'isInPlace(bundle)')
  const place = imagePlace(inputs)
  bundle.before = await check(
    `only if an image of the bundle is missing in ${place} (compared by image ID), or the chart is missing in the chart repository`,
    `仅当 ${place} 中缺少离线包中的镜像（按镜像 ID 比较），或 chart 仓库中缺少该 chart 时执行`,
    async () => compareBefore(bundle),
    { lacking: bundle.images.map((image) => ({ image })), chart: 'missing' },
  )
  const isDone = isComplete(bundle.before)
  if (!isDone) owe(checkOf(bundle))
  return isDone
})

const checkOf = ({ chart, version }: Bundle) => `checkArrived(${chart} ${version})`

async function compareBefore(bundle: Bundle): Promise<Comparison> {
  const { site, flags } = thisRun().inputs
  const before = await compare(bundle, 'before').catch(async (failure: unknown) => {
    if (failure instanceof Failure && failure.exitCode === EXIT.unreachable)
      await verifyContent(bundle)
    throw failure
  })
  bundle.before = before
  setResult(bundle, before)
  onFailureDescribe(async () => describe(bundle, await compare(bundle, 'after')))
  const { images, chart, version } = bundle
  const others = before.lacking.filter(({ found }) => found)
  if (others.length > 0 && !flags['replace-tags']) {
    const place = imagePlace(thisRun().inputs)
    throw misconfigured`
      a different image already has this name:
      以下名称已被其他镜像占用：`.items(
      others.map(
        ({ image, found }) => `${place}/${image.target}  is ${found}, in the bundle ${image.id}`,
      ),
    ).next`
      find out who pushed it: a running workload may use it. To put the image of the bundle in its place: --replace-tags
      请先确认是谁推送的，正在运行的工作负载可能在使用它。如需替换为离线包中的镜像：--replace-tags`
  }
  if (before.chart === 'other' && site.chartRepository.kind !== 'LOCAL') {
    throw misconfigured`
      the chart ${chart} ${version} in the chart repository is made for another place: it has ${before.otherReference}
      chart 仓库中的 ${chart} ${version} 指向其他位置：${before.otherReference}`.next`
      is project right in the site file? If so, delete this version from the chart repository, and run the same command again
      请确认站点配置中的 project；若无误，请从 chart 仓库删除该版本后重新执行同一命令`
  }
  const isDone = isComplete(before)
  report(
    `  ${images.length - before.lacking.length} of ${images.length} images are there, the chart ${chart} ${version} ${before.chart === 'there' ? 'is' : 'is not'}` +
      (isDone ? ': nothing to do · 均已就绪，无需同步' : ''),
  )
  // the answer is needed later: it comes while the bundle is read
  if (!isDone) void syncerHelp().catch(() => {})
  return before
}

/** Sets what --json says of a bundle. */
function setResult(bundle: Bundle, now: Comparison) {
  const { file, chart, version, images, bytes, checksum, before } = bundle
  const targets = (isOther: boolean) =>
    now.lacking.flatMap(({ image, found }) => (!!found === isOther ? [image.target] : []))
  bundle.outcome = {
    ...{ file, chart, version, images: images.length, bytes },
    pushed: before!.lacking.length - now.lacking.length,
    missing: targets(false),
    different: targets(true),
    chartInPlace: now.chart === 'there',
    checksum: checksum?.from ?? null,
  }
  const { bundles = [] } = thisRun()
  result({ bundles: bundles.flatMap(({ outcome }) => outcome ?? []) })
}

const syncerHelp = () => (thisRun().syncerHelp ??= answer('charts-syncer sync --help 2>&1'))

/**
 * Puts the bundle into a directory of its own, under the name that the charts-syncer that is installed
 * reads, and the site's CAs beside it. Sets `$source`, the bundle's file, `$bundle`, its name, and for
 * a download `$offset` and `$size` of the bundle in it.
 * @throws Failure 78 where charts-syncer can't read bundles, or not one of this version
 */
export const placeBundle = word('placeBundle', async (bundle: Bundle) => {
  const called = 'placeBundle(bundle)'
  needed(bundle.before, 'isInPlace(bundle)', called)
  ensureRight(bundle, called)
  const { dryRun, inputs } = thisRun()
  await setSource(bundle)
  if (bundle.inDownload) {
    for (const name of ['offset', 'size'] as const)
      await setVariable(name, '', async () => String(bundle.region[name]))
  }
  await setVariable('bundle', '{chart}-{version}.bundle.tar', () => nameFor(bundle))
  say(
    'in a directory of its own, under the name that charts-syncer reads; out of a download it is copied',
    '放入独立目录，并使用 charts-syncer 能识别的名称；若为外层下载文件，则从中复制',
  )
  if (!dryRun) removeOurs('load-image.yaml') // of an earlier run: charts-syncer must not go by it
  const directory = quote(`charts-syncer/${inputs.module.bundle.directory}`)
  await prepare`
rm -rf charts-syncer && mkdir -p ${lines(directory)} charts-syncer/tmp
${lines(
  bundle.inDownload
    ? `dd if=$source of=${directory}/$bundle status=none \\
  bs=1M iflag=skip_bytes,count_bytes skip=$offset count=$size`
    : `ln -sr $source ${directory}/$bundle`,
)}`
  const files = caFiles()
  if (files.length > 0) await prepare`cat ${lines(files.join(' '))} > charts-syncer/ca.crt`
  bundle.isPlaced = true
})

/**
 * The name under which the installed charts-syncer reads a bundle: `<chart>-<version>.bundle.tar`, or,
 * DaoCloud's, `<chart>_<version>.bundle.tar` (upstream 0.20 pkg/client/intermediate/intermediate.go). Told
 * apart by `sync --help`: --use-plain-http is upstream's v2, --auto-create-repository DaoCloud's.
 */
async function nameFor({ chart, version }: Bundle): Promise<string> {
  const help = await syncerHelp()
  if (help.includes('--use-plain-http')) {
    throw misconfigured`
      this charts-syncer (v2) reads *.wrap.tgz only, not the bundles of DCE
      此 charts-syncer（v2）只能读取 *.wrap.tgz，无法读取 DCE 的离线包`.next`
      put charts-syncer 0.20.x, or that of DaoCloud, on PATH
      请将 charts-syncer 0.20.x 或 DaoCloud 的 charts-syncer 加入 PATH`
  }
  const isFork = help.includes('--auto-create-repository')
  if (!isFork && !/^\d+\.\d+\.\d+$/.test(version)) {
    throw misconfigured`
      this charts-syncer (upstream v0) reads bundles of versions like 1.2.3 only, not ${version}
      此 charts-syncer（上游 v0）只能读取形如 1.2.3 版本的离线包，而不是 ${version}`.next`
      put the charts-syncer of DaoCloud on PATH
      请使用 DaoCloud 的 charts-syncer`
  }
  return `${chart}${isFork ? '_' : '-'}${version}.bundle.tar`
}

/**
 * Must the chart not go to the chart repository? It is there already, and charts-syncer would say that
 * nothing is out of sync and push no image (upstream 0.20 pkg/syncer/index.go).
 */
export const onlyImages = word('onlyImages', ({ before }: Bundle): boolean => {
  const { chart } = needed(before, 'isInPlace(bundle)', 'onlyImages(bundle)')
  return chart === 'there'
})

/** The URL that charts-syncer is told: OCI repositories are http or https to it. */
export const repositoryUrl = word('repositoryUrl', (): string => {
  const { url = '', plainHttp } = thisRun().inputs.site.chartRepository
  return url.replace(/^oci:/, plainHttp ? 'http:' : 'https:')
})

/** The variables by which charts-syncer gets the logins, and the CAs that it is to trust. */
export const syncerVariables = word('syncerVariables', (): ShellLines => {
  const { chartRepository, containerRegistryLogin } = thisRun().inputs.site
  const login = (theirs: string, ours: string) =>
    ['USERNAME', 'PASSWORD'].map((part) => `${theirs}_AUTH_${part}="$${ours}_${part}"`)
  return lines(
    ...(chartRepository.login ? login('TARGET_REPO', 'CHART_REPO') : []),
    ...(containerRegistryLogin === false ? [] : login('TARGET_CONTAINERS', 'REGISTRY')),
    // Go trusts what is in it
    ...(caFiles().length > 0 ? ['SSL_CERT_FILE=$PWD/ca.crt'] : []),
  )
})

/** The site's own CAs, as words of the shell: of the registry, and of the chart repository. */
function caFiles(): string[] {
  const { site } = thisRun().inputs
  const files = [site.containerRegistryCaFile, site.chartRepository.caFile]
  return [...new Set(files.filter((file) => file !== undefined))].map(quote)
}

/**
 * Runs the sync, and says meanwhile how many images have arrived; charts-syncer's working files, some
 * gigabytes, are gone afterwards.
 */
export const watchSync = word(
  'watchSync',
  async (bundle: Bundle, sync: () => Promise<unknown>): Promise<void> => {
    const called = 'watchSync(bundle, …)'
    const before = needed(bundle.before, 'isInPlace(bundle)', called)
    needed(bundle.isPlaced, 'placeBundle(bundle)', called)
    const isWritten = thisRun().commands.some((text) => text.includes('> load-image.yaml'))
    needed(isWritten || undefined, 'cat > load-image.yaml', called)
    const { dryRun } = thisRun()
    // ours, for another registry: charts-syncer would keep it
    if (before.chart === 'other') rmSync(localPackage(bundle.chart, bundle.version))
    const watch = dryRun ? undefined : watchArrivals(before)
    try {
      await asScript(sync)
    } finally {
      clearInterval(watch)
      if (!dryRun) removeOurs('charts-syncer')
    }
    bundle.isSynced = true
  },
)

function watchArrivals({ lacking }: Comparison): NodeJS.Timeout {
  const wanted = lacking.map(({ image }) => image)
  let arrived = -1
  let isAsking = false
  return setInterval(async () => {
    if (isAsking) return
    isAsking = true
    try {
      const now = []
      for (const image of wanted) if ((await idThere(image)) === image.id) now.push(image)
      if (now.length !== arrived)
        report(
          `  ${now.length} of ${wanted.length} images pushed · 已推送 (${megabytes(bytesOf(now))} of ${megabytes(bytesOf(wanted))})`,
        )
      arrived = now.length
    } catch {
      // the check afterwards tells
    } finally {
      isAsking = false
    }
  }, 3000)
}

/**
 * After the sync all must be in place: that charts-syncer ends with 0 is no proof.
 * @throws Failure 1 naming what is not
 */
export const checkArrived = word('checkArrived', async (bundle: Bundle) => {
  needed(bundle.before, 'isInPlace(bundle)', 'checkArrived(bundle)')
  needed(bundle.isSynced, 'watchSync(bundle, …)', 'checkArrived(bundle)')
  await check(
    'check: every image is in the registry with the image ID of the bundle, and the chart is in the chart repository',
    '检查：所有镜像均已在镜像仓库中且镜像 ID 与离线包一致，chart 已在 chart 仓库中',
    async () => {
      const after = await compare(bundle, 'after')
      const { images, chart, version } = bundle
      const details = describe(bundle, after)
      if (isComplete(after))
        return report(`  ${images.length} images and the chart are there · 均已就绪`)
      const failure = commandFailed`
        charts-syncer ended with 0, but this is not in place:
        charts-syncer 退出码为 0，但以下内容未就绪：`.items([
        ...after.lacking.map(({ image: { target }, found }) =>
          found ? `another image: ${target} is ${found}` : `missing: ${target}`,
        ),
        ...(after.chart === 'there'
          ? []
          : [
              `${after.chart === 'missing' ? 'missing' : 'made for another registry'}: the chart ${chart} ${version}`,
            ]),
      ])
      Object.assign(failure.details, details)
      throw failure
    },
  )
  settleDebt(checkOf(bundle))
})

/** What is in place now, for a failure, and for --json. */
function describe(bundle: Bundle, now: Comparison): FailureDetails {
  setResult(bundle, now)
  const { images, chart, version } = bundle
  const there = images.length - now.lacking.length
  const isThere = now.chart === 'there'
  const [fix, fixZh] = endingFailure() ? ['', ''] : ['fix the cause and ', '请排除原因后']
  return {
    state: [
      `${there} of ${images.length} images of ${chart} ${version} are in ${imagePlace(thisRun().inputs)}; the chart ${isThere ? 'is' : 'is not'} in the chart repository`,
      `${chart} ${version} 的 ${images.length} 个镜像中有 ${there} 个已在镜像仓库中；chart ${isThere ? '已' : '未'}在 chart 仓库中`,
    ],
    next: [
      `${fix}run the same command again; what is already there is skipped`,
      `${fixZh}重新执行同一命令，已就绪的内容会跳过`,
    ],
  }
}
