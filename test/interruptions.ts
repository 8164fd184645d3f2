import { spawn } from 'node:child_process'
import { createHash, randomUUID } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, onTestFinished, vi } from 'vitest'
import { lab, byHand, runInLab } from './lab-site.ts'
import { startProcess, stopProcess } from './lab/lab.ts'
import { ROOT, scriptEnv, type Result } from './run-script.ts'

/** What can happen to a run. */
const KINDS = [
  'TERM to npx',
  'TERM to the script',
  'KILL to the script',
  'KILL to helm',
  'the API server stopped',
] as const
export type Interruption = (typeof KINDS)[number]

/** SEED=n repeats the moments of a run; KILLS=n makes it shorter while one works on the tests. */
const seed = Number(process.env['SEED'] ?? 20261121)
const kills = Number(process.env['KILLS'] ?? 40)

/**
 * Interruptions at random moments, each kind as often as the others.
 * @returns number, kind, and the moment as a part of the time that an undisturbed run takes
 */
export function randomInterruptions(): [string, Interruption, number][] {
  const perMille = fc.noBias(fc.integer({ min: 0, max: 999 }))
  return fc
    .sample(perMille, { seed, numRuns: kills })
    .map((moment, index) => [
      `${index + 1} of ${kills}, SEED=${seed}`,
      KINDS[index % KINDS.length]!,
      moment / 1000,
    ])
}

interface Found {
  pid: number
  name: string
  command: string
}

/** The processes that were started with this environment variable; those that only wait to be reaped are gone. */
export function processesOf(mark: string): Found[] {
  const found: Found[] = []
  for (const pid of readdirSync('/proc').map(Number).filter(Boolean)) {
    try {
      if (!readFileSync(`/proc/${pid}/environ`, 'latin1').includes(mark)) continue
      if (/^\d+ \(.*\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'))) continue
      const name = readFileSync(`/proc/${pid}/comm`, 'utf8').trim()
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim()
      found.push({ pid, name, command })
    } catch {
      // it has just ended
    }
  }
  return found
}

const sleep = (milliseconds: number) => new Promise((done) => setTimeout(done, milliseconds))

/**
 * Starts a script with npx and interrupts it; returns when all of it has ended, what outlives the
 * script too. Nothing may outlive it but the command that was at work when it was killed with KILL.
 * @param duration of an undisturbed run, in seconds
 */
export async function interrupt(
  script: string,
  args: string[],
  kind: Interruption,
  moment: number,
  duration: number,
): Promise<Result> {
  const mark = `INTERRUPTED_RUN=${randomUUID()}`
  const { NODE_OPTIONS: _, ...env } = scriptEnv({ ...lab.env, INTERRUPTED_RUN: mark.split('=')[1] })
  const kill = (pid: number | undefined, signal: NodeJS.Signals) => {
    try {
      if (pid) process.kill(pid, signal)
    } catch {
      // it has ended by itself in this very moment
    }
  }
  const npx = spawn('npx', ['zx', `scripts/${script}.mts`, ...args], {
    cwd: ROOT,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  onTestFinished(async () => {
    processesOf(mark).forEach(({ pid }) => kill(pid, 'SIGKILL'))
    await startProcess(lab, 'apiserver')
  })
  const result: Result = { exitCode: null, stdout: '', stderr: '', output: '' }
  npx.stdout.on('data', (data) => ((result.stdout += data), (result.output += data)))
  npx.stderr.on('data', (data) => ((result.stderr += data), (result.output += data)))
  let isOver = false
  const over = new Promise<void>((done) =>
    npx.once('close', (code) => {
      result.exitCode = code
      isOver = true
      done()
    }),
  )
  const find = (is: (found: Found) => boolean) => processesOf(mark).find(is)?.pid
  const scriptIsThere = ({ command }: Found) => /\.bin\/zx scripts\//.test(command)
  /** Waits for a process; undefined where the script ended without it. */
  const waitFor = async (is: (found: Found) => boolean) => {
    for (;;) {
      const pid = find(is)
      if (pid || isOver) return pid
      await sleep(5)
    }
  }
  const scriptPid = await waitFor(scriptIsThere)
  await Promise.race([sleep(moment * duration * 1000), over])
  if (kind === 'TERM to npx') kill(npx.pid, 'SIGTERM')
  if (kind === 'TERM to the script') kill(scriptPid, 'SIGTERM')
  if (kind === 'KILL to the script') kill(scriptPid, 'SIGKILL')
  if (kind === 'KILL to helm') kill(await waitFor(({ name }) => name === 'helm'), 'SIGKILL')
  if (kind === 'the API server stopped') await stopProcess(lab, 'apiserver', { atOnce: true })

  await vi.waitFor(() => expect(find(scriptIsThere), result.output).toBeUndefined(), {
    timeout: 100_000,
    interval: 20,
  })
  if (kind !== 'KILL to the script') {
    // the script waited for its commands; npx and its shell end by themselves a moment later
    const orphans = processesOf(mark).filter(({ name }) => /^(helm|kubectl|bash|tar)$/.test(name))
    expect(orphans, result.output).toEqual([])
  }
  await vi.waitFor(() => expect(processesOf(mark), result.output).toEqual([]), {
    timeout: 60_000,
    interval: 50,
  })
  await over
  if (kind === 'the API server stopped') {
    await startProcess(lab, 'apiserver')
    const ready = ['wait', '--for=condition=Ready', 'node', '--all', '--timeout=60s']
    await vi.waitFor(() => byHand('kubectl', ...ready), { timeout: 120_000 })
  }
  return result
}

/**
 * A plain re-run ends well, or after the one command that the script prints.
 * @returns how many commands a person had to run
 */
export async function runAgain(script: string, args: string[]): Promise<number> {
  const again = await runInLab(script, args)
  if (again.exitCode === 0) return 0
  expect(again.exitCode, again.output).toBe(75)
  const cures = again.output.match(/^ +helm rollback .*/gm) ?? []
  expect(cures, again.output).toHaveLength(1)
  await byHand('bash', '-c', cures[0]!)
  const last = await runInLab(script, args)
  expect(last.exitCode, last.output).toBe(0)
  return 1
}

/** The files of a directory, by name, but those that are being written; none where it is not there yet. */
export function filesIn(directory: string): Record<string, string> {
  try {
    return Object.fromEntries(
      readdirSync(directory)
        .filter((name) => !name.endsWith('.new'))
        .map((name) => [name, readFileSync(join(directory, name), 'utf8')]),
    )
  } catch {
    return {}
  }
}

/** All that was there is there, unchanged. */
export function isKept(before: Record<string, string>, after: Record<string, string>) {
  for (const [name, text] of Object.entries(before)) expect(after[name] === text, name).toBe(true)
}

/** Each record of the audit carries the hash of the one before; a run that was killed has no end. */
export function chainHolds(state: string, module: string) {
  const lines = readFileSync(join(state, module, 'audit.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
  lines.forEach((line, index) => {
    const before = index === 0 ? '' : lines[index - 1]!
    expect(JSON.parse(line).prev).toBe(createHash('sha256').update(before).digest('hex'))
  })
}

/** No half-written file is left. */
export function nothingIsLeft(state: string, module: string) {
  const inState = readdirSync(join(state, module), { recursive: true }).map(String)
  expect(inState.filter((name) => name.endsWith('.new'))).toEqual([])
}
