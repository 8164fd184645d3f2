import { linesOf, sha256 } from '../base/hash.ts'
import { type AuditRecord, recordIn } from './write.ts'

/** What is wrong with a trail, and in which line: the first that is not as it was written. */
export interface Tampered {
  /** from 1 */
  line: number
  en: string
  zh: string
}

export interface Trail {
  records: AuditRecord[]
  /** the sha256 of the last record */
  head: string
  /** how many records are behind the last known head: nobody can tell whether they are all */
  behind: number
  tampered?: Tampered
}

/**
 * Reads an audit, and looks whether it is as it was written: each record carries its number and the
 * sha256 of the record before. Lines that a full disk or a crash cut off belong to it where the record
 * behind them carries their sha256 too.
 * @param bytes the content of audit.jsonl
 * @param heads sha256 of records that must be there: as they were printed, or handed to syslog
 */
export function readTrail(bytes: Buffer, heads: string[] = []): Trail {
  const all = linesOf(bytes).map((line) => ({ line, record: recordIn(line) }))
  const records: AuditRecord[] = []
  const hashes: string[] = []
  let torn: Buffer[] = []
  let tampered: Tampered | undefined
  const found = (line: number, en: string, zh: string) => (tampered ??= { line, en, zh })

  all.forEach(({ line, record }, index) => {
    if (!record) return void torn.push(line)
    const at = index + 1
    const cut = torn.length > 0 ? sha256(joined(torn)) : undefined
    if (record.torn !== cut) {
      if (cut) found(at - torn.length, 'it is not a record', '不是有效的记录')
      else found(at, 'a line before it was removed', '其前面有一行被删除')
    }
    const follows = record.prev === (hashes.at(-1) ?? sha256(''))
    const number = records.length + 1
    const hash = sha256(line)
    if (!follows && record.seq !== number)
      found(
        at,
        `it has the number ${record.seq}, not ${number}: lines were removed, inserted or reordered here`,
        `其序号为 ${record.seq}，应为 ${number}：此处有行被删除、插入或调换`,
      )
    else if (!follows) {
      // which of the two was changed? The record behind, or a known head, knows this one
      const next = all.slice(at).find((each) => each.record)?.record
      const isKnown = heads.includes(hash) || next?.prev === hash
      found(isKnown && index > 0 ? at - 1 - torn.length : at, 'it was changed', '该行被修改')
    } else if (record.seq !== number) found(at, 'it was changed', '该行被修改')
    records.push(record)
    hashes.push(hash)
    torn = []
  })
  if (torn.length > 0) found(all.length - torn.length + 1, 'it is cut off', '该行不完整')
  else if (bytes.length > 0 && bytes.at(-1) !== 10) found(all.length, 'it is cut off', '该行不完整')
  const missing = heads.find((head) => !hashes.includes(head))
  if (missing !== undefined)
    found(
      all.length + 1,
      `the record with the sha256 ${missing} is not there: the end was cut off, or all of it was replaced`,
      `缺少 sha256 为 ${missing} 的记录：末尾被截断，或整个文件被替换`,
    )
  const behind = hashes.length - 1 - hashes.findLastIndex((hash) => heads.includes(hash))
  return { records, head: hashes.at(-1) ?? '', behind, tampered }
}

const joined = (lines: Buffer[]) =>
  Buffer.concat(lines.flatMap((line, index) => (index > 0 ? [Buffer.from('\n'), line] : [line])))
