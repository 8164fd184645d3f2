import { appendFileSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { temporaryDirectory } from '../support/run-script.ts'
import { judge, type Verdict } from './judge.ts'
import { type Mutant, watched } from './mutants.ts'
import {
  type Before,
  type Copy,
  dryRun,
  inCopies,
  keep,
  nameOf,
  realRun,
  type Seen,
  standInRegistry,
  withScripts,
} from './runs.ts'
import { type Way, WAYS } from './ways.ts'

/** Which statements of a script each way takes, as a dry run. */
export async function takenBy(
  copies: Copy[],
  script: string,
): Promise<{ takes: (way: Way, mutant: Mutant) => boolean; never: string[] }> {
  const { text, places } = watched(script)
  const directory = temporaryDirectory()
  const taken = new Map<Way, Set<string>>()
  await inCopies(copies, WAYS[script]!, async (copy, way) => {
    const file = join(directory, String(WAYS[script]!.indexOf(way)))
    const seen = await withScripts(copy, { [script]: text }, () =>
      dryRun(copy, way, { TAKEN: file }),
    )
    expect(seen.exitCode, `${way.name}\n${seen.output}`).toBe(0)
    taken.set(way, new Set(readFileSync(file, 'utf8').split('\n')))
  })
  const isTaken = (at: number) => [...taken.values()].some((each) => each.has(`${script}:${at}`))
  return {
    takes: (way, { at }) => at.some((each) => taken.get(way)!.has(`${script}:${each}`)),
    never: [...places].filter(([at]) => !isTaken(at)).map(([, place]) => place),
  }
}

/** How mutants were judged: how many by kind and verdict, and those that were judged wrong. */
export interface Outcome {
  counts: Record<string, number>
  wrong: string[]
}

/**
 * Runs each mutant of a script, in every way that takes its lines, and judges it.
 * @param withTools also as real runs, with the stand-ins for tools
 */
export async function check(
  copies: Copy[],
  script: string,
  mutants: Mutant[],
  takes: (way: Way, mutant: Mutant) => boolean,
  withTools: boolean,
): Promise<Outcome> {
  const outcome: Outcome = { counts: {}, wrong: [] }
  const wrong = (text: string) => {
    outcome.wrong.push(text)
    if (process.env['LOG']) appendFileSync(process.env['LOG'], text + '\n')
  }
  const registry = await standInRegistry()
  const left = temporaryDirectory()
  const leftOf = (way: Way) => join(left, String(WAYS[script]!.indexOf(way)))
  const originals = new Map<string, Seen>()
  await inCopies(copies, WAYS[script]!, async (copy, way) => {
    originals.set(`${way.name} dry`, await dryRun(copy, way))
    if (!withTools || !way.isReal) return
    for (const before of befores(script)) {
      originals.set(
        `${way.name} ${before}`,
        await realRun(copy, way, before, registry, leftOf(way)),
      )
      if (before === 'old') keep(copy, leftOf(way))
    }
    const old = originals.get(`${way.name} old`)!
    expect(old.exitCode, `${way.name}\n${old.output}`).toBe(0)
    expect(old.output).toContain('DONE')
    expect(originals.get(`${way.name} upgraded`)!.log).not.toContainEqual(/^CHANGED: revision/)
  })

  await inCopies(copies, mutants, async (copy, mutant) => {
    const verdicts: Verdict[] = []
    const see = (way: Way, how: string, seen: Seen) => {
      const verdict = judge(mutant, seen, originals.get(`${way.name} ${how}`)!)
      verdicts.push(verdict)
      if (
        typeof verdict === 'object' &&
        !verdicts.slice(0, -1).some((each) => typeof each === 'object')
      )
        wrong(
          `${nameOf(mutant)}\n  ${way.name}, ${how}: ${verdict.wrong}\n${seen.output.trim().split('\n').slice(-9).join('\n').replace(/^/gm, '    | ')}`,
        )
      return verdict
    }
    await withScripts(copy, { [script]: mutant.text }, async () => {
      let hasRun = false
      for (const way of WAYS[script]!.filter((each) => takes(each, mutant))) {
        const dry = see(way, 'dry', await dryRun(copy, way))
        if (!withTools || !way.isReal || (dry !== 'same' && hasRun)) continue
        hasRun = true
        for (const before of befores(script)) {
          const real = see(way, before, await realRun(copy, way, before, registry, leftOf(way)))
          if (real === 'refused' && dry === 'same')
            wrong(`${nameOf(mutant)}\n  ${way.name}: refused, but not in a dry run`)
          if (real !== 'same') break
        }
      }
    })
    const verdict =
      (['refused', 'told', 'same'] as const).find((each) => verdicts.includes(each)) ?? 'not taken'
    const kind = `${mutant.kind}: ${verdicts.some((each) => typeof each === 'object') ? 'WRONG' : verdict}`
    outcome.counts[kind] = (outcome.counts[kind] ?? 0) + 1
  })
  return outcome
}

const befores = (script: string): Before[] =>
  script === 'upgrade' ? ['old', 'upgraded', 'no images'] : ['old', 'upgraded']
