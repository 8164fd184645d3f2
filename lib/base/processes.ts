import { closeSync, constants as fs, openSync, readFileSync, readSync, statfsSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { StringDecoder } from 'node:string_decoder'
import { inspect } from 'node:util'
import { $ } from 'zx'
import { cannotWrite, Failure } from './failure.ts'

export interface Ended {
  exitCode: number
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
  seconds: number
  timedOut: boolean
}

interface Options {
  atWork: AtWork
  env: NodeJS.ProcessEnv
  /** the directory it runs in */
  cwd: string
  /** time limit in seconds; then TERM, the grace, KILL */
  limit: number
  /** file descriptors that it inherits as 3, 4, …: the locks it keeps while it lives */
  descriptors?: number[]
  /** gets each piece of output as it comes; the command then also survives this script */
  onOutput?: (text: string, from: 'stdout' | 'stderr') => void
}

/**
 * Seconds between TERM and KILL. helm needs some: on TERM it marks its release failed, on KILL the
 * release stays pending.
 */
const GRACE = 30

type EndSignal = 'SIGINT' | 'SIGTERM' | 'SIGHUP'

/** The commands of a script, and its end. */
export interface AtWork {
  /** the process groups that are at work */
  groups: Set<number>
  /** why the script is ending: a signal to it, or its parent vanished (a hang-up) */
  ending?: { signal: EndSignal; vanishedParent: boolean; whileIdle: boolean }
}

function signalGroups({ groups }: AtWork, signal: NodeJS.Signals) {
  for (const group of groups) {
    try {
      process.kill(-group, signal)
    } catch {
      // it has just ended by itself
    }
  }
}

/**
 * INT, TERM, HUP and a parent that vanished (TERM or HUP to npx ends npx alone) reach the commands
 * at work; the script ends when they have ended. A command gets TERM for HUP: helm handles INT and
 * TERM only (helm 3.19 cmd/helm/upgrade.go), and left pending by a HUP it would block the next upgrade.
 * @param atWork gets the reason why the script ends
 * @param describe adds the state of things to the failure, where no command is at work
 */
export function watchSignals(atWork: AtWork, describe: (failure: Failure) => Promise<Failure>) {
  const end = (signal: EndSignal, vanishedParent = false) => {
    if (!atWork.ending && atWork.groups.size === 0) {
      // nothing is at work, so nothing else would end this script
      atWork.ending = { signal, vanishedParent, whileIdle: true }
      void describe(endingFailure(atWork)!).then(exitWith)
      return
    }
    atWork.ending ??= { signal, vanishedParent, whileIdle: false }
    signalGroups(atWork, signal === 'SIGINT' ? 'SIGINT' : 'SIGTERM')
    setTimeout(() => signalGroups(atWork, 'SIGKILL'), GRACE * 1000).unref()
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => end(signal))
  onVanishedParent(() => {
    if (!atWork.ending) end('SIGHUP', true)
  })
}

/** Tells when the process that started this one is gone; the timer keeps nothing alive. */
export function onVanishedParent(tell: () => void): NodeJS.Timeout {
  const parent = process.ppid
  return setInterval(() => {
    if (process.ppid !== parent) tell()
  }, 300).unref()
}

/** Was npx ended before this script could notice? npx's child then belongs to init. */
export function isOrphanOfNpx(): boolean {
  if (process.env['npm_command'] !== 'exec') return false
  const parent = readFileSync(`/proc/${process.ppid}/comm`, 'utf8').trim()
  const isShellOrNpm = /^(npm|npx|node|pnpm|yarn|bun|sh|bash|dash|ash|zsh|busybox)\b/.test(parent)
  return !isShellOrNpm && (process.ppid === 1 || /^(systemd|init)\b/.test(parent))
}

/**
 * Goes on unless a signal has come while no command was at work: then it never returns, and the
 * handler of the signal ends the script.
 */
export async function unlessEndedWhileIdle({ ending }: AtWork): Promise<void> {
  if (ending?.whileIdle) await new Promise<never>(() => {})
}

/** Ends the script when a signal came while no command was at work. */
function exitWith(failure: Failure) {
  process.stderr.write(inspect(failure))
  process.exit(failure.exitCode)
}

/** The failure with which the script ends after a signal; undefined where none came. */
export function endingFailure({ ending }: AtWork): Failure | undefined {
  if (!ending) return undefined
  const { signal, vanishedParent } = ending
  const number = constants.signals[signal]
  return new Failure(
    128 + number,
    vanishedParent ? 'ended: the process that started this script is gone' : `ended by ${signal}`,
    vanishedParent ? '父进程已退出，脚本随之终止' : `被 ${signal} 终止`,
  )
}

/**
 * Runs shell text with bash in a process group of its own, with stdin from /dev/null, and waits for
 * its end. Never rejects because of what the command did: see `exitCode`.
 */
export async function execute(text: string, options: Options): Promise<Ended> {
  const { atWork, env, cwd, limit, descriptors = [], onOutput } = options
  const outputs = onOutput && { stdout: followed('stdout'), stderr: followed('stderr') }
  const follow = () => {
    for (const each of Object.values(outputs ?? {})) onOutput!(each.more(), each.from)
  }
  // every setting is given, so that no ZX_* variable of the environment changes it
  const shell = $({
    env,
    cwd,
    shell: '/bin/bash',
    prefix: 'set -euo pipefail; ',
    postfix: '',
    nothrow: true,
    quiet: true,
    verbose: false,
    preferLocal: false,
    timeout: undefined,
    killSignal: 'SIGTERM',
    detached: true,
    stdio: [
      'ignore',
      outputs?.stdout.descriptor ?? 'pipe',
      outputs?.stderr.descriptor ?? 'pipe',
      ...descriptors,
    ],
  })
  const start = process.hrtime.bigint()
  const command = shell([text] as unknown as TemplateStringsArray)
  const group = command.pid!
  atWork.groups.add(group)
  let timedOut = false
  const kill = (signal: NodeJS.Signals) => {
    timedOut = true
    try {
      process.kill(-group, signal)
    } catch {
      // it has just ended by itself
    }
  }
  const timers = [
    setTimeout(kill, limit * 1000, 'SIGTERM'),
    setTimeout(kill, (limit + GRACE) * 1000, 'SIGKILL'),
    setInterval(follow, 100),
  ]
  const output = await command
  timers.forEach(clearTimeout)
  atWork.groups.delete(group)
  follow()
  return {
    exitCode: output.exitCode ?? 128 + constants.signals[output.signal ?? 'SIGKILL'],
    signal: output.signal,
    stdout: outputs?.stdout.end() ?? output.stdout,
    stderr: outputs?.stderr.end() ?? output.stderr,
    seconds: Number(process.hrtime.bigint() - start) / 1e9,
    timedOut,
  }
}

/** Linux: a file without a name in this directory, gone with its last descriptor; Node does not name it. */
const O_TMPFILE = 0o20000000 | fs.O_DIRECTORY

/** In memory, or where that is full or missing (containers have 64 MB of it), on the disk. */
function namelessFile(): number {
  const room = 2 ** 20
  const problems: string[] = []
  for (const directory of ['/dev/shm', tmpdir()]) {
    try {
      const { bavail, bsize } = statfsSync(directory)
      if (bavail * bsize < room) throw new Error(`${directory} is full`)
      return openSync(directory, O_TMPFILE | fs.O_RDWR | fs.O_APPEND, 0o600)
    } catch (error) {
      problems.push((error as Error).message)
    }
  }
  const reason = problems.join('; ')
  throw cannotWrite`
    the output of a command has no place: ${reason}
    无法创建存放命令输出的文件：${reason}`
}

/**
 * A file that a command writes its output to, and that is read as it grows. A pipe would break when
 * this script is killed, and helm, which outlives it, would die of that in the middle of an upgrade
 * (Go ends a program that writes to a broken pipe, even where SIGPIPE is ignored).
 */
function followed(from: 'stdout' | 'stderr') {
  const descriptor = namelessFile()
  const decoder = new StringDecoder('utf8')
  const buffer = Buffer.alloc(65536)
  let position = 0
  let text = ''
  return {
    from,
    descriptor,
    /** what was written since the last look */
    more(): string {
      const begin = text.length
      let length: number
      while ((length = readSync(descriptor, buffer, 0, buffer.length, position)) > 0) {
        position += length
        text += decoder.write(buffer.subarray(0, length))
      }
      return text.slice(begin)
    },
    /** all of it; the file is gone */
    end(): string {
      closeSync(descriptor)
      return text + decoder.end()
    },
  }
}
