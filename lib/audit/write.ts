import { fstatSync, fsyncSync, readFileSync, readSync, writeSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import { cannotWrite } from '../base/failure.ts'
import { linesOf, sha256 } from '../base/hash.ts'
import { whileLocked } from '../base/locks.ts'

/** One record: what happened, and what belongs to it. */
export type Fact = { event: string } & Record<string, unknown>

/** A record as it is in the file: its fields are those that the scripts gave it. */
export interface AuditRecord {
  seq: number
  time: string
  run: string
  event: string
  prev: string
  torn?: string
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  [field: string]: any
}

/** The audit of a module, as a run writes to it. */
export interface OpenTrail {
  /** the file */
  path: string
  /** the id of the run, which every record carries */
  run: string
  /** the sha256 of the newest record of this run: who knows it can tell that the tail was cut off */
  head: string
  /** what was found and asked since the last record that had to be on the disk */
  pending: Fact[]
}

/**
 * The audit of a module, `audit.jsonl`: one JSON record a line, each with its number (`seq`) and the
 * sha256 of the record before (`prev`), so that a change shows (lib/audit/verify.ts).
 */
export function openTrail(path: string, run: string): OpenTrail {
  return { path, run, head: '', pending: [] }
}

/**
 * Records a question to a tool, which changes nothing: it is written together with the next record,
 * and one that is repeated (are the pods up?) once, with how often and how long in all.
 */
export function noteQuestion(
  trail: OpenTrail,
  command: string,
  variables: Record<string, string>,
  { exitCode, seconds }: { exitCode: number; seconds: number },
) {
  const question = { event: 'question', command, variables, exitCode }
  const same = trail.pending.find(({ time: _, seconds: __, times: ___, ...rest }) =>
    isDeepStrictEqual(rest, question),
  )
  if (!same) return noteFact(trail, { ...question, seconds, times: 1 })
  same['times'] = Number(same['times']) + 1
  same['seconds'] = Number(same['seconds']) + seconds
}

/**
 * Records what was found or written. It is on the disk before the next command runs, and at the end
 * of the script, not at once: that would cost a write to the disk for each.
 */
export function noteFact({ pending }: OpenTrail, fact: Fact) {
  pending.push({ time: new Date().toISOString(), ...fact })
}

/**
 * Appends a record and waits until it is on the disk. Synchronous, so that the last record can be
 * written while the process exits.
 * @throws Failure 73 when it cannot be written: then nothing may run
 */
export function append(trail: OpenTrail, fact: Fact) {
  const { path, run } = trail
  try {
    // two scripts of one module may write at the same time
    whileLocked(path, 'a+', (descriptor) => {
      const { seq, hash, torn, isOpen } = endOf(descriptor)
      // what a full disk or a crash cut off is ended, and stays as evidence
      let text = isOpen ? '\n' : ''
      let prev = hash
      for (const [index, each] of [...trail.pending, fact].entries()) {
        const cut = index === 0 && torn.length > 0 && { torn: sha256(torn) }
        const record = { seq: seq + index + 1, time: new Date().toISOString(), run, ...each }
        const line = JSON.stringify({ ...record, ...cut, prev })
        prev = sha256(line)
        text += line + '\n'
      }
      const bytes = Buffer.from(text)
      if (writeSync(descriptor, bytes) !== bytes.length) throw new Error('only a part was written')
      fsyncSync(descriptor)
      trail.head = prev
      trail.pending = []
    })
  } catch (error) {
    const reason = (error as Error).message
    throw cannotWrite`
      the audit ${path} cannot be written: ${reason}. What cannot be recorded is not run
      无法写入审计日志 ${path}：${reason}。无法记录的操作不会执行`.state`
      nothing more was run
      未再执行任何命令`
  }
}

/**
 * What syslog is told before a head: the trail is known by its first record, since two sites may have
 * the same name.
 * @param bytes the content of the trail
 */
export function syslogWords(module: string, site: string, bytes: Buffer): string {
  const id = sha256(linesOf(bytes)[0] ?? '').slice(0, 16)
  return `--module ${module} at ${site}, audit ${id}, head `
}

/** The same of this run's trail, with its head. */
export function headForSyslog({ path, head }: OpenTrail, module: string, site: string): string {
  return syslogWords(module, site, readFileSync(path)) + head
}

/**
 * The number and the sha256 of the last whole record of the file, what is behind it (lines that were cut
 * off, without their last line break), and whether the file ends without a line break.
 */
function endOf(descriptor: number) {
  let text = Buffer.alloc(0)
  let isOpen = false
  for (let end = fstatSync(descriptor).size; end > 0;) {
    const piece = Buffer.alloc(Math.min(end, 65536))
    end -= piece.length
    readSync(descriptor, piece, 0, piece.length, end)
    text = Buffer.concat([piece, text])
    isOpen = text.at(-1) !== 10
    const lines = linesOf(text)
    // the first line is whole where the file begins with it
    for (let index = lines.length - 1; index >= (end > 0 ? 1 : 0); index--) {
      const record = recordIn(lines[index]!)
      if (!record) continue
      const behind = lines.slice(0, index + 1).reduce((sum, { length }) => sum + length + 1, 0)
      const torn = text.subarray(behind, isOpen ? undefined : -1)
      return { seq: record.seq, hash: sha256(lines[index]!), torn, isOpen }
    }
  }
  return { seq: 0, hash: sha256(''), torn: isOpen ? text : text.subarray(0, -1), isOpen }
}

/** The record of a line; undefined where it is not a whole one: its last field is the hash of the one before. */
export function recordIn(line: Buffer): AuditRecord | undefined {
  try {
    const record = JSON.parse(line.toString())
    return typeof record.seq === 'number' && typeof record.prev === 'string' ? record : undefined
  } catch {
    return undefined
  }
}
