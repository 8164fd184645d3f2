import { closeSync, openSync, statSync } from 'node:fs'
import { basename } from 'node:path'
import { type Bilingual, bilingual, EXIT, Failure } from '../base/failure.ts'
import { type Checksum, checksumBeside, sha512In } from './files.ts'
import { type Hint, hintsIn } from './hints.ts'
import { type BundleImage, bytesOf, imagesIn } from './images.ts'
import { archiveIn, fromFile, type Read, type Region, unfit } from './tar.ts'

/** A bundle that has passed the check of its structure; rooms that follow add fields of their own. */
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
  hints: Hint[]
  /** bytes of the layers, each counted once */
  bytes: number
  /** the sha512 that was delivered with it */
  checksum?: Checksum
}

/** A bundle of a chart that the module does not have: exit 65. */
export class OtherChart extends Failure {}

const otherChart = (...text: Bilingual) => new OtherChart(EXIT.badBundle, ...bilingual(...text))

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
    const read = fromFile(descriptor)
    const found = findBundle(read, file)
    const { region, inDownload } = found
    const what = inDownload ? `${basename(file)}/${inDownload}` : basename(file)
    const bundle = archiveIn(read, region, what)
    const stray = bundle.members.find(
      ({ name }) => !/^(hints\.yaml|images\.tar|original-chart\/.+)$/.test(name),
    )
    if (stray) {
      const name = JSON.stringify(stray.name)
      throw bundle.unfit(`${name} does not belong in a bundle`, `${name} 不属于离线包`)
    }
    const { name: chart, version } = bundle.parsed('original-chart/Chart.yaml', 'YAML') ?? {}
    if (!charts.includes(chart))
      throw otherChart`
        ${what} is a bundle of the chart ${chart}, not of ${charts.join(', ')}
        ${what} 是 chart ${chart} 的离线包，而不是 ${charts.join('、')}`.next`
        name the module that it belongs to: --module
        请用 --module 指定其所属模块`
    if (!/^v?\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?$/.test(String(version)))
      throw bundle.unfit`
        the version in Chart.yaml is not one like 1.2.3: ${JSON.stringify(version)}
        Chart.yaml 中没有形如 1.2.3 的版本：${JSON.stringify(version)}`
    const archive = archiveIn(read, bundle.member('images.tar'), `${what}: images.tar`)
    const images = imagesIn(archive, architecture)
    const contents = { images, hints: hintsIn(bundle, images), bytes: bytesOf(images) }
    return { file, ...found, chart, version: String(version), ...contents }
  } finally {
    closeSync(descriptor)
  }
}

/** The bundle in the file: the file itself, or the one bundle in the download around it. */
function findBundle(read: Read, file: string): Pick<Bundle, 'region' | 'inDownload' | 'checksum'> {
  const whole = { offset: 0, size: statSync(file).size }
  const download = archiveIn(read, whole, basename(file))
  const { members, what } = download
  const beside = checksumBeside(file, whole)
  if (members.some(({ name }) => name === 'images.tar' || name === 'hints.yaml'))
    return { region: whole, checksum: beside }
  const bundles = members.filter(({ name }) => name.endsWith('.bundle.tar'))
  const [bundle] = bundles
  if (!bundle || bundles.length > 1 || !/^[\w./+-]+$/.test(bundle.name)) {
    const names = members.map(({ name }) => name).slice(0, 10)
    throw unfit`
      ${what} is neither a bundle (hints.yaml, images.tar, original-chart/) nor a download with one bundle in it; it has ${names.join(', ') || 'nothing'}
      ${what} 既不是离线包，也不是含有一个离线包的下载文件`
  }
  const inside = members
    .filter(({ name, size }) => /sha512/i.test(name) && size < 65536)
    .flatMap(({ name: from }) => {
      const sha512 = sha512In(download.content(from).toString(), basename(bundle.name))
      return sha512 ? [{ of: bundle.name, region: bundle, sha512, from }] : []
    })
  return { region: bundle, inDownload: bundle.name, checksum: beside ?? inside[0] }
}
