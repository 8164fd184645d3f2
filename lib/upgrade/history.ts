import { type Release } from '../inputs/types.ts'
import { ask, questionFailed } from '../run/ask.ts'

/** A revision, as `helm history -o json` says it. */
export interface Revision {
  revision: number
  updated: string
  status: string
  /** name and version of the chart: mspider-0.20.1 */
  chart: string
  description: string
}

/** What helm keeps of a release. */
export interface ReleaseState {
  revisions: Revision[]
  last?: Revision
  deployed?: Revision
}

/** All revisions of a release that helm keeps; none when there is no such release. */
export async function history({ release, namespace }: Release): Promise<ReleaseState> {
  const question = `helm history ${release} -n ${namespace} -o json`
  const ended = await ask(question)
  if (ended.exitCode !== 0 && !/release: not found/i.test(ended.stderr))
    throw questionFailed(question, ended)
  const revisions: Revision[] = ended.exitCode === 0 ? JSON.parse(ended.stdout) : []
  return {
    revisions,
    last: revisions.at(-1),
    deployed: lastDeployed(revisions),
  }
}

/**
 * The revision that is deployed; or that was until an upgrade that was cut off at its very end: helm
 * marks the old revision superseded first, and the new one deployed after it; with a KILL in between
 * that one stays pending, with a TERM it is failed (helm 3.22 pkg/action/upgrade.go).
 */
function lastDeployed(revisions: Revision[]): Revision | undefined {
  const newest = (wanted: string) => revisions.findLast(({ status }) => status === wanted)
  const isCutOff = /^(failed|pending-)/.test(revisions.at(-1)?.status ?? '')
  return newest('deployed') ?? (isCutOff ? newest('superseded') : undefined)
}

/** The version in `mspider-0.20.1`. */
export function chartVersion({ chart }: Release, revision: Revision): string {
  return revision.chart.slice(chart.length + 1)
}
