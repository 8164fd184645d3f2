import { execFile, spawn } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  openSync,
  closeSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs'
import { connect, createServer } from 'node:net'
import { constants } from 'node:os'
import { rmdir } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** How a process of the lab is started, and started again. */
export interface Recipe {
  command: string[]
  log: string
  environment?: Record<string, string>
  /** pid of a process whose mount namespace it shares */
  namespaceOf?: number
  /** it is up when something listens on this port of 127.0.0.1 … */
  port?: number
  /** … or when this command succeeds */
  probe?: string[]
}

export interface Process extends Recipe {
  pid: number
  /** clock ticks from boot to its start: tells it from a later process with the same pid */
  startTime: string
}

/** Start time of a live process; undefined for a dead or an unreaped one. */
export function startTimeOf(pid: number): string | undefined {
  const stat = readIfThere(`/proc/${pid}/stat`)
  // the name, in parentheses, may hold blanks; field 3 comes after it
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return fields[0] === 'Z' ? undefined : fields[19]
}

export const isAlive = (process: { pid: number; startTime: string }) =>
  startTimeOf(process.pid) === process.startTime

/**
 * Starts a process in a session of its own, as a member of the lab's cgroup, and waits until it is
 * up. The cgroup is inherited, so whatever the process leaves behind can be found and ended.
 */
export async function start(recipe: Recipe, cgroup: string): Promise<Process> {
  const log = openSync(recipe.log, 'a')
  const join = ['sh', '-c', 'echo $$ > "$0" && exec "$@"', `${cgroup}/cgroup.procs`]
  const enter = recipe.namespaceOf
    ? ['nsenter', '--mount', '--wdns=/', `--target=${recipe.namespaceOf}`, '--']
    : []
  const [file, ...args] = [...join, ...enter, ...recipe.command] as [string, ...string[]]
  const child = spawn(file, args, {
    detached: true,
    stdio: ['ignore', log, log],
    env: { ...process.env, ...recipe.environment },
  })
  closeSync(log)
  child.unref()
  const pid = child.pid
  const startTime = pid && startTimeOf(pid)
  if (!pid || !startTime) throw new Error(`${recipe.command[0]} did not start; see ${recipe.log}`)
  const started: Process = { ...recipe, pid, startTime }
  await until(`${recipe.command[0]} to be up`, async () => {
    if (!isAlive(started)) {
      const said = readFileSync(recipe.log, 'utf8').split('\n').slice(-15).join('\n')
      throw new Error(`${recipe.command.join(' ')} ended:\n${said}`)
    }
    return isUp(recipe)
  })
  return started
}

async function isUp({ port, probe }: Recipe): Promise<boolean> {
  if (probe) return succeeds(probe[0]!, probe.slice(1))
  return port === undefined || accepts(port)
}

export const succeeds = (file: string, args: string[]): Promise<boolean> =>
  run(file, args).then(
    () => true,
    () => false,
  )

const accepts = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.on('connect', () => (socket.destroy(), resolve(true)))
    socket.on('error', () => resolve(false))
  })

/** Ends one process: TERM, and KILL after five seconds; or KILL at once. */
export async function end(ended: Process, { atOnce = false } = {}): Promise<void> {
  for (const signal of atOnce ? (['SIGKILL'] as const) : (['SIGTERM', 'SIGKILL'] as const)) {
    for (let tries = 0; tries < 50; tries++) {
      if (!isAlive(ended)) return
      if (tries === 0) process.kill(ended.pid, signal)
      await sleep(100)
    }
  }
  throw new Error(`process ${ended.pid} (${ended.command[0]}) cannot be ended`)
}

/** Tells builds and waits that this process was told to end, so that it can clean up first. */
export const ending = new AbortController()

/** INT, TERM and HUP end builds and waits, and with them whatever was begun; a second one kills. */
export function endOnSignals() {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      process.exitCode = 128 + constants.signals[signal]
      ending.abort(new Error(`ended by ${signal}`))
    })
  }
}

/** Waits for a condition; an error that it throws, or the end of this process, ends the wait. */
export async function until(
  what: string,
  holds: () => Promise<boolean>,
  { seconds = 60, isCleaning = false } = {},
) {
  const end = Date.now() + seconds * 1000
  while (!(await holds())) {
    if (!isCleaning) ending.signal.throwIfAborted()
    if (Date.now() > end) throw new Error(`waited ${seconds} s for ${what}`)
    await sleep(100)
  }
}

/**
 * Free TCP ports of 127.0.0.1. They lie below the range that the kernel hands to outgoing
 * connections, so that a server that is stopped finds its port free when it starts again.
 */
export async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>()
  while (ports.size < count) {
    const port = 20000 + Math.floor(Math.random() * 12000)
    if (await isFree(port)) ports.add(port)
  }
  return [...ports]
}

/** Whether a server could listen on this port of 127.0.0.1. */
export const isFree = (port: number) =>
  new Promise<boolean>((resolve) => {
    const server = createServer()
    server.on('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })

const root = '/sys/fs/cgroup'
const isV2 = existsSync(`${root}/cgroup.controllers`)
const hierarchies = () => (isV2 ? [root] : readdirSync(root).map((name) => `${root}/${name}`))

/** Where membership is read: with cgroups v1, in one of the hierarchies that containers are in. */
const counting = isV2 ? root : `${root}/pids`

/**
 * Makes a cgroup of several parts and returns the first, for the lab's own processes. The others
 * are its nodes': the kubelet wants them to exist in every hierarchy.
 */
export function makeCgroup(name: string, parts: string[]): string {
  for (const hierarchy of hierarchies()) {
    for (const part of parts) mkdirSync(`${hierarchy}/${name}/${part}`, { recursive: true })
  }
  for (const parent of isV2 ? [root, `${root}/${name}`] : []) {
    // with cgroups v2 a parent says which controllers its children have
    writeFileSync(`${parent}/cgroup.subtree_control`, '+cpu +cpuset +memory +pids')
  }
  return `${counting}/${name}/${parts[0]}`
}

/** What cannot be read has gone: pods and processes come and go. */
function readIfThere(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

/** The members of a cgroup and of those below it. */
const members = (name: string): number[] =>
  tree(`${counting}/${name}`)
    .flatMap((directory) => readIfThere(`${directory}/cgroup.procs`).split('\n'))
    .filter(Boolean)
    .map(Number)

/** The processes that see something mounted from below the directory: a node's, a pod's. */
const inhabitants = (directory: string): number[] =>
  readdirSync('/proc')
    .filter((pid) => readIfThere(`/proc/${pid}/mountinfo`).includes(`${directory}/`))
    .map(Number)
    .filter(Boolean) // not /proc/self

/**
 * Kills every member of a cgroup and whatever lives in the directory, again and again until
 * nothing is left, and removes the cgroup.
 */
export async function endAll(name: string, directory: string): Promise<void> {
  await until(
    `the processes of ${name} to end`,
    async () => {
      const left = [...members(name), ...inhabitants(directory)]
      for (const pid of left) {
        try {
          process.kill(pid, 'SIGKILL')
        } catch {
          // it has ended
        }
      }
      return left.length === 0
    },
    { isCleaning: true },
  )
  for (const directory of hierarchies().flatMap((hierarchy) => tree(`${hierarchy}/${name}`))) {
    // a process that was just killed holds its cgroup a little longer
    await until(
      `${directory} to be free`,
      async () => {
        await rmdir(directory).catch(() => {})
        return !existsSync(directory)
      },
      { isCleaning: true },
    )
  }
}

/** A directory and all below it, the deepest first. */
function tree(directory: string): string[] {
  try {
    const below = readdirSync(directory, { withFileTypes: true }).filter((e) => e.isDirectory())
    return [...below.flatMap((entry) => tree(`${directory}/${entry.name}`)), directory]
  } catch {
    return []
  }
}

/**
 * Runs something while no other process on this machine does. flock's own process ends when its
 * standard input does, so the lock is free as soon as its holder is gone, however it went.
 */
export async function alone<T>(lockFile: string, work: () => Promise<T>): Promise<T> {
  const lock = spawn('flock', [lockFile, 'sh', '-c', 'echo held && cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const held = new Promise<void>((resolve, reject) => {
    lock.stdout.once('data', () => resolve())
    lock.once('error', reject)
    lock.once('exit', () => reject(new Error(`cannot lock ${lockFile}`)))
  })
  await held
  try {
    return await work()
  } finally {
    lock.stdin.end()
  }
}

/** Waits for all, whatever becomes of each; then fails if one of them did. */
export async function together(work: Promise<unknown>[]): Promise<void> {
  await Promise.allSettled(work)
  await Promise.all(work)
}
