import { existsSync, realpathSync, readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { closest, distance } from 'fastest-levenshtein'
import minimist from 'minimist'
import { moduleNames } from './checked-files.ts'
import { EXIT, EXIT_MEANINGS, Failure } from '../base/failure.ts'

/** The manual's two ways of upgrading: "via helm repo" and "via chart package". */
export type Via = 'repo' | 'package'

interface FlagMeaning {
  /** what stands after the flag; left out for a switch */
  value?: string
  en: string
  zh: string
  /** examples of a value */
  example?: string
  /** how a value must look */
  form?: RegExp
}

const WORD = /^[^\s{}]+$/

const FLAGS = {
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
    form: /^[^{}]+$/,
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
    form: /^[^{}]+$/,
  },
  'allow-downgrade': {
    en: 'allow a version older than the deployed one',
    zh: '允许低于当前已部署的版本',
  },
  bundle: {
    value: 'PATH',
    en: 'a bundle, the download around it, or a directory of bundles (default: the directory that the manual names)',
    zh: '离线包、其外层下载文件，或存放离线包的目录（默认：手册中的目录）',
    form: /^[^{}]+$/,
  },
  node: {
    value: 'NAME',
    en: 'only this node',
    zh: '仅处理这一个节点',
    form: WORD,
  },
  local: {
    en: 'only the machine that one stands on, without ssh',
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
    en: 'replace an image that stands under a name of the bundle and is another one',
    zh: '若目标 tag 已存在且为其他镜像，则替换',
  },
  all: {
    en: 'in place of --module: every module that has a bundle in the directory --bundle',
    zh: '代替 --module：处理 --bundle 目录中有离线包的所有模块',
  },
  quiet: {
    en: 'print nothing unless it fails (for cron)',
    zh: '仅在失败时输出（用于 cron）',
  },
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
    en: 'the language (default en)',
    zh: '语言（默认 en）',
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
    form: /^[^{}]+$/,
  },
  'dry-run': {
    en: 'run nothing; print the commands as a bash script',
    zh: '不执行任何命令，仅以 bash 脚本形式打印',
  },
  help: { en: 'print this', zh: '打印本帮助' },
} satisfies Record<string, FlagMeaning>

export type FlagName = keyof typeof FLAGS
const EVERY_SCRIPT: FlagName[] = ['module', 'timeout', 'ticket', 'site', 'dry-run', 'help']
/** of those that only read */
const EVERY_READER: FlagName[] = ['module', 'site', 'help']

export interface Flags {
  module: string
  via: Via
  chart?: string
  version?: string
  release?: string
  install: boolean
  values?: string
  'allow-downgrade': boolean
  bundle?: string
  node?: string
  local: boolean
  parallel: number
  'replace-tags': boolean
  quiet: boolean
  json: boolean
  timeout?: string
  ticket?: string
  site: string
  'dry-run': boolean
  head?: string
  run?: string
  lang: 'en' | 'zh'
  format: 'terminal' | 'html' | 'md'
  /** the first word behind the script's name, where it takes one */
  order: string
}

/** Wrong usage: exit 64. */
export function usage(script: string, en: string, zh: string): Failure {
  return new Failure(EXIT.usage, en, zh, {
    next: [
      `npx zx scripts/${script}.mts --help  shows every flag`,
      `npx zx scripts/${script}.mts --help  查看所有参数`,
    ],
  })
}

/** The command line behind the script's own name, whether zx or node started it. */
function commandLine(scriptPath: string): string[] {
  const isScript = (word: string) => existsSync(word) && realpathSync(word) === scriptPath
  return process.argv.slice(process.argv.findIndex(isScript) + 1)
}

/**
 * The flags of the command line, strictly: an unknown one is refused with the nearest known.
 * @param scriptPath the started script
 * @param own the flags that it takes
 * @param orders of a script that only reads: the words of which one comes first; [] where it has none
 * @throws Failure 64
 */
export function parseFlags(scriptPath: string, own: FlagName[], orders?: string[]): Flags {
  const names = [...own, ...(orders ? EVERY_READER : EVERY_SCRIPT)]
  const script = basename(scriptPath).replace(/\.\w+$/, '')
  const words = commandLine(realpathSync(scriptPath))
  const known = names.map((name) => `--${name}`)
  const meaning = (name: FlagName): FlagMeaning => FLAGS[name]
  if (words.includes('--help') || words.includes('-h')) {
    console.log(help(scriptPath, names, orders))
    process.exit(0)
  }
  const order = orders?.includes(words[0] ?? '') ? words.shift()! : ''
  if (orders && orders.length > 0 && !order) {
    const [first = ''] = words
    const near = closest(first, orders)
    const guess = first && distance(first, near) <= 3 ? ` Did you mean ${near}?` : ''
    throw usage(
      script,
      `the first word must be ${orders.join(' or ')}.${guess}`,
      `第一个参数应为 ${orders.join(' 或 ')}。`,
    )
  }
  const nearest = (word: string) => {
    const near = closest(word, known)
    return distance(word, near) <= Math.min(4, word.replace(/^-+/, '').length) ? near : undefined
  }
  const refuse = (word: string): never => {
    if (!word.startsWith('-')) {
      throw usage(
        script,
        `"${word}" belongs to no flag.` +
          (moduleNames().includes(word) ? ` Did you mean --module ${word}?` : ''),
        `无法识别的参数 “${word}”。` +
          (moduleNames().includes(word) ? `您是不是想输入 --module ${word}？` : ''),
      )
    }
    const flag = word.replace(/=.*/s, '')
    const near = nearest(flag)
    throw usage(
      script,
      `${flag} is not a flag of ${script}.` + (near ? ` Did you mean ${near}?` : ''),
      `${script} 没有参数 ${flag}。` + (near ? `您是不是想输入 ${near}？` : ''),
    )
  }
  for (const word of words) {
    // minimist would take `--no-x` for `--x false`, `--install=no` for `--install`, `-x` for `--x`
    if (/^--no-/.test(word) || /^-[^-]/.test(word) || word === '--') refuse(word)
    const [flag, value] = word.split(/=(.*)/s)
    const name = flag?.replace(/^--/, '') as FlagName
    if (value !== undefined && names.includes(name) && !meaning(name).value) {
      throw usage(script, `${flag} takes no value`, `${flag} 不带值`)
    }
  }
  const parsed = minimist(words, {
    string: names.filter((name) => meaning(name).value),
    boolean: names.filter((name) => !meaning(name).value),
    unknown: refuse,
  })
  for (const name of names) {
    const { value: form = '', form: pattern, example } = meaning(name)
    const value: unknown = parsed[name]
    if (typeof value !== 'string') {
      if (Array.isArray(value))
        throw usage(script, `--${name} is given twice`, `--${name} 重复出现`)
      continue
    }
    if (value === '') {
      throw usage(script, `--${name} needs a value: ${form}`, `--${name} 需要一个值：${form}`)
    }
    if (
      name === 'timeout' &&
      pattern?.test(value) &&
      timeLimit({ timeout: value }).seconds > 86_400
    ) {
      throw usage(script, `--timeout ${value} is more than a day`, `--timeout ${value} 超过一天`)
    }
    if (pattern && !pattern.test(value)) {
      throw usage(
        script,
        `--${name} ${JSON.stringify(value)} must be ${example ?? form}` + placeholderHint(value).en,
        `--${name} 的值 ${JSON.stringify(value)} 无效，应为 ${example ?? form}` +
          placeholderHint(value).zh,
      )
    }
  }
  if (!parsed['module']) {
    const all = moduleNames().join(', ')
    throw usage(
      script,
      `--module is missing, for example: npx zx scripts/${script}.mts --module mspider. Known modules: ${all}`,
      `缺少 --module，例如：npx zx scripts/${script}.mts --module mspider。已知模块：${all}`,
    )
  }
  return {
    ...parsed,
    via: 'repo',
    site: 'site.yaml',
    lang: 'en',
    format: 'terminal',
    order,
    // gigabytes take hours
    ...(names.includes('bundle') && { timeout: '3h' }),
    ...defined(parsed),
    parallel: Number(parsed['parallel'] ?? 4),
  } as unknown as Flags
}

const defined = (parsed: Record<string, unknown>) =>
  Object.fromEntries(Object.entries(parsed).filter(([, value]) => value !== undefined))

function placeholderHint(value: string): { en: string; zh: string } {
  return /[{}\s]/.test(value)
    ? {
        en: ', without { } or blanks: is it a placeholder of the manual?',
        zh: '，不能含有 { } 或空白：是否为手册中的占位符？',
      }
    : { en: '', zh: '' }
}

/** What the script says of itself in the remark that it begins with, and its flags. */
function help(scriptPath: string, names: FlagName[], orders: string[] = []): string {
  const script = basename(scriptPath).replace(/\.\w+$/, '')
  const [remark] = /^(\/\/.*\n)*/.exec(readFileSync(scriptPath, 'utf8'))!
  const rows = names.map((name): [string, FlagMeaning] => [name, FLAGS[name]])
  const flag = ([name, { value }]: [string, FlagMeaning]) => `--${name}${value ? ' ' + value : ''}`
  const width = Math.max(...rows.map((row) => flag(row).length))
  return [
    remark.replace(/^\/\/ ?/gm, ''),
    `npx zx scripts/${script}.mts ${orders.length > 0 ? `${orders.join('|')} ` : ''}--module NAME [flags]`,
    '',
    ...rows.flatMap((row) => [
      `  ${flag(row).padEnd(width)}  ${row[1].en}`,
      `  ${''.padEnd(width)}  ${row[1].zh}`,
    ]),
    '',
    `Modules · 模块: ${moduleNames().join(', ')}`,
    '',
    'Exit codes · 退出码:',
    ...EXIT_MEANINGS.map(([code, en, zh]) => `  ${code.padEnd(6)} ${en} · ${zh}`),
    '',
    'Environment · 环境变量: CHART_REPO_USERNAME, CHART_REPO_PASSWORD' +
      (names.includes('bundle') ? ', REGISTRY_USERNAME, REGISTRY_PASSWORD' : ''),
  ].join('\n')
}

/** The time limit of this run, as it was given, and in seconds. */
export function timeLimit({ timeout = '10m' }: Pick<Flags, 'timeout'>): {
  text: string
  seconds: number
} {
  const unit = { s: 1, m: 60, h: 3600 }[timeout.at(-1) as 's' | 'm' | 'h']
  return { text: timeout, seconds: parseInt(timeout) * unit }
}
