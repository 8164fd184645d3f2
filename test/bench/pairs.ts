// Measurements in pairs: two ways to the same end, in turn, so that whatever else the machine does
// meets both.

import { spawn } from 'node:child_process'
import { cpus, loadavg } from 'node:os'
import { dirname } from 'node:path'
import { ending } from '../lab/processes.ts'

/** The checkout. */
export const root = dirname(dirname(import.meta.dirname))
export const zx = `${root}/node_modules/.bin/zx`

/** After this many seconds a program is ended: TERM, and KILL when a script's own grace is over. */
const LIMIT = 300
const GRACE = 40

/** A line of the table: what was measured, in each round, and its unit. */
export interface Row {
  label: string
  values: number[]
  unit: string
}

/** The environment of a terminal: without what npm adds to it for its scripts. */
export function terminalEnv(): NodeJS.ProcessEnv {
  const { NODE_OPTIONS: _, NODE: __, INIT_CWD: ___, ...env } = process.env
  return Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith('npm_')))
}

/** The same, as npx gives it to a script: the project's own Node first. */
export const scriptEnv = () => ({
  ...terminalEnv(),
  PATH: `${root}/node_modules/.bin:${process.env['PATH']}`,
})

/**
 * Runs a program to its end, without a terminal and without standard input.
 * @returns its stdout, and the seconds from its start until it and its output had ended
 * @throws Error when it fails, is not over in time, or this process is told to end
 */
export function timed(
  [program, ...args]: string[],
  { cwd, env }: { cwd: string; env: NodeJS.ProcessEnv },
): Promise<{ stdout: string; seconds: number }> {
  ending.signal.throwIfAborted()
  const late = AbortSignal.timeout(LIMIT * 1000)
  const stop = AbortSignal.any([ending.signal, late])
  return new Promise((resolve, reject) => {
    const begun = performance.now()
    const stdio = ['ignore', 'pipe', 'pipe'] as const
    const child = spawn(program!, args, { cwd, env, stdio: [...stdio], detached: true })
    const kill = (signal: NodeJS.Signals) => {
      try {
        // with it the commands of a bash script
        process.kill(-child.pid!, signal)
      } catch {
        // it has just ended by itself
      }
    }
    stop.onabort = () => {
      kill('SIGTERM')
      setTimeout(kill, GRACE * 1000, 'SIGKILL').unref()
    }
    let stdout = ''
    let output = ''
    child.stdout!.on('data', (data) => ((stdout += data), (output += data)))
    child.stderr!.on('data', (data) => (output += data))
    child.on('error', reject)
    child.on('close', (exitCode, signal) => {
      const seconds = (performance.now() - begun) / 1000
      stop.onabort = null
      const command = [program, ...args].join(' ')
      if (ending.signal.aborted) reject(ending.signal.reason)
      else if (late.aborted) reject(new Error(`${command} did not end within ${LIMIT} s`))
      else if (exitCode !== 0)
        reject(new Error(`${command} ended with ${exitCode ?? signal}:\n${output.slice(-3000)}`))
      else resolve({ stdout, seconds })
    })
  })
}

/**
 * Goes both ways in each round; which one is first alternates. One round goes ahead and is not
 * counted: caches fill, images come to the nodes.
 * @param compare looks at what both have returned
 * @returns what both have returned, round by round
 */
export async function inPairs<A, B>(
  rounds: number,
  {
    one,
    other,
    compare,
  }: {
    one: (round: number) => Promise<A>
    other: (round: number) => Promise<B>
    compare?: (a: A, b: B) => void
  },
): Promise<[A, B][]> {
  const pairs: [A, B][] = []
  for (let round = 0; round <= rounds; round++) {
    const early = round % 2 === 1 ? await one(round) : undefined
    const b = await other(round)
    const a = early ?? (await one(round))
    compare?.(a, b)
    if (round > 0) pairs.push([a, b])
  }
  return pairs
}

/** The one in the middle, or the mean of the two there. */
export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** A line of the table, of one value of each round. */
export function row<T>(label: string, rounds: T[], value: (round: T) => number, unit = 's'): Row {
  return { label, values: rounds.map(value), unit }
}

/** The rows with median, least and greatest value. */
export function table(rows: Row[]): string {
  const width = Math.max(...rows.map(({ label }) => label.length))
  const line = (label: string, middle: string, unit: string, range: string) =>
    `${label.padEnd(width)} ${middle.padStart(8)} ${unit.padEnd(2)} ${range.padStart(15)}`
  const lines = rows.map(({ label, values, unit }) => {
    const [middle, least, most] = [median(values), Math.min(...values), Math.max(...values)]
    const range = `${least.toFixed(2)} – ${most.toFixed(2)}`
    return line(label, middle.toFixed(2), unit, range)
  })
  return [line('', 'median', '', 'min – max'), ...lines].join('\n')
}

/** The machine that the numbers are of, and what else is at work on it. */
export function machine(): string {
  const processors = cpus()
  const cores = `${processors.length} cores (${processors[0]!.model.trim()})`
  return `${cores}, load ${loadavg()[0]!.toFixed(1)}, node ${process.version}`
}
