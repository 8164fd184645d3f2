// Measurements in pairs: two ways to the same end, in turn, so that whatever else the machine does
// meets both.

import { spawn } from 'node:child_process'
import { cpus } from 'node:os'
import { ending } from '../lab/processes.ts'

/** After this many seconds a program is ended: TERM, and KILL when a script's own grace is over. */
const LIMIT = 300
const GRACE = 40

/** A line of the table: what was measured, and its value in each round. */
export interface Row {
  label: string
  values: number[]
  /** s where none is given */
  unit?: string
}

/** The environment of a terminal: without what npm adds to it for its scripts. */
export function terminalEnv(): NodeJS.ProcessEnv {
  const { NODE_OPTIONS: _, NODE: __, INIT_CWD: ___, ...env } = process.env
  return Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith('npm_')))
}

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
 * Goes both ways in each round; which one is first alternates. One round more goes ahead and is not
 * counted: caches fill, images come to the nodes.
 * @returns what both have returned, round by round
 */
export async function inPairs<A, B>(
  rounds: number,
  one: () => Promise<A>,
  other: () => Promise<B>,
  afterRound: (a: A, b: B) => void = () => {},
): Promise<[A, B][]> {
  const pairs: [A, B][] = []
  for (let round = 0; round <= rounds; round++) {
    const early = round % 2 === 0 ? await one() : undefined
    const b = await other()
    const a = early ?? (await one())
    afterRound(a, b)
    pairs.push([a, b])
  }
  return pairs.slice(1)
}

/** The one in the middle, or the mean of the two there. */
export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** The rows with median, least and greatest, as text for a terminal. */
export function table(rows: Row[]): string {
  const width = Math.max(...rows.map(({ label }) => label.length))
  const lines = rows.map(({ label, values, unit = 's' }) => {
    const number = (value: number) => value.toFixed(2)
    const range = `${number(Math.min(...values))} – ${number(Math.max(...values))}`
    const middle = number(median(values)).padStart(8)
    return `${label.padEnd(width)}${middle} ${unit.padEnd(3)}${range.padStart(15)}`
  })
  const head = `${''.padEnd(width)}${'median'.padStart(8)}${'min – max'.padStart(19)}`
  return [head, ...lines].join('\n')
}

/** The machine that the numbers are of. */
export function machine(...tools: string[]): string {
  const processors = cpus()
  const cores = `${processors.length} cores (${processors[0]!.model.trim()})`
  return [cores, `node ${process.version}`, ...tools].join(', ')
}
