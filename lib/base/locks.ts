import { spawnSync } from 'node:child_process'
import {
  closeSync,
  constants,
  existsSync,
  ftruncateSync,
  openSync,
  readFileSync,
  statSync,
  writeSync,
} from 'node:fs'
import { hostname, userInfo } from 'node:os'
import { join } from 'node:path'
import { cannotWrite, misconfigured, tryLater } from './failure.ts'
import { sha256 } from './hash.ts'

/**
 * Takes the lock of a target for as long as this process, or a command that inherited the
 * descriptor, lives: the lock belongs to the open file (flock(2)), so it outlives a killed script
 * until its helm has ended too.
 * @param target what is locked, for example `release mspider-system/mspider of the cluster <uid>`
 * @param holder what the second comer is told, in this order
 * @returns the open descriptor, to be handed to every command that changes the target
 * @throws Failure 75 when somebody holds it, 73 when the lock file can't be written
 */
export function lock(target: string, holder: Record<string, string>): number {
  const path = join(lockDirectory(), `dce-upgrade-${sha256(target).slice(0, 24)}.lock`)
  let descriptor: number
  try {
    descriptor = openLock(path)
  } catch (error) {
    throw cannotWrite`
      the lock file ${path} cannot be opened: ${(error as Error).message}
      无法打开锁文件 ${path}：${(error as Error).message}`
  }
  const locked = flock(descriptor, '-n', '-E', '75')
  if (locked.status === 75) {
    // it writes its name right after it got the lock; before that the file has the one before it
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500)
    const held = readFileSync(path, 'utf8').trim()
    closeSync(descriptor)
    throw tryLater`
      ${target} is locked by ${held || 'somebody who left no name'}
      ${target} 已被锁定，持有者：${held || '未知'}`.next`
      wait for it; \`fuser -v ${path}\` shows the processes that hold it
      请等待其结束；可用 \`fuser -v ${path}\` 查看持有锁的进程`
  }
  if (locked.status !== 0) {
    throw misconfigured`
      flock (util-linux) is needed: ${locked.error?.message ?? locked.stderr}
      需要 flock（util-linux）：${locked.error?.message ?? locked.stderr}`
  }
  const text = {
    ...holder,
    pid: String(process.pid),
    user: userInfo().username,
    host: hostname(),
    since: new Date().toISOString(),
  }
  ftruncateSync(descriptor)
  writeSync(
    descriptor,
    Object.entries(text)
      .map(([key, value]) => `${key} ${value}`)
      .join(', '),
    0,
  )
  return descriptor
}

/**
 * Works on a file that several scripts write, while no other one does.
 * @param mode `a+` creates it; with `r` it must be there
 * @throws Error where it can't be opened, or stays locked for 10 seconds
 */
export function whileLocked<T>(path: string, mode: 'r' | 'a+', work: (descriptor: number) => T): T {
  const descriptor = openSync(path, mode, 0o600)
  try {
    // the lock ends with the descriptor
    const locked = flock(descriptor, ...(mode === 'r' ? ['-s'] : []), '-w', '10')
    if (locked.status !== 0) throw new Error(locked.error?.message ?? 'it stays locked')
    return work(descriptor)
  } finally {
    closeSync(descriptor)
  }
}

/**
 * Locks an open file with flock(1); the lock stays with the descriptor.
 * @param args `-n -E 75`: at once or not at all · `-w 10`: within so many seconds
 */
export function flock(descriptor: number, ...args: string[]) {
  const options = { stdio: ['ignore', 'ignore', 'pipe', descriptor], encoding: 'utf8' } as const
  for (let tries = 1; ; tries++) {
    const ended = spawnSync('flock', [...args, '3'], { ...options, stdio: [...options.stdio] })
    // Ctrl-C reaches it too, as it is in the terminal's process group; the script's own end is orderly
    if (!ended.signal || tries === 5) return ended
  }
}

/**
 * One place for every user of this machine: the same target has the same lock. /run/lock is open to
 * all on Debian; where it is root's own, even root uses /tmp.
 */
function lockDirectory(): string {
  const isOpenToAll = existsSync('/run/lock') && (statSync('/run/lock').mode & 0o1777) === 0o1777
  return isOpenToAll ? '/run/lock' : '/tmp'
}

/** Not through a link that somebody laid, and open to other users: they must be able to lock too. */
function openLock(path: string): number {
  const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants
  try {
    return openSync(path, O_RDWR | O_NOFOLLOW)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  const before = process.umask(0)
  try {
    return openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o666)
  } finally {
    process.umask(before)
  }
}
