import { lines, quote, type ShellLines } from '../base/shell.ts'
import { registryValues } from '../inputs/site.ts'
import { type Release } from '../inputs/types.ts'
import { word } from '../run/order.ts'
import { thisRun } from '../run/session.ts'
import { exportVariable } from '../run/variables.ts'

/** A release's chart, as helm is told it, and what helm needs to get there. */
export function chartSource(release: Release): { chart: string; options: ShellLines } {
  const { inputs } = thisRun('chartSource(release)')
  const { chartRepository: repository } = inputs.site
  const { chart } = inputs.flags
  if (inputs.flags.via === 'package') return { chart: chart!, options: lines() }
  if (repository.kind !== 'OCI')
    return { chart: `${release.repository}/${release.chart}`, options: lines() }
  const options = [
    ...(repository.plainHttp ? ['--plain-http'] : []),
    ...(repository.caFile ? [`--ca-file ${quote(repository.caFile)}`] : []),
  ]
  return { chart: `${repository.url}/${release.chart}`, options: lines(...options) }
}

/** Is it a chart package, and not a directory? */
export const isArchive = (chart: string) => /\.(tgz|tar\.gz)$/.test(chart)

/** The registry keys of a release for its `helm upgrade`. */
interface RegistryKeys {
  /** what `$imageRegistry` is */
  value: string
  /** `--set KEY=$imageRegistry`, a line for each key */
  set: ShellLines
  /** key and value */
  pairs: [key: string, value: string][]
}

/**
 * The registry keys with their values. The manual has one variable for all of them; a key whose value
 * has another form than the first one's is written out.
 */
export function registryKeys(release: Release): RegistryKeys {
  const pairs = registryValues(thisRun('registryKeys(release)').inputs, release)
  const value = pairs[0]![1]
  const set = pairs.map(
    ([key, own]) => `--set ${key}=${own === value ? '$imageRegistry' : quote(own)}`,
  )
  return { value, set: lines(...set), pairs }
}

/** Sets `$imageRegistry`: the value of the release's first registry key. */
export const setImageRegistry = word('setImageRegistry', (release: Release) =>
  exportVariable('imageRegistry', registryKeys(release).value),
)
