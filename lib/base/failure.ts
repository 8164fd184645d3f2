import { inspect } from 'node:util'

/** Exit codes, after sysexits(3): what a cron job, a monitor or a wrapper can rely on. */
export const EXIT = {
  commandFailed: 1,
  usage: 64,
  badBundle: 65,
  badAudit: 65,
  missingInput: 66,
  unreachable: 69,
  defect: 70,
  cannotWrite: 73,
  tryLater: 75,
  notAllowed: 77,
  configuration: 78,
} as const

/** One line for each exit code, for `--help`: [code, English, Chinese]. */
export const EXIT_MEANINGS: [string, string, string][] = [
  ['0', 'done, or nothing to do', '完成，或无需操作'],
  ['1', 'a command of the manual failed', '手册中的某条命令失败'],
  ['64', 'wrong usage', '用法错误'],
  [
    '65',
    'the bundle is damaged or unfit; the audit was changed',
    '离线包损坏或不适用；审计日志被改动',
  ],
  [
    '66',
    'an input does not exist (version, release, chart, file)',
    '输入不存在（版本、release、chart、文件）',
  ],
  [
    '69',
    'cluster, repository or daemon not reachable; a retry may help',
    '集群、仓库或守护进程无法访问，可稍后重试',
  ],
  ['70', 'a defect of these scripts', '脚本自身的缺陷'],
  ['73', 'cannot write (disk full, audit not writable)', '无法写入（磁盘已满、审计日志不可写）'],
  [
    '75',
    'locked, or a release is pending: try later',
    '已被锁定或 release 处于 pending 状态，请稍后再试',
  ],
  ['77', 'not allowed (wrong password, missing rights)', '没有权限（密码错误、权限不足）'],
  ['78', 'the configuration is wrong or does not fit', '配置错误或不匹配'],
  ['128+n', 'ended by signal n', '被信号 n 终止'],
]

/** What a failure can add to its sentence for the person who reads it at night. */
export interface FailureDetails {
  /** the command that failed, as it was printed */
  command?: string
  /** the tool's own words (the end of its stderr) */
  said?: string
  /** the state things are in now, in English and Chinese */
  state?: [en: string, zh: string]
  /** what to do next, in English and Chinese; a command stands on a line of its own */
  next?: [en: string, zh: string]
}

/** The state where a run is refused before it changed anything. */
export const UNCHANGED: [en: string, zh: string] = [
  'nothing in the cluster was changed',
  '未更改集群中的任何内容',
]

/**
 * A failure that was foreseen. It is thrown, never caught on the way: zx prints what `inspect`
 * gives (zx 8.8.5 src/cli.ts: `console.error(err)`), and `lib/run/words.ts` turns it into the exit code.
 */
export class Failure extends Error {
  /** the one that was printed: the reason why the script ends */
  static last: Failure | undefined
  readonly exitCode: number
  readonly en: string
  readonly zh: string
  readonly details: FailureDetails
  /** where it happened: the heading of the step */
  step: string

  /** The step that the script is at; lib/run/session.ts knows it. */
  static stepOf = () => ''

  constructor(exitCode: number, en: string, zh: string, details: FailureDetails = {}) {
    super(en)
    this.exitCode = exitCode
    this.en = en
    this.zh = zh
    this.details = details
    this.step = Failure.stepOf()
  }

  [inspect.custom](): string {
    Failure.last = this
    const { command, said, state, next } = this.details
    const title = this.exitCode > 128 ? 'INTERRUPTED · 已中断' : 'FAILED · 失败'
    const indented = (text: string) => text.trimEnd().replace(/^/gm, '    ')
    const part = (name: string, text?: string) =>
      text?.trim() ? `\n${name}\n${indented(text)}` : ''
    return (
      part(`${title} (exit ${this.exitCode})`, `${this.en}\n${this.zh}`) +
      part('step · 步骤', this.step) +
      part('command · 命令', command) +
      part('it said · 工具输出', said) +
      part('state now · 当前状态', state?.join('\n')) +
      part('what to do · 下一步', next?.join('\n')) +
      '\n'
    )
  }
}

/** The last lines of a tool's output, enough to see why it failed; a line of pages is cut in its middle. */
export function tail(text: string, lines = 15): string {
  const cut = (line: string) =>
    line.length > 800 ? `${line.slice(0, 400)} … ${line.slice(-200)}` : line
  return text.trim().split('\n').slice(-lines).map(cut).join('\n')
}
