/** The manual's two ways of upgrading: "via helm repo" and "via chart package". */
export type Via = 'repo' | 'package'

export interface FlagMeaning {
  /** what follows the flag; left out for a switch */
  value?: string
  en: string
  zh: string
  /** examples of a value */
  example?: string
  /** how a value must look */
  form?: RegExp
}

const WORD = /^[^\s{}]+$/
const PATH = /^[^{}]+$/

/** Every flag that a script may take. */
export const FLAGS = {
  module: { value: 'NAME', en: 'the module', zh: '模块', form: WORD },
  via: {
    value: 'repo|package',
    en: 'from the helm repository (default) or from a chart package',
    zh: '通过 helm repo（默认）或通过 chart 包',
    form: /^(repo|package)$/,
  },
  chart: {
    value: 'PATH',
    en: 'the chart package: a directory or a .tgz (with --via package)',
    zh: 'chart 包：目录或 .tgz 文件（与 --via package 一起使用）',
    form: PATH,
  },
  version: {
    value: 'VERSION',
    en: 'the chart version; left out: the newest stable one of the repository',
    zh: 'chart 版本；省略时使用仓库中最新的稳定版',
    form: WORD,
  },
  release: {
    value: 'NAME',
    en: 'only this release of the module',
    zh: '仅处理该模块的这一个 release',
    form: WORD,
  },
  install: {
    en: 'install the release; only where it does not exist yet (with --values)',
    zh: '安装 release，仅当其尚不存在时可用（与 --values 一起使用）',
  },
  values: {
    value: 'FILE',
    en: 'the values for --install',
    zh: '--install 使用的参数文件',
    form: PATH,
  },
  'allow-downgrade': {
    en: 'allow a version older than the deployed one',
    zh: '允许低于当前已部署的版本',
  },
  bundle: {
    value: 'PATH',
    en: 'a bundle, the download around it, or a directory of bundles (default: the directory that the manual names)',
    zh: '离线包、其外层下载文件，或存放离线包的目录（默认：手册中的目录）',
    form: PATH,
  },
  node: { value: 'NAME', en: 'only this node', zh: '仅处理这一个节点', form: WORD },
  local: {
    en: 'only this machine, without ssh',
    zh: '仅处理当前机器，不使用 ssh',
  },
  parallel: {
    value: 'N',
    en: 'how many nodes at once (default 4)',
    zh: '同时处理的节点数（默认 4）',
    example: 'a number from 1 to 99',
    form: /^[1-9][0-9]?$/,
  },
  'replace-tags': {
    en: 'overwrite a tag that already points to a different image',
    zh: '若 tag 已存在且指向其他镜像，则覆盖',
  },
  all: {
    en: 'instead of --module: every module with a bundle in the --bundle directory',
    zh: '代替 --module：处理 --bundle 目录中有离线包的所有模块',
  },
  quiet: { en: 'print nothing unless it fails (for cron)', zh: '仅在失败时输出（用于 cron）' },
  json: {
    en: 'print nothing but the outcome, as one JSON object',
    zh: '只输出结果（一个 JSON 对象）',
  },
  head: {
    value: 'SHA256',
    en: 'the sha256 of a record that must be there, as a run printed it or syslog has it',
    zh: '必须存在的某条记录的 sha256，由某次运行打印，或记录在 syslog 中',
    example: '64 hexadecimal digits',
    form: /^[0-9a-f]{64}$/,
  },
  run: {
    value: 'ID',
    en: 'only this run, such as 20260321T020304Z-4711',
    zh: '仅这一次运行，例如 20260321T020304Z-4711',
    form: WORD,
  },
  lang: {
    value: 'en|zh',
    en: 'the language (default en; headings and remarks of a run: both)',
    zh: '语言（默认 en；运行时的标题和注释默认为两种语言）',
    form: /^(en|zh)$/,
  },
  format: {
    value: 'terminal|html|md',
    en: 'for the terminal (default), as a page, or as Markdown',
    zh: '终端文本（默认）、网页或 Markdown',
    form: /^(terminal|html|md)$/,
  },
  timeout: {
    value: 'DURATION',
    en: 'time limit of each command and of the wait for the workloads: 90s, 10m, 1h (default 10m; 3h for a bundle)',
    zh: '每条命令以及等待工作负载就绪的时限：90s、10m、1h（默认 10m；处理离线包时为 3h）',
    example: 'a number with s, m or h, such as 90s, 10m, 1h',
    form: /^[1-9][0-9]{0,5}(s|m|h)$/,
  },
  ticket: {
    value: 'TEXT',
    en: 'the change ticket, for the audit',
    zh: '变更单号，记入审计日志',
    form: /^[^\p{Cc}{}]+$/u,
  },
  site: {
    value: 'FILE',
    en: 'the site file (default site.yaml)',
    zh: '站点配置文件（默认 site.yaml）',
    form: PATH,
  },
  'dry-run': {
    en: 'run nothing; print the commands as a bash script',
    zh: '不执行任何命令，仅以 bash 脚本形式打印',
  },
  help: { en: 'print this', zh: '打印本帮助' },
} satisfies Record<string, FlagMeaning>

export type FlagName = keyof typeof FLAGS
/** the flags of every script that changes something */
export const EVERY_SCRIPT: FlagName[] = [
  'module',
  'timeout',
  'ticket',
  'site',
  'lang',
  'dry-run',
  'help',
]
/** of those that only read */
export const EVERY_READER: FlagName[] = ['module', 'site', 'help']

/** The flags that have a value, and those that are switches. */
type Valued = { [F in FlagName]: (typeof FLAGS)[F] extends { value: string } ? F : never }[FlagName]
type Switch = Exclude<FlagName, Valued>

/** What was given, and what holds where nothing was. */
export interface Flags
  extends Partial<Record<Exclude<Valued, 'parallel'>, string>>, Record<Switch, boolean> {
  module: string
  via: Via
  parallel: number
  site: string
  /** undefined where none was given: both */
  lang?: 'en' | 'zh'
  format: 'terminal' | 'html' | 'md'
  /** the first word behind the script's name, where it takes one */
  order: string
}

/** The time limit of each command, and of the wait for the workloads, as it was given, and in seconds. */
export function timeLimit({ timeout = '10m' }: Pick<Flags, 'timeout'>): {
  text: string
  seconds: number
} {
  const unit = { s: 1, m: 60, h: 3600 }[timeout.at(-1) as 's' | 'm' | 'h']
  return { text: timeout, seconds: parseInt(timeout) * unit }
}
