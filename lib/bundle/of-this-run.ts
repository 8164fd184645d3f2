import { basename, resolve } from 'node:path'
import { bug, Failure, missing } from '../base/failure.ts'
import { bundlePath } from '../inputs/inputs.ts'
import { bundleNames } from '../inputs/module.ts'
import { mustComeFirst, needed, owe, settleDebt, word } from '../run/order.ts'
import { note, report, thisRun } from '../run/session.ts'
import { setVariable } from '../run/variables.ts'
import { check } from '../run/words.ts'
import { megabytes, verifyContent } from './content.ts'
import { asTyped, bundleFiles } from './files.ts'
import { type Bundle, OtherChart, readBundle } from './structure.ts'
import { unfit } from './tar.ts'

declare module '../run/session.ts' {
  interface Run {
    /** what findBundles() found */
    bundles?: Bundle[]
    /** bundles of a directory that are damaged or unfit: told at the end, so that the others come in */
    badBundles?: Failure[]
  }
}

declare module './structure.ts' {
  interface Bundle {
    /** are there no other files of the module in the directory? Then what is wrong ends the run */
    isAlone?: boolean
    /** what checkBundleContent(bundle) found */
    isRight?: boolean
  }
}

/** What a dry run goes on with. */
function standIn(): Bundle {
  const region = { offset: 0, size: 0 }
  const image = {
    source: '{name_in_the_bundle}',
    target: '{name}:{tag}',
    id: '{image_id}',
    architecture: '{architecture}',
    config: { name: '{configuration}', entry: region, ...region },
    layers: [],
    diffIds: [],
  }
  const names = { file: '{bundle_file}', chart: '{chart}', version: '{version}' }
  return { ...names, region, images: [image], hints: [], bytes: 0 }
}

/**
 * The module's bundles, each checked as far as that is possible without reading the layers; one of
 * several that is bad is told by `tellBadBundles`.
 * @throws Failure 66 there is none · 65 it is damaged or unfit
 */
export const findBundles = word('findBundles', async (): Promise<Bundle[]> => {
  const run = thisRun()
  const { module, site, stateDirectory } = run.inputs
  const path = resolve(stateDirectory, bundlePath(run.inputs))
  const where = asTyped(path)
  run.badBundles = []
  owe('tellBadBundles()')
  run.bundles = await check(
    `check: each bundle of ${module.name} in ${where} contains only the expected files; its images are built for ${site.architecture}, match the hashes in their names, and match hints.yaml`,
    `检查：${where} 中 ${module.name} 的每个离线包只含应有的文件，镜像架构为 ${site.architecture}，与其名称中的哈希一致，且与 hints.yaml 对应`,
    async () => bundlesIn(path),
    [standIn()],
  )
  return run.bundles
})

function bundlesIn(path: string): Bundle[] {
  const { module, releases } = thisRun().inputs
  const charts = releases.map(({ chart }) => chart)
  const files = bundleFiles(path, bundleNames(module))
  const bundles = files.flatMap((file) => bundleIn(file, charts, files.length === 1))
  bundles.forEach(tellBundle)
  if (bundles.length === 0 && thisRun().badBundles!.length === 0) {
    throw missing`
      ${asTyped(path)} has no bundle of ${charts.join(', ')}
      ${asTyped(path)} 中没有 ${charts.join('、')} 的离线包`
  }
  // the download, and the bundle that was unpacked beside it
  return bundles.filter(
    (bundle, index) => !bundles.slice(0, index).some((other) => isSameBundle(other, bundle)),
  )
}

/** The bundle in a file; none where it is of another chart, or bad, and there are others beside it. */
function bundleIn(file: string, charts: string[], isAlone: boolean): Bundle[] {
  try {
    return [{ ...readBundle(file, charts, thisRun().inputs.site.architecture), isAlone }]
  } catch (error) {
    if (error instanceof OtherChart && !isAlone)
      report(`  ${basename(file)}: not taken · 未处理: ${error.en}`)
    else addBadBundle(error, isAlone)
    return []
  }
}

function tellBundle({ file, inDownload, chart, version, images, bytes, checksum }: Bundle) {
  report(
    `  ${inDownload ?? basename(file)}: ${chart} ${version}, ${images.length} images, ${megabytes(bytes)}` +
      (checksum
        ? `, sha512 in ${checksum.from}`
        : ', sha512 file missing: its chart cannot be checked · 没有 sha512 文件，无法校验其 chart'),
  )
  const ids = Object.fromEntries(images.map(({ target, id }) => [target, id]))
  const { sha512 } = checksum ?? {}
  note({ event: 'bundle', file, inDownload, chart, version, checksum: sha512, images: ids })
}

/** One of several bundles is damaged or unfit; of another failure, or of the only bundle, the run ends. */
function addBadBundle(failure: unknown, isAlone = false) {
  if (!(failure instanceof Failure) || isAlone) throw failure
  thisRun().badBundles!.push(failure)
  owe('tellBadBundles()')
  report(`  NOT TAKEN · 未处理: ${failure.en}`)
}

function isSameBundle(one: Bundle, other: Bundle): boolean {
  if (one.chart !== other.chart || one.version !== other.version) return false
  const [images, otherImages] = [one, other].map(({ images }) =>
    JSON.stringify(images.map(({ source, id }) => [source, id])),
  )
  if (images === otherImages) return true
  throw unfit`
    ${asTyped(one.file)} and ${asTyped(other.file)} are both ${one.chart} ${one.version}, but contain different images
    ${asTyped(one.file)} 与 ${asTyped(other.file)} 都是 ${one.chart} ${one.version}，但镜像不同`
    .next`
    name one of them: --bundle FILE
    请用 --bundle FILE 指定其一`
}

/**
 * Ends a run in which a bundle of the directory was bad; the others are in.
 * @throws Failure 65
 */
export const tellBadBundles = word('tellBadBundles', async () => {
  const run = thisRun()
  const bundles = needed(run.bundles, 'findBundles()', 'tellBadBundles()')
  // it would end the run with the bundles alone
  if (run.owed.has('tellBadNodes(nodes)'))
    throw mustComeFirst('tellBadNodes(nodes)', 'tellBadBundles()')
  settleDebt('tellBadBundles()')
  const bad = run.badBundles!
  if (bad.length === 0) return
  const each = (lang: 'en' | 'zh') => bad.map((failure) => failure[lang]).join('\n')
  const failure = unfit(each('en'), each('zh')).next(...bad[0]!.details.next!)
  const others = bundles.some(({ isRight }) => isRight !== false)
  throw others ? failure.state('the other bundles are in', '其他离线包均已处理') : failure
})

/** Sets `$source`: the bundle's file. */
export const setSource = word('setSource', async ({ file }: Bundle) => {
  const path = bundlePath(thisRun().inputs)
  const placeholder = path.endsWith('.tar') ? path : `${path}/{bundle_file}`
  await setVariable('source', placeholder, async () => file)
})

/**
 * Reads the whole bundle, each layer against its hash, before anything leaves this machine.
 * @returns whether it is right; a bad one of several is told at the end
 * @throws Failure 65
 */
export const checkBundleContent = word('checkBundleContent', async (bundle: Bundle) => {
  bundle.isRight = await check(
    'check: each layer matches the hash in its name, and the whole matches the sha512 delivered with it, if there is one',
    '检查：每一层都与其名称中的哈希一致；若随附 sha512，则整个文件也与其一致',
    async () => {
      try {
        await verifyContent(bundle)
        return true
      } catch (error) {
        addBadBundle(error, bundle.isAlone)
        return false
      }
    },
    true,
  )
  return bundle.isRight
})

/**
 * For words that push or load a bundle: refuses one whose content was not found right.
 * @param called the word, for the failure
 * @throws Failure 70
 */
export function ensureRight(bundle: Bundle, called: string) {
  if (needed(bundle.isRight, 'checkBundleContent(bundle)', called)) return
  throw bug`
    ${called} must not be reached for a bundle that checkBundleContent(bundle) found bad
    checkBundleContent(bundle) 判定为损坏的离线包不得执行 ${called}`
}
