import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { note } from '../audit/write.ts'
import {
  chartValues,
  membersOfPackage,
  resolveHint,
  type Bundle,
  type BundleImage,
} from '../bundle/structure.ts'
import { Failure } from '../base/failure.ts'
import { containerRepository } from '../inputs/inputs.ts'
import {
  chartAt,
  imageIdAt,
  ociChartAt,
  siteRegistry,
  usePlainHttp,
  type Server,
} from './registry.ts'
import { thisRun } from '../run/session.ts'

/** How a bundle stands at the site's registry and chart repository. */
export interface Standing {
  missing: BundleImage[]
  /** names that exist and hold another image */
  different: { image: BundleImage; found: string }[]
  /** is the chart there, made for this registry? `other`: its images are elsewhere, or it can't be read */
  chart: 'there' | 'missing' | 'other'
  /** an image reference of another chart, for a failure */
  otherReference?: string
}

/** The site's registry. */
export const registry = () => siteRegistry(thisRun().inputs.site)

/** The path in the registry that the module's images are pushed to: release.daocloud.io/skoala. */
export const repositoryPath = () => containerRepository(thisRun().inputs)

/** The image ID that the registry has under the name of an image; undefined where there is none. */
export function idThere({ target }: BundleImage): Promise<string | undefined> {
  const [name, tag] = target.split(':') as [string, string]
  return imageIdAt(registry(), `${repositoryPath()}/${name}`, tag)
}

/** Is everything of the bundle in place, and right? */
export const isComplete = ({ missing, different, chart }: Standing) =>
  missing.length + different.length === 0 && chart === 'there'

/**
 * Asks the registry and the chart repository what they have of a bundle.
 * @param when for the audit
 * @throws Failure 69 · 77 · 78
 */
export async function standingOf(bundle: Bundle, when: 'before' | 'after'): Promise<Standing> {
  const server = registry()
  const path = repositoryPath()
  const ids = await Promise.all(bundle.images.map(idThere))
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
    const what = `${chart}-${bundle.version}.tgz`
    const { read, members } = membersOfPackage(package_, what)
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

/** Where a chart of `kind: LOCAL` is. */
export const localPackage = (chart: string, version: string) =>
  join(thisRun().inputs.stateDirectory, `local-repo/${chart}-${version}.tgz`)
