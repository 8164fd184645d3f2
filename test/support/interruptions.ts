import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, onTestFinished, vi } from 'vitest'
import { describeRun, runsOf } from '../../lib/audit/show.ts'
import { readTrail } from '../../lib/audit/verify.ts'
import { auditOf, byHand, lab, printedCommands, runInLab } from './lab-site.ts'
import { startProcess, stopProcess } from '../lab/lab.ts'
import { ROOT, scriptEnv, type Result } from './run-script.ts'

/** What can happen to a run; "the command" is the helm or kubectl that is at work. */
const KINDS = [
  'TERM to npx',
  'TERM to the script',
  'KILL to the script',
  'KILL to the command',
  'the API server stopped',
] as const

/** An interruption of a run. */
export interface Interruption {
  kind: (typeof KINDS)[number]
  /** while the command is at work that changes something; else at any time of the run */
  inChange: boolean
  /** the moment, as a part of the time that the command, or the run, takes undisturbed: 0 to 1 */
  moment: number
}

/** A run that nobody disturbs. */
export interface Undisturbed {
  seconds: number
  /** the command that changes something, as it stands in /proc: `helm upgrade …` */
  change: RegExp
  /** what it takes of the seconds */
  changeSeconds: number
  /** the part of it that changes something, the rest is its start: 0 to 1 */
  changing: [from: number, to: number]
}

/** SEED=n repeats the moments of a run; KILLS=n makes it shorter while one works on the tests. */
const seed = Number(process.env['SEED'] ?? 20261121)
const kills = Number(process.env['KILLS'] ?? 40)

/**
 * Interruptions at random moments, each kind as often as the others, half of them in the change.
 * @returns what a test's title says, and the interruption
 */
export function randomInterruptions(): [string, Interruption][] {
  const perMille = fc.noBias(fc.integer({ min: 0, max: 999 }))
  return fc.sample(perMille, { seed, numRuns: kills }).map((perMille, index) => {
    const kind = KINDS[index % KINDS.length]!
    const inChange = Math.floor(index / KINDS.length) % 2 === 0
    const moment = perMille / 1000
    const when = `at ${moment.toFixed(3)} of the ${inChange ? 'change' : 'run'}`
    const title = `${index + 1} of ${kills}, SEED=${seed}: ${kind}, ${when}`
    return [title, { kind, inChange, moment }]
  })
}

/** What was at work when each interruption came, and how many commands a person had to run then. */
const seen: { kind: string; atWork: string; isInChange: boolean; cures: number }[] = []

/** The interruptions came where it matters: a suite that hits nothing proves nothing. */
export function hitTheChange() {
  console.log(seen.map((each) => Object.values(each).join(' · ')).join('\n'))
  const hits = seen.filter(({ isInChange }) => isInChange)
  // half of them aim at it; how many meet it depends on how busy the machine is
  if (kills >= 40)
    expect(hits.length, 'interruptions of the change').toBeGreaterThanOrEqual(kills / 8)
}

/** Runs a script without disturbing it. */
export async function undisturbed(
  script: string,
  args: string[],
  audited: { state: string; module: string },
  change: RegExp,
  changing: [from: number, to: number],
): Promise<Undisturbed> {
  const begun = Date.now()
  const result = await runInLab(script, args)
  expect(result.exitCode, result.output).toBe(0)
  const seconds = (Date.now() - begun) / 1000
  const ended = auditOf(audited.state, audited.module).findLast(
    ({ event, command }) => event === 'ended' && change.test(command),
  )
  return { seconds, change, changeSeconds: ended.seconds, changing }
}

interface Found {
  pid: number
  name: string
  command: string
}

/** A process; undefined where it has ended, also if it only waits to be reaped. */
function processAt(pid: number): Found | undefined {
  try {
    if (/^\d+ \(.*\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'))) return undefined
    const name = readFileSync(`/proc/${pid}/comm`, 'utf8').trim()
    const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim()
    return { pid, name, command }
  } catch {
    return undefined
  }
}

/** The processes that were started with this environment variable. */
export function processesOf(mark: string): Found[] {
  const isOurs = (pid: number) => {
    try {
      return readFileSync(`/proc/${pid}/environ`, 'latin1').includes(mark)
    } catch {
      return false
    }
  }
  const pids = readdirSync('/proc').map(Number).filter(Boolean).filter(isOurs)
  return pids.map(processAt).filter((found) => found !== undefined)
}

/** The processes below one: found faster than by an environment, but without those it left behind. */
function descendants(pid: number): Found[] {
  let children: number[] = []
  try {
    children = readdirSync(`/proc/${pid}/task`).flatMap((thread) =>
      readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8').split(' ').map(Number),
    )
  } catch {
    // it has just ended
  }
  return children
    .filter(Boolean)
    .flatMap((child) => [processAt(child), ...descendants(child)])
    .filter((found) => found !== undefined)
}

const sleep = (milliseconds: number) => new Promise((done) => setTimeout(done, milliseconds))

/**
 * Starts a script with npx and interrupts it; returns when all of it has ended, what outlives the
 * script too. Nothing may outlive it but the command that was at work when it was killed with KILL.
 * The exit code is the one of the audit, and of the interruption.
 */
export async function interrupt(
  script: string,
  args: string[],
  { kind, inChange, moment }: Interruption,
  { seconds, change, changeSeconds, changing }: Undisturbed,
  audited: { state: string; module: string },
): Promise<Result> {
  const mark = `INTERRUPTED_RUN=${randomUUID()}`
  const env = scriptEnv({ ...lab.env, INTERRUPTED_RUN: mark.split('=')[1] })
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
      const found = descendants(npx.pid!).find(is)
      if (found || isOver) return found
      await sleep(1)
    }
  }
  const isCommand = ({ name }: Found) => name === 'helm' || name === 'kubectl'
  const isChange = (found: Found) => isCommand(found) && change.test(found.command)
  const scriptPid = (await waitFor(scriptIsThere))?.pid
  if (inChange) await waitFor(isChange)
  // in the part of the command that changes something
  const [from, to] = changing
  const when = inChange ? (from + moment * (to - from)) * changeSeconds : moment * seconds
  await Promise.race([sleep(when * 1000), over])
  if (kind === 'KILL to the command') await waitFor(isCommand)
  const atWork = descendants(npx.pid!).filter(isCommand)
  const hit = atWork.find(isChange) ?? atWork[0]
  if (kind === 'TERM to npx') kill(npx.pid, 'SIGTERM')
  if (kind === 'TERM to the script') kill(scriptPid, 'SIGTERM')
  if (kind === 'KILL to the script') kill(scriptPid, 'SIGKILL')
  if (kind === 'KILL to the command') kill(hit?.pid, 'SIGKILL')
  if (kind === 'the API server stopped') await stopProcess(lab, 'apiserver', { atOnce: true })
  const isInChange = hit !== undefined && isChange(hit)
  const said = hit?.command.split(' ').slice(0, 3).join(' ') ?? 'no command'
  seen.push({ kind, atWork: said, isInChange, cures: 0 })

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
    await clientsAreBack()
  }
  const records = auditOf(audited.state, audited.module)
  const end = records.find(({ run, event }) => run.endsWith(`-${scriptPid}`) && event === 'end')
  const possible: Record<Interruption['kind'], unknown[]> = {
    'TERM to npx': [undefined, 0, 129],
    'TERM to the script': [undefined, 0, 143],
    'KILL to the script': [undefined, 0],
    'KILL to the command': isInChange ? [1] : [0, 1],
    'the API server stopped': [0, 1, 69],
  }
  expect(possible[kind], `${said}\n${result.output}`).toContain(end?.exitCode)
  const isTold = end && kind !== 'TERM to npx' // npx ends before the script, with a code of its own
  if (isTold) expect(result.exitCode, result.output).toBe(end.exitCode)
  if (end?.exitCode === 0) expect(result.stdout).toContain('DONE · 完成')
  return result
}

/**
 * What has asked for the API server in vain asks again after up to a minute (client-go's reflectors
 * double the pause); started anew, the lab's clients ask at once.
 */
async function clientsAreBack() {
  const clients = Object.keys(lab.processes).filter((name) =>
    /^(kubelet|controller-manager|scheduler)/.test(name),
  )
  for (const name of clients) {
    await stopProcess(lab, name, { atOnce: true })
    await startProcess(lab, name)
  }
  const ready = ['wait', '--for=condition=Ready', 'node', '--all', '--timeout=60s']
  await vi.waitFor(() => byHand('kubectl', ...ready), { timeout: 120_000 })
}

/** A plain re-run ends well, or after the one command that the script prints. */
export async function runAgain(script: string, args: string[]) {
  const again = await runInLab(script, args)
  if (again.exitCode === 0) return
  expect(again.exitCode, again.output).toBe(75)
  const cures = printedCommands(again.output)
  expect(cures, again.output).toHaveLength(1)
  await byHand('bash', '-c', cures[0]!)
  const interruption = seen.at(-1)
  if (interruption) interruption.cures++
  const last = await runInLab(script, args)
  expect(last.exitCode, last.output).toBe(0)
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

/** The audit is as it was written; a run that was killed is in it, as one without an end. */
export function chainHolds(state: string, module: string) {
  const { records, tampered } = readTrail(readFileSync(join(state, module, 'audit.jsonl')))
  expect(tampered).toBeUndefined()
  for (const run of runsOf(records)) {
    const text = describeRun(run, 'en')
    if (run.end) expect(text).toMatch(/done \(exit 0\)|FAILED \(exit \d+\)/)
    else expect(text).toContain('UNFINISHED: it was killed, or is at work')
  }
}

/** No half-written file is left. */
export function nothingIsLeft(state: string, module: string) {
  const inState = readdirSync(join(state, module), { recursive: true }).map(String)
  expect(inState.filter((name) => name.endsWith('.new'))).toEqual([])
}
