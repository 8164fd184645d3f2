import { Failure } from '../base/failure.ts'
import { chartValues, packageIn, resolveHint } from '../bundle/hints.ts'
import { type BundleImage } from '../bundle/images.ts'
import { type Bundle } from '../bundle/structure.ts'
import { containerRepository, imagePlace } from '../inputs/site.ts'
import { note, thisRun } from '../run/session.ts'
import { storedChart } from './chart-repository.ts'
import { imageIdAt, siteRegistry } from './registry.ts'

/** What the site's registry and chart repository have of a bundle. */
export interface Comparison {
  /** images that are not in place; `found`: the name is that of another image */
  lacking: { image: BundleImage; found?: string }[]
  /** is the chart there, made for this registry? `other`: its images are elsewhere, or it can't be read */
  chart: 'there' | 'missing' | 'other'
  /** an image reference of another chart, for a failure */
  otherReference?: string
}

/** The image ID that the registry has under the name of an image; undefined where there is none. */
export function idThere({ target }: BundleImage): Promise<string | undefined> {
  const { inputs } = thisRun()
  const [name, tag] = target.split(':') as [string, string]
  return imageIdAt(siteRegistry(inputs.site), `${containerRepository(inputs)}/${name}`, tag)
}

/** Is everything of the bundle in place, and right? */
export const isComplete = ({ lacking, chart }: Comparison) =>
  lacking.length === 0 && chart === 'there'

/**
 * Asks the registry and the chart repository what they have of a bundle.
 * @param when for the audit
 * @throws Failure 69 · 77 · 78
 */
export async function compare(bundle: Bundle, when: 'before' | 'after'): Promise<Comparison> {
  const all = await Promise.all(
    bundle.images.map(async (image) => ({ image, found: await idThere(image) })),
  )
  const ofChart = await compareChart(bundle)
  const images = Object.fromEntries(all.map(({ image, found }) => [image.target, found]))
  note({
    event: 'registry',
    when,
    path: imagePlace(thisRun().inputs),
    images,
    chart: ofChart.chart,
  })
  return { lacking: all.filter(({ image, found }) => found !== image.id), ...ofChart }
}

/** The chart that is in the chart repository: do its values name the bundle's images at this site? */
async function compareChart(bundle: Bundle): Promise<Omit<Comparison, 'lacking'>> {
  const { chart, version, hints } = bundle
  const stored = await storedChart(chart, version)
  if (!stored) return { chart: 'missing' }
  try {
    const values = chartValues(packageIn(stored, `${chart}-${version}.tgz`), `${chart}/`)
    const place = imagePlace(thisRun().inputs)
    const untagged = (reference: string) => reference.replace(/:latest$/, '')
    for (const { hint, image } of hints) {
      const otherReference = resolveHint(hint, values)
      if (untagged(otherReference) !== untagged(`${place}/${image.target}`))
        return { chart: 'other', otherReference }
    }
    return { chart: 'there' }
  } catch (error) {
    const words = error instanceof Failure ? error.en : (error as Error).message
    return { chart: 'other', otherReference: `an unreadable package: ${words}` }
  }
}
