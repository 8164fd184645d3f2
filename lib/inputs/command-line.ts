import { existsSync, readFileSync, realpathSync } from 'node:fs'
import { parse } from 'node:path'
import minimist from 'minimist'
import { didYouMean } from '../base/did-you-mean.ts'
import { EXIT_MEANINGS, wrongUsage } from '../base/failure.ts'
import { moduleNames } from './checked-files.ts'
import {
  EVERY_READER,
  EVERY_SCRIPT,
  type FlagMeaning,
  type FlagName,
  FLAGS,
  type Flags,
  timeLimit,
} from './flags.ts'

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
  const script = parse(scriptPath).name
  const words = commandLine(realpathSync(scriptPath))
  if (words.includes('--help') || words.includes('-h')) {
    console.log(help(scriptPath, names, orders))
    process.exit(0)
  }
  const order = orders?.includes(words[0] ?? '') ? words.shift()! : ''
  if (orders?.length && !order) {
    const guess = didYouMean(words[0] ?? '', orders)
    throw wrongUsage`
      the first word must be ${orders.join(' or ')}.${guess.en}
      第一个参数应为 ${orders.join(' 或 ')}。${guess.zh}`
  }
  const refuse = (word: string): never => {
    if (!word.startsWith('-')) {
      const isModule = moduleNames().includes(word)
      throw wrongUsage`
        unexpected argument "${word}".${isModule ? ` Did you mean --module ${word}?` : ''}
        多余的参数 “${word}”。${isModule ? `您是不是想输入 --module ${word}？` : ''}`
    }
    const flag = word.replace(/=.*/s, '')
    const guess = didYouMean(
      flag,
      names.map((name) => `--${name}`),
    )
    throw wrongUsage`
      ${flag} is not a flag of ${script}.${guess.en}
      ${script} 没有参数 ${flag}。${guess.zh}`
  }
  const switches: string[] = names.filter((name) => !meaning(name).value)
  for (const word of words) {
    // minimist would take `--no-x` for `--x false`, `--install=no` for `--install`, `-x` for `--x`
    if (/^(--no-|-[^-]|--$)/.test(word)) refuse(word)
    const [, flag] = /^--([^=]+)=/.exec(word) ?? []
    if (flag && switches.includes(flag))
      throw wrongUsage`
        --${flag} takes no value
        --${flag} 不带值`
  }
  const parsed = minimist(words, {
    string: names.filter((name) => meaning(name).value),
    boolean: switches,
    unknown: refuse,
  })
  for (const name of names) refuseWrongValue(name, parsed[name])
  if (!parsed['module']) {
    const all = moduleNames().join(', ')
    throw wrongUsage`
      --module is missing, for example: npx zx scripts/${script}.mts --module mspider. Known modules: ${all}
      缺少 --module，例如：npx zx scripts/${script}.mts --module mspider。已知模块：${all}`
  }
  return {
    via: 'repo',
    site: 'site.yaml',
    format: 'terminal',
    order,
    // gigabytes take hours
    ...(names.includes('bundle') && { timeout: '3h' }),
    ...parsed,
    parallel: Number(parsed['parallel'] ?? 4),
  } as unknown as Flags
}

const meaning = (name: FlagName): FlagMeaning => FLAGS[name]

function refuseWrongValue(name: FlagName, value: unknown) {
  if (Array.isArray(value))
    throw wrongUsage`
      --${name} is given twice
      --${name} 重复出现`
  if (typeof value !== 'string') return
  const { value: form = '', form: pattern, example = form } = meaning(name)
  if (value === '')
    throw wrongUsage`
      --${name} needs a value: ${form}
      --${name} 需要一个值：${form}`
  if (pattern && !pattern.test(value)) {
    const isPlaceholder = /[{}\s]/.test(value)
    throw wrongUsage`
      --${name} ${JSON.stringify(value)} must be ${example}${isPlaceholder ? ', without { } or blanks: is it a placeholder of the manual?' : ''}
      --${name} 的值 ${JSON.stringify(value)} 无效，应为 ${example}${isPlaceholder ? '，不能含有 { } 或空白：是否为手册中的占位符？' : ''}`
  }
  if (name === 'timeout' && timeLimit({ timeout: value }).seconds > 86_400)
    throw wrongUsage`
      --timeout ${value} is more than a day
      --timeout ${value} 超过一天`
}

/** What the script says of itself in the remark that it begins with, and its flags. */
function help(scriptPath: string, names: FlagName[], orders: string[] = []): string {
  const [remark] = /^(\/\/.*\n)*/.exec(readFileSync(scriptPath, 'utf8'))!
  const rows = names.map((name) => {
    const { value, en, zh } = meaning(name)
    return { flag: value ? `--${name} ${value}` : `--${name}`, en, zh }
  })
  const width = Math.max(...rows.map(({ flag }) => flag.length))
  const syncs = names.includes('bundle') && !names.includes('node')
  const logins = [
    ...(names.includes('version') || syncs ? ['CHART_REPO_USERNAME', 'CHART_REPO_PASSWORD'] : []),
    ...(names.includes('install') || syncs ? ['REGISTRY_USERNAME', 'REGISTRY_PASSWORD'] : []),
  ]
  return [
    remark.replace(/^\/\/ ?/gm, ''),
    `npx zx scripts/${parse(scriptPath).name}.mts ${orders.length > 0 ? `${orders.join('|')} ` : ''}--module NAME [flags]`,
    '',
    ...rows.flatMap(({ flag, en, zh }) => [
      `  ${flag.padEnd(width)}  ${en}`,
      `  ${''.padEnd(width)}  ${zh}`,
    ]),
    '',
    `Modules · 模块: ${moduleNames().join(', ')}`,
    '',
    'Exit codes · 退出码:',
    ...EXIT_MEANINGS.map(([code, en, zh]) => `  ${code.padEnd(6)} ${en} · ${zh}`),
    '',
    ...(logins.length > 0 ? [`Environment · 环境变量: ${logins.join(', ')}`] : []),
  ].join('\n')
}
