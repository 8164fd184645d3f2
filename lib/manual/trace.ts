import { type RecordedRun } from '../audit/show.ts'
import { type Module } from '../inputs/types.ts'
import { type DryRun, sectionsFor, stepOfSection } from './dry-runs.ts'
import {
  type Difference,
  fits,
  type Ledger,
  ledger,
  type LedgerCommand,
  type LedgerRow,
  matches,
  otherCommands,
  patternsFor,
  range,
  REASON_KINDS,
  type ReasonKind,
  SCRIPT_OF,
  stepOf,
} from './ledger.ts'

export type Language = 'en' | 'zh'

/** What each kind of reason means. */
const KINDS: Record<ReasonKind, Record<Language, string>> = {
  misprint: {
    en: 'misprint: it is wrong, or cannot work, as printed',
    zh: '手册笔误：照原文执行会出错，或原文有误',
  },
  unsafe: {
    en: 'unsafe: it can work, but also fail, give something away, lose or half-do something',
    zh: '不安全：可能可以执行，但也可能失败、泄露或丢失数据，或只执行到一半',
  },
  ambiguous: {
    en: 'ambiguous: it depends on something that is not said',
    zh: '不明确：取决于手册未说明的内容',
  },
  unstated: {
    en: 'unstated: asked for, without a command',
    zh: '未给出命令：手册只提出了要求',
  },
  efficient: {
    en: 'efficient: the same result with less time or room',
    zh: '更高效：结果相同，耗时更短或占用资源更少',
  },
  redundant: {
    en: 'redundant: another command does it already',
    zh: '多余：已由其他命令完成',
  },
  alternative: {
    en: 'alternative: the other one of two ways',
    zh: '备选：二选一',
  },
  value: {
    en: 'value: the site’s in place of a sample or placeholder',
    zh: '取值：以站点的值代替示例或占位符',
  },
}

const WORDS = {
  en: {
    heading: 'The commands of the manual, line by line, beside what is run',
    manual: 'the manual',
    run: 'what we run',
    same: 'as the manual has it',
    nothing: 'no command of its own',
    output: 'sample output',
    file: 'content of a file',
    remark: 'a remark',
    executed: 'executed in the run',
    notExecuted: 'not executed in this run',
    elsewhere: 'executed in the run, at no place of these manuals',
    others: 'Commands that no manual has',
    between: 'Between the steps',
    notInManual: 'not in the manual',
    noManual:
      'There is not a manual of this module on record: shown are the commands of its dry runs',
    values:
      'Shown are the headings of the manual, every line of its code fences, and the text that asks for something. Hosts and names are those of site.example.yaml; {like_this} on the right is known in a run only. Commands are run in state/<site>/<module>/ beside the site file, with the kubeconfig and context of the site file and a helm configuration of their own; where one fails, also within a pipe, the script ends there (set -euo pipefail). $CHART_REPO_* and $REGISTRY_* are the logins, from the environment. The images come first, by sync-images or load-images; upgrade runs helm-repo (via repo), backup-values and update-crds (where the module has CRDs) by itself, in this order. Checks (files read back, the cluster, registry and nodes asked before and after) and files that the scripts write themselves are no commands and not listed; the output of a dry run names each at its place.',
    sign: ['Checked by', 'Date', 'Signature'],
  },
  zh: {
    heading: '手册命令逐行对照',
    manual: '手册',
    run: '将执行的命令',
    same: '与手册一致',
    nothing: '没有单独的命令',
    output: '示例输出',
    file: '文件内容',
    remark: '注释',
    executed: '该次运行中执行的命令',
    notExecuted: '该次运行中未执行',
    elsewhere: '该次运行中执行、但不属于上述手册任何步骤的命令',
    others: '手册中没有的命令',
    between: '步骤之间',
    notInManual: '手册中没有',
    noManual: '未收录该模块的手册：以下为其试运行（dry run）中的命令',
    values:
      '本页列出手册的标题、代码块中的每一行，以及正文中提出要求的内容。主机和名称取自 site.example.yaml；右侧形如 {like_this} 的占位符，其值在运行时才能确定。命令在站点配置旁的 state/<站点>/<模块>/ 中执行，使用站点配置中的 kubeconfig 和 context，以及独立的 helm 配置；任一命令（包括管道中的命令）失败，脚本即在此处终止（set -euo pipefail）。$CHART_REPO_* 和 $REGISTRY_* 为登录信息，取自环境变量。先用 sync-images 或 load-images 准备镜像；upgrade 会自行依次执行 helm-repo（via repo）、backup-values 和 update-crds（模块有 CRD 时）。检查（读回文件，执行前后查询集群、镜像仓库和节点）以及脚本自行写入的文件不是命令，未在此列出；试运行（dry run）的输出会在相应位置逐一列出。',
    sign: ['核对人', '日期', '签名'],
  },
} as const

/** A line of a manual, and its number. */
export interface ManualLine {
  number: number
  text: string
}

/** A row of a table: the manual's lines, and what is run for them. */
export interface Row {
  /** a heading goes over both columns; an aside has nothing on the right but its tag */
  is: 'heading' | 'aside' | 'pair'
  /** 41-55; '' for what no manual has */
  place: string
  lines: ManualLine[]
  run: { text: string; note?: string }[]
  /** a word for the right side: why nothing is run, or that it is the same */
  tag: string
  isSame: boolean
  why: { line?: string; kind: string; text: string }[]
}

export interface Executed {
  time: string
  command: string
  ended: string
}

/** What a trace consists of, in its order; each format writes each block. */
export type Block =
  | { is: 'title'; heading: string; title: string; notes: string[] }
  | { is: 'list'; items: string[] }
  /** a manual, or another part */
  | { is: 'part'; title: string; note?: string }
  | { is: 'headings'; lines: ManualLine[] }
  | { is: 'step'; title: string; note?: string }
  | { is: 'table'; columns: readonly [string, string]; rows: Row[] }
  | { is: 'executed'; title: string; commands: Executed[] }
  | { is: 'sign'; names: readonly string[] }

interface Context {
  module: Module
  lang: Language
  dryRuns: DryRun[]
  run?: RecordedRun
}

/**
 * The manuals of a module line by line, beside what is run for them; of a module without a manual the
 * commands of its dry runs.
 * @param dryRuns those of the module: recorded ones, or started ones where none are on record
 * @param run a recorded run, whose commands are put to the steps that they were run for
 */
export function traceOf(
  module: Module,
  lang: Language,
  dryRuns: DryRun[],
  run?: RecordedRun,
): Block[] {
  const words = WORDS[lang]
  const context: Context = { module, lang, dryRuns, ...(run && { run }) }
  const ledgers = module.manuals.map(ledger)
  const shown = new Set<LedgerCommand>()
  const body =
    ledgers.length > 0
      ? ledgers.flatMap((each) => manualBlocks(context, each, shown))
      : withoutManual(context)
  const otherRows = (ledgers.length > 0 ? (ledger('none').commands ?? []) : [])
    .filter((each) => !shown.has(each) && isOf(each, module))
    .flatMap((each) => otherRow(context, each) ?? [])
  const places = ledgers.flatMap(({ manual, steps }) =>
    steps.map(({ lines }) => `${manual}:${lines}`),
  )
  const elsewhere = run
    ? executedAt(run, (at) => !at.some((place) => place && places.includes(place)))
    : []
  return [
    {
      is: 'title',
      heading: words.heading,
      title: `${module.title[lang]} (${module.name})`,
      notes: [
        ...(run ? [`${words.executed} ${run.run}: ${run.start?.['script']}`] : []),
        ...(ledgers.length === 0 ? [words.noManual] : []),
        words.values,
      ],
    },
    ...(ledgers.length > 0
      ? [
          { is: 'list' as const, items: ledgers.map((each) => countOf(context, each)) },
          { is: 'list' as const, items: REASON_KINDS.map((kind) => KINDS[kind][lang]) },
        ]
      : []),
    ...body,
    ...(elsewhere.length > 0
      ? [
          { is: 'part' as const, title: words.elsewhere },
          { is: 'executed' as const, title: words.executed, commands: elsewhere },
        ]
      : []),
    ...(otherRows.length > 0
      ? [{ is: 'part' as const, title: words.others }, table(lang, otherRows)]
      : []),
    { is: 'sign', names: words.sign },
  ]
}

const isOf = ({ modules }: LedgerCommand, { name }: Module) => !modules || modules.includes(name)

const table = (lang: Language, rows: Row[]): Block => ({
  is: 'table',
  columns: [WORDS[lang].manual, WORDS[lang].run],
  rows,
})

/** A manual, step by step; the commands of none.yaml that are shown in it are added to `shown`. */
function manualBlocks(context: Context, of: Ledger, shown: Set<LedgerCommand>): Block[] {
  const { module, lang, run } = context
  const words = WORDS[lang]
  const blocks: Block[] = [{ is: 'part', title: of.manual!, note: `sha256 ${of.sha256}` }]
  const known = new Set<string>()
  let headings: ManualLine[] = []
  let present: { where?: string; rows: Row[] } | undefined
  const endStep = () => {
    if (!present) return
    blocks.push(table(lang, present.rows))
    const { where } = present
    if (!where || !run) return
    const commands = executedAt(run, (places) => places.includes(where))
    const title = commands.length > 0 ? words.executed : words.notExecuted
    blocks.push({ is: 'executed', title, commands })
  }
  for (const row of of.rows ?? []) {
    // where it is in the manual, whichever step carries it out
    const step = stepOf(of, { lines: row.lines })
    if (!step && row.is === 'heading') {
      headings.push(...linesOf(row))
      continue
    }
    const where = step?.lines && `${of.manual}:${step.lines}`
    if (!present || present.where !== where) {
      endStep()
      if (headings.length > 0) blocks.push({ is: 'headings', lines: headings })
      headings = []
      const options = [
        ...(step?.step === 'install' ? ['--install'] : []),
        ...(step?.via ? [`--via ${step.via}`] : []),
      ]
      const script = step && [`${SCRIPT_OF[step.step]}.mts`, ...options].join(' ')
      blocks.push({
        is: 'step',
        title: step ? step[lang] : words.between,
        ...(where && { note: `${where}, ${script}` }),
      })
      present = { ...(where && { where }), rows: [] }
      const others = (ledger('none').commands ?? []).filter(
        (each) =>
          step &&
          (each.step ?? each.before) === step.step &&
          (!each.via || each.via === (step.via ?? 'repo')) &&
          isOf(each, module),
      )
      for (const each of others) {
        const row = otherRow(context, each)
        if (!row) continue
        shown.add(each)
        // two scripts may run the same for it
        const texts = row.run.map(({ text }) => text).join('\n')
        if (!known.has(texts)) present.rows.push(row)
        known.add(texts)
      }
    }
    present.rows.push(manualRow(context, of, row))
  }
  endStep()
  return blocks
}

/** The lines of a row, each with its number. */
export function linesOf({ lines, text }: Pick<LedgerRow, 'lines' | 'text'>): ManualLine[] {
  return text.split('\n').map((text, index) => ({ number: range(lines)[0] + index, text }))
}

/** A row of a manual, with the commands that its dry runs have for it. */
function manualRow(context: Context, of: Ledger, row: LedgerRow): Row {
  const words = WORDS[context.lang]
  const run = commandsFor(context.dryRuns, of, row)
  const isSame = row.is === 'command' && isRunAsPrinted(row, run)
  const isAside = row.is === 'output' || row.is === 'remark' || row.is === 'blank'
  return {
    is: row.is === 'heading' ? 'heading' : isAside ? 'aside' : 'pair',
    place: row.lines,
    lines: linesOf(row),
    run,
    tag:
      row.is === 'output' || row.is === 'remark'
        ? words[row.is]
        : row.is === 'heading' || row.is === 'blank'
          ? ''
          : isSame
            ? words.same
            : run.length > 0
              ? ''
              : row.is === 'file'
                ? words.file
                : words.nothing,
    isSame,
    why: (row.differs ?? []).map((each) => whyOf(context.lang, each)),
  }
}

const whyOf = (lang: Language, { line, kind, ...texts }: Difference): Row['why'][number] => ({
  ...(line && { line }),
  kind: nameOf(kind, lang),
  text: texts[lang],
})

/** A command that no manual has; undefined where none of the dry runs has it. */
function otherRow({ lang, dryRuns }: Context, each: LedgerCommand): Row | undefined {
  const commands = dryRuns
    .filter((run) => fits(each, run))
    .map((run) => run.sections.flatMap(({ commands }) => commands))
    .map((all) => each.run.flatMap((pattern) => all.filter((text) => matches(pattern, text))))
    .find((found) => found.length > 0)
  if (!commands) return
  return {
    ...EMPTY,
    place: `${each.script}${each.via ? ` --via ${each.via}` : ''}`,
    run: [...new Set(commands)].map((text) => ({ text })),
    why: whys(lang, each),
  }
}

const EMPTY: Row = { is: 'pair', place: '', lines: [], run: [], tag: '', isSame: false, why: [] }

const whys = (lang: Language, each?: LedgerCommand): Row['why'] =>
  (each?.differs ?? []).map((difference) => ({
    ...whyOf(lang, difference),
    kind: WORDS[lang].notInManual,
  }))

/**
 * The commands that the dry runs have for a row, in their order: below the heading of its step, those
 * that have its patterns. Where a site without a chart repository runs something else, that too.
 */
export function commandsFor(
  dryRuns: DryRun[],
  of: Ledger,
  row: LedgerRow,
): { text: string; note?: string }[] {
  const step = stepOf(of, row)
  if (!row.run || !step) return []
  const found: { text: string; note?: string }[] = []
  for (const kind of ['HARBOR', 'LOCAL'] as const) {
    // the step is carried out alike in each of them
    const sections = dryRuns
      .filter((run) => run.kind === kind && fits(row, run))
      .map((run) => sectionsFor(run.sections, of.manual, step.lines))
      .find((each) => each.length > 0)
    const commands = (sections ?? [])
      .flatMap(({ commands }) => commands)
      .filter((text) => row.run!.some((pattern) => matches(pattern, text)))
    for (const text of commands) {
      if (found.some((each) => each.text === text)) continue
      found.push({ text, ...(kind === 'LOCAL' && row.kind !== 'LOCAL' && { note: 'kind: LOCAL' }) })
    }
  }
  return found
}

/** Is what is run for a command just what the manual prints? A footnote mark is not part of it. */
export const isRunAsPrinted = ({ text }: LedgerRow, run: { text: string }[]): boolean =>
  run.map((each) => each.text).join('\n') === text.replaceAll(/ # \(\d+\)$/gm, '')

/** The name of a kind of reason. */
const nameOf = (kind: ReasonKind, lang: Language) => KINDS[kind][lang].split(/[:：]/)[0]!

/**
 * How many lines of a manual's commands and files are the same in what is run (remarks
 * apart), and for how many lines of the manual each kind of reason is given: a line may have several.
 */
function countOf({ lang, dryRuns }: Context, of: Ledger): string {
  let same = 0
  let all = 0
  const lines = new Map<ReasonKind, Set<number>>()
  for (const row of of.rows ?? []) {
    const given = new Set<number>()
    for (const { line = row.lines, kind } of row.differs ?? []) {
      const [first, last] = range(line)
      const numbers = lines.get(kind) ?? new Set()
      lines.set(kind, numbers)
      for (let number = first; number <= last; number++) {
        numbers.add(number)
        if (line !== row.lines) given.add(number)
      }
    }
    if (row.is !== 'command' && row.is !== 'file') continue
    const run = commandsFor(dryRuns, of, row)
    const bare = (line: string) => line.replace(/\s+# .*$/, '').trim()
    const ours = new Set(run.flatMap(({ text }) => text.split('\n').map(bare)))
    for (const { number, text } of linesOf(row)) {
      all++
      if (ours.has(bare(text)) && !given.has(number)) same++
    }
  }
  const counts = REASON_KINDS.flatMap((kind) => {
    const count = lines.get(kind)?.size
    return count ? [`${nameOf(kind, lang)} ${count}`] : []
  })
  return lang === 'en'
    ? `${of.manual}: of ${all} lines of commands and files ${same} are the same; lines with a reason (a line may have several): ${counts.join(', ')}`
    : `${of.manual}：命令和文件共 ${all} 行，其中 ${same} 行与手册一致；有差异原因的行数（一行可有多个原因）：${counts.join('，')}`
}

/** The commands of a module's dry runs, below their own headings. */
function withoutManual({ module, lang, dryRuns }: Context): Block[] {
  return dryRuns.flatMap((run): Block[] => {
    const others = otherCommands(ledger('none'), module, run)
    const via = run.script === 'upgrade' ? ` --via ${run.via}` : ''
    return [
      { is: 'part', title: `${run.script}.mts${via}` },
      ...run.sections
        .filter(({ commands }) => commands.length > 0)
        .flatMap((section): Block[] => {
          const step = stepOfSection(section)
          const rows: Row[] = []
          let before: LedgerCommand | undefined
          for (const text of section.commands) {
            const isOfStep = step && patternsFor(step, module).some((each) => matches(each, text))
            const other = isOfStep
              ? undefined
              : others.find((each) => each.run.some((one) => matches(one, text)))
            // commands that are run for one reason
            if (other && other === before) rows.at(-1)!.run.push({ text })
            else rows.push({ ...EMPTY, run: [{ text }], why: whys(lang, other) })
            before = other
          }
          const [en = '', zh = en] = section.title.split(' · ')
          return [
            { is: 'step', title: step?.[lang] ?? (lang === 'zh' ? zh : en) },
            table(lang, rows),
          ]
        }),
    ]
  })
}

/** The commands that a run recorded at some places of the manuals. */
function executedAt(
  { commands }: RecordedRun,
  isAt: (places: (string | undefined)[]) => boolean,
): Executed[] {
  return commands
    .filter(({ command }) => isAt(String(command['manual']).split(', ')))
    .map(({ command, ended }) => {
      const variables = Object.entries(command['variables'] ?? {})
        .map(([name, value]) => `${name}=${value}`)
        .join(' ')
      return {
        time: command.time,
        command: `${command['command']}\n${variables}`.trimEnd(),
        ended: ended ? `exit ${ended['exitCode']}, ${Number(ended['seconds']).toFixed(1)} s` : '–',
      }
    })
}
