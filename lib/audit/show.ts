import { visible } from '../base/output.ts'
import { type AuditRecord } from './write.ts'

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

/** The variables of a command: NAME=value … */
export const variablesOf = (command: AuditRecord): string =>
  Object.entries(command['variables'] ?? {})
    .map(([name, value]) => `${name}=${value}`)
    .join(' ')

/** How a command ended. */
export const outcomeOf = (ended: AuditRecord): string =>
  `exit ${ended['exitCode']}, ${Number(ended['seconds']).toFixed(1)} s`

/** A run for people. */
export function describeRun(run: RecordedRun, lang: 'en' | 'zh'): string {
  const say = (en: string, zh: string) => (lang === 'zh' ? zh : en)
  const { start, end, commands, found } = run
  const { user, sudoUser, sshConnection = '' } = start?.['who'] ?? {}
  const ticket = start?.['ticket']
  const cluster = found.find(({ event }) => event === 'cluster')
  const clock = found.find(({ event }) => event === 'clock')?.['synchronized'] as keyof typeof CLOCK
  const [address] = sshConnection.split(' ')
  const result = !end
    ? say('UNFINISHED: it was killed, or is at work', '未完成：被强制终止，或仍在运行')
    : end['exitCode'] === 0
      ? say('done (exit 0)', '完成（退出码 0）')
      : `${say('FAILED', '失败')} (exit ${end['exitCode']}): ${end['failure'] ?? ''}`
  const lines = [
    `${start?.['script'] ?? ''} --module ${start?.['module'] ?? ''}   ${run.run}`,
    say('  result    ', '  结果      ') + result,
    say('  when      ', '  时间      ') +
      `${start?.time ?? ''} – ${end?.time ?? ''}` +
      (clock ? say(` (clock synchronized: ${clock})`, `（时钟是否同步：${CLOCK[clock]}）`) : ''),
    say('  who       ', '  执行人    ') +
      (start
        ? `${user}@${start['host']}`
        : say('unknown: no start was recorded', '未知：没有开始记录')) +
      (sudoUser ? say(`, by sudo from ${sudoUser}`, `（由 ${sudoUser} 通过 sudo）`) : '') +
      (address ? say(`, from ${address}`, `，来自 ${address}`) : '') +
      (ticket ? say(`, ticket ${ticket}`, `，变更单 ${ticket}`) : ''),
  ]
  if (cluster) {
    const { uid, version, context, user = '?' } = cluster
    lines.push(say('  cluster   ', '  集群      ') + `${uid} ${version} (${context}, ${user})`)
  }
  lines.push(...stateLines(found, say))
  let step = ''
  for (const { command, ended } of commands) {
    if (command['step'] !== step) lines.push('', `  ${(step = command['step'])}`)
    const text = String(command['command'] ?? '').replaceAll('\n', `\n${' '.repeat(14)}`)
    const variables = variablesOf(command)
    lines.push(`  ${command.time.slice(11, 19)}  $ ${text}`)
    for (const each of [
      ...(variables ? [variables] : []),
      ended ? outcomeOf(ended) : say('no end was recorded', '没有结束记录'),
    ])
      lines.push(' '.repeat(12) + each)
  }
  return visible(lines.join('\n'))
}

const CLOCK = { yes: '是', no: '否', unknown: '未知' }

/** The first and the last known state of each release. */
function stateLines(found: AuditRecord[], say: (en: string, zh: string) => string): string[] {
  const states = found.filter(({ event }) => event === 'state')
  const text = ({ revision, chart, status }: AuditRecord) =>
    revision === undefined
      ? say('not there', '不存在')
      : `revision ${revision}, ${chart}, ${status}`
  return [...new Set(states.map(({ release }) => release))].flatMap((release) => {
    const [first, ...more] = states.filter((state) => state['release'] === release)
    const last = more.at(-1)
    return [
      say(`  ${release} before: `, `  ${release} 变更前：`) + text(first!),
      ...(last ? [say(`  ${release} after:  `, `  ${release} 变更后：`) + text(last)] : []),
    ]
  })
}
