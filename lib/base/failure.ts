import { channel } from 'node:diagnostics_channel'
import { inspect } from 'node:util'

/** Exit codes, after sysexits(3): what a cron job, a monitor or a wrapper can rely on. */
export const EXIT = {
  commandFailed: 1,
  usage: 64,
  badBundle: 65,
  badAudit: 65,
  missingInput: 66,
  unreachable: 69,
  bug: 70,
  cannotWrite: 73,
  tryLater: 75,
  notAllowed: 77,
  configuration: 78,
} as const

/** One line for each exit code, for `--help`: [code, English, Chinese]. */
export const EXIT_MEANINGS: [code: string, en: string, zh: string][] = [
  ['0', 'done, or nothing to do', '完成，或无需操作'],
  ['1', 'a command of the manual failed', '手册中的某条命令失败'],
  ['64', 'wrong usage', '用法错误'],
  [
    '65',
    'a bundle is damaged or unfit; an audit was changed',
    '离线包损坏或不适用；审计日志被改动',
  ],
  [
    '66',
    'an input is missing (version, release, chart, file)',
    '缺少输入（版本、release、chart、文件）',
  ],
  [
    '69',
    'cluster, repository or daemon not reachable; a retry may help',
    '集群、仓库或守护进程无法访问，可重试',
  ],
  ['70', 'a bug in these scripts, or in a copy of them', '脚本（或其副本）的缺陷'],
  ['73', 'cannot write (disk full, audit not writable)', '无法写入（磁盘已满、审计日志不可写）'],
  [
    '75',
    'locked, or a release is pending: try later',
    '已被锁定，或 release 处于 pending：请稍后再试',
  ],
  ['77', 'not allowed (wrong password, missing rights)', '没有权限（密码错误、权限不足）'],
  ['78', 'the configuration is wrong or does not fit', '配置错误或不匹配'],
  ['128+n', 'ended by signal n', '被信号 n 终止'],
]

/** What a failure can add to its sentence for the person who reads it at night. */
export interface FailureDetails {
  /** what the sentence speaks of, printed once below both languages */
  items?: string[]
  /** the command that failed, as it was printed */
  command?: string
  /** the tool's own words (the end of its stderr) */
  said?: string
  /** the state things are in now, in English and Chinese */
  state?: [en: string, zh: string]
  /** what to do next, in English and Chinese; a command is on a line of its own */
  next?: [en: string, zh: string]
}

/** The state of a run that was refused before it changed anything. */
export const UNCHANGED: [en: string, zh: string] = [
  'nothing in the cluster, in the registry or on a node was changed',
  '未更改集群、镜像仓库或节点上的任何内容',
]

/** Tells who listens that a failure is about to be printed: the reason why the script ends. */
export const failures = channel('dce-upgrade:failure')

/**
 * A failure that was foreseen: what is wrong, in English and Chinese, and the exit code. zx prints what
 * `inspect` gives (zx 8.8.5 src/cli.ts: `console.error(err)`), and lib/run/outcome.ts turns it into the
 * exit code.
 */
export class Failure extends Error {
  readonly exitCode: number
  readonly en: string
  readonly zh: string
  readonly details: FailureDetails
  /** where it happened: the heading of the step; lib/run/session.ts knows it */
  step = ''

  constructor(exitCode: number, en: string, zh: string, details: FailureDetails = {}) {
    super(en)
    this.exitCode = exitCode
    this.en = en
    this.zh = zh
    this.details = details
  }

  /** What the sentence speaks of, one a line: printed once below both languages. */
  items(items: string[]): this {
    this.details.items = items
    return this
  }

  /** What to do next; a command is on a line of its own. */
  next(...text: Bilingual): this {
    this.details.next = bilingual(...text)
    return this
  }

  /** The state things are in now; left out, it is that nothing was changed, where that is so. */
  state(...text: Bilingual): this {
    this.details.state = bilingual(...text)
    return this
  }

  /** The tool's own words. */
  said(words: string | undefined): this {
    this.details.said = words
    return this
  }

  /** The sentence in one language, with what it speaks of. */
  text(lang: 'en' | 'zh'): string {
    return [this[lang], ...(this.details.items ?? [])].join('\n')
  }

  [inspect.custom](): string {
    failures.publish(this)
    const { items = [], command, said, state, next } = this.details
    const title = this.exitCode > 128 ? 'INTERRUPTED · 已中断' : 'FAILED · 失败'
    const indented = (text: string) => text.trimEnd().replace(/^/gm, '    ')
    const part = (name: string, text?: string) =>
      text?.trim() ? `\n${name}\n${indented(text)}` : ''
    return (
      part(`${title} (exit ${this.exitCode})`, [this.en, this.zh, ...items].join('\n')) +
      part('step · 步骤', this.step) +
      part('command · 命令', command) +
      part('it said · 工具输出', said) +
      part('state now · 当前状态', state?.join('\n')) +
      part('what to do · 下一步', next?.join('\n')) +
      '\n'
    )
  }
}

/** A sentence in English and Chinese: two texts, or a template with a line for each. */
export type Bilingual = [TemplateStringsArray | string, ...values: unknown[]]

/** The English and the Chinese of a template's two lines: what their values hold may have line breaks. */
export function bilingual(...[first, ...values]: Bilingual): [en: string, zh: string] {
  if (typeof first === 'string') return [first, String(values[0])]
  const lines = ['']
  first.raw.forEach((raw, index) => {
    const [more, ...next] = raw.split(/\n */)
    lines[lines.length - 1] += more!
    lines.push(...next)
    if (index < values.length) lines[lines.length - 1] += `\0${index}\0`
  })
  const [en = '', zh = ''] = lines
    .filter(Boolean)
    .map((line) =>
      line
        .replace(/\\(.)/g, (_, escaped) => (escaped === 'n' ? '\n' : escaped))
        .replace(/\0(\d+)\0/g, (_, index) => String(values[index])),
    )
  return [en, zh]
}

const failing =
  (exitCode: number) =>
  (...text: Bilingual) =>
    new Failure(exitCode, ...bilingual(...text))

/** The command line: exit 64. */
export const wrongUsage = failing(EXIT.usage)
/** A command of the manual failed, or did not do what it is for: exit 1. */
export const commandFailed = failing(EXIT.commandFailed)
/** An input does not exist: exit 66. */
export const missing = failing(EXIT.missingInput)
/** Cluster, repository, registry, node or daemon: exit 69, a retry may help. */
export const unreachable = failing(EXIT.unreachable)
/** A bug in these scripts or in a copy of them: exit 70. */
export const bug = failing(EXIT.bug)
/** A file, a disk or the audit: exit 73. */
export const cannotWrite = failing(EXIT.cannotWrite)
/** Locked, or pending: exit 75. */
export const tryLater = failing(EXIT.tryLater)
/** A login or a right: exit 77. */
export const notAllowed = failing(EXIT.notAllowed)
/** The site file, a descriptor, a tool, or how things are set up: exit 78. */
export const misconfigured = failing(EXIT.configuration)

/** The last lines of a tool's output, enough to see why it failed; a line of pages is cut in its middle. */
export function tail(text: string, lines = 15): string {
  const cut = (line: string) =>
    line.length > 800 ? `${line.slice(0, 400)} … ${line.slice(-200)}` : line
  return text.trim().split('\n').slice(-lines).map(cut).join('\n')
}
