import { isRecord, linesOf, sha256 } from './write.ts'

/** A record of the audit: its fields are those that the scripts gave it. */
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
  /** how many records stand behind the last known head: nobody can tell whether they are all */
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
  let before = '' // the sha256 of the last whole record
  let torn: Buffer[] = []
  let tampered: Tampered | undefined
  const found = (line: number, en: string, zh: string) => (tampered ??= { line, en, zh })

  all.forEach(({ line, record }, index) => {
    if (!record) return void torn.push(line)
    const at = index + 1
    const cut = torn.length > 0 ? sha256(joined(torn)) : undefined
    if (record.torn !== cut) {
      if (cut) found(at - torn.length, 'it is no record', '不是有效的记录')
      else found(at, 'a line before it was removed', '其前面有一行被删除')
    }
    const follows = record.prev === (before || sha256(''))
    const isNext = record.seq === records.length + 1
    const hash = sha256(line)
    if (follows && !isNext) found(at, 'it was changed', '该行被修改')
    else if (!follows && !isNext)
      found(
        at,
        `it has the number ${record.seq}, not ${records.length + 1}: lines were removed, inserted or reordered here`,
        `其序号为 ${record.seq}，应为 ${records.length + 1}：此处有行被删除、插入或调换`,
      )
    else if (!follows) {
      // which of the two was changed? The record behind, or a known head, knows this one
      const next = all.slice(at).find((each) => each.record)?.record
      const isKnown = heads.includes(hash) || next?.prev === hash
      found(isKnown && index > 0 ? at - 1 - torn.length : at, 'it was changed', '该行被修改')
    }
    records.push(record)
    hashes.push(hash)
    before = hash
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
  const lastKnown = hashes.findLastIndex((hash) => heads.includes(hash))
  return {
    records,
    head: before,
    behind: hashes.length - 1 - lastKnown,
    tampered,
  }
}

const joined = (lines: Buffer[]) =>
  Buffer.concat(lines.flatMap((line, index) => (index > 0 ? [Buffer.from('\n'), line] : [line])))

function recordIn(line: Buffer): AuditRecord | undefined {
  const text = line.toString()
  return isRecord(text) ? JSON.parse(text) : undefined
}

/** Without what a terminal would take for an order: a ticket, or an output, could bring it. */
export const visible = (text: unknown): string =>
  String(text ?? '').replace(/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, (each) =>
    each === '\n' ? each : `\\x${each.codePointAt(0)!.toString(16).padStart(2, '0')}`,
  )

/** A run, as the audit has it. */
export interface RecordedRun {
  run: string
  start?: AuditRecord
  commands: { command: AuditRecord; ended?: AuditRecord }[]
  /** what was found: states, images, backups */
  found: AuditRecord[]
  /** undefined where it was killed, or is at work */
  end?: AuditRecord
}

/** The runs of an audit, in the order in which they began. */
export function runsOf(records: AuditRecord[]): RecordedRun[] {
  const runs = new Map<string, RecordedRun>()
  for (const record of records) {
    const run = runs.get(record.run) ?? { run: record.run, commands: [], found: [] }
    runs.set(record.run, run)
    if (record.event === 'start') run.start = record
    else if (record.event === 'end') run.end = record
    else if (record.event === 'command') run.commands.push({ command: record })
    else if (record.event === 'ended') {
      const begun = run.commands.findLast(({ command }) => command['number'] === record['number'])
      if (begun) begun.ended = record
    } else if (record.event !== 'question') run.found.push(record)
  }
  return [...runs.values()]
}

/** A run for people. */
export function describeRun(run: RecordedRun, lang: 'en' | 'zh'): string {
  const say = (en: string, zh: string) => (lang === 'zh' ? zh : en)
  const { start, end, commands, found } = run
  const { user, sudoUser, sshConnection } = start?.['who'] ?? {}
  const ticket = start?.['ticket']
  const cluster = found.find(({ event }) => event === 'cluster')
  const clock = found.find(({ event }) => event === 'clock')
  const lines = [
    `${start?.['script'] ?? ''} --module ${start?.['module'] ?? ''}   ${run.run}`,
    say('  result    ', '  结果      ') +
      (!end
        ? say('UNFINISHED: it was killed, or is at work', '未完成：被强制终止，或仍在运行')
        : end['exitCode'] === 0
          ? say('done (exit 0)', '完成（退出码 0）')
          : `${say('FAILED', '失败')} (exit ${end['exitCode']}): ${end['failure'] ?? ''}`),
    say('  when      ', '  时间      ') +
      `${start?.time ?? ''} – ${end?.time ?? ''}` +
      (clock
        ? say(
            ` (clock synchronized: ${clock['synchronized']})`,
            `（时钟已同步：${CLOCK[clock['synchronized'] as keyof typeof CLOCK]}）`,
          )
        : ''),
    say('  who       ', '  执行人    ') +
      `${user}@${start?.['host']}` +
      (sudoUser ? say(`, by sudo from ${sudoUser}`, `（由 ${sudoUser} 通过 sudo）`) : '') +
      (sshConnection
        ? say(`, from ${sshConnection.split(' ')[0]}`, `，来自 ${sshConnection.split(' ')[0]}`)
        : '') +
      (ticket ? say(`, ticket ${ticket}`, `，变更单 ${ticket}`) : ''),
    ...(cluster
      ? [
          say('  cluster   ', '  集群      ') +
            `${cluster['uid']} ${cluster['version']} (${cluster['context']}, ${cluster['user'] ?? '?'})`,
        ]
      : []),
    ...stateLines(found, say),
  ]
  let step = ''
  for (const { command, ended } of commands) {
    if (command['step'] !== step) lines.push('', `  ${(step = command['step'])}`)
    const variables = Object.entries(command['variables'] ?? {})
    lines.push(
      `  ${command.time.slice(11, 19)}  $ ${String(command['command'] ?? '').replaceAll('\n', '\n              ')}`,
    )
    if (variables.length > 0)
      lines.push(`            ${variables.map(([name, value]) => `${name}=${value}`).join(' ')}`)
    lines.push(
      `            ${
        ended
          ? `exit ${ended['exitCode']}, ${Number(ended['seconds']).toFixed(1)} s`
          : say('no end was recorded', '没有结束记录')
      }`,
    )
  }
  return visible(lines.join('\n'))
}

const CLOCK = { yes: '是', no: '否', unknown: '未知' }

/** The first and the last known state of each release. */
function stateLines(found: AuditRecord[], say: (en: string, zh: string) => string): string[] {
  const states = found.filter(({ event }) => event === 'state')
  const releases = [...new Set(states.map(({ release }) => release))]
  return releases.flatMap((release) => {
    const of = states.filter((state) => state['release'] === release)
    const text = ({ revision, chart, status }: AuditRecord) =>
      revision === undefined
        ? say('not there', '不存在')
        : `revision ${revision}, ${chart}, ${status}`
    return [
      say(`  ${release} before: `, `  ${release} 变更前：`) + text(of[0]!),
      ...(of.length > 1
        ? [say(`  ${release} after:  `, `  ${release} 变更后：`) + text(of.at(-1)!)]
        : []),
    ]
  })
}
