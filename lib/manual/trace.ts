import { readFileSync } from 'node:fs'
import { parse } from 'yaml'
import { outcomeOf, type RecordedRun, variablesOf } from '../audit/show.ts'
import { type Via } from '../inputs/flags.ts'
import { type Module } from '../inputs/types.ts'
import { type DryRun, sectionsFor, stepOfSection } from './dry-runs.ts'
import {
  type Difference,
  fits,
  type Ledger,
  ledger,
  type LedgerCommand,
  type LedgerRow,
  type LedgerStep,
  matches,
  otherCommands,
  patternsFor,
  range,
  SCRIPT_OF,
  stepOf,
} from './ledger.ts'

export type Language = 'en' | 'zh'

type Page = 'heading' | 'manual' | 'run' | 'others' | 'between' | 'noManual' | 'values'
type Tag = 'same' | 'nothing' | 'output' | 'file' | 'remark' | 'notInManual'
type Execution = 'executed' | 'notExecuted' | 'elsewhere'
type Wordings = Record<Page | Tag | Execution, string> & {
  sign: string[]
  kinds: Record<string, string>
}

/** The wordings of the page, and what each kind of reason means. */
export const WORDS: Record<Language, Wordings> = parse(
  readFileSync(new URL('words.yaml', import.meta.url), 'utf8'),
)

/** A line of a manual, and its number. */
export interface ManualLine {
  number: number
  text: string
}

/** A command that is run for a row. */
export interface Command {
  text: string
  note?: string
}

/** A row of a table: the manual's lines, and what is run for them. */
export interface Row {
  /** a heading goes over both columns; an aside has nothing on the right but its tag */
  is: 'heading' | 'aside' | 'pair'
  /** 41-55; of what no manual has the script that runs it */
  place?: string
  lines: ManualLine[]
  run: Command[]
  /** a word for the right side: why nothing is run, or that it is the same */
  tag?: string
  isSame?: boolean
  why: { line?: string; kind: string; text: string }[]
}

/** A command of a recorded run, and the places in the manuals that it was run for. */
export interface Executed {
  time: string
  command: string
  ended: string
  places: string[]
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

interface Context {
  module: Module
  lang: Language
  dryRuns: DryRun[]
  /** the commands of a recorded run; undefined where none was asked for */
  executed?: Executed[]
  /** the commands of none.yaml that are on the page */
  shown: Set<LedgerCommand>
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
  const executed = run?.commands.map(executedOf)
  const context: Context = { module, lang, dryRuns, executed, shown: new Set() }
  const ledgers = module.manuals.map(ledger)
  const notes = [
    ...(run ? [`${words.executed} ${run.run}: ${run.start?.['script']}`] : []),
    ...(ledgers.length === 0 ? [words.noManual] : []),
    words.values,
  ]
  const title = `${module.title[lang]} (${module.name})`
  const blocks: Block[] = [{ is: 'title', heading: words.heading, title, notes }]
  if (ledgers.length === 0) blocks.push(...withoutManual(context))
  else
    blocks.push(
      { is: 'list', items: ledgers.map((each) => countOf(context, each)) },
      { is: 'list', items: Object.values(words.kinds) },
      ...ledgers.flatMap((each) => manualBlocks(context, each)),
    )
  const places = ledgers.flatMap(({ manual, steps }) =>
    steps.map(({ lines }) => `${manual}:${lines}`),
  )
  const elsewhere = executed?.filter((each) => !each.places.some((at) => places.includes(at))) ?? []
  if (elsewhere.length > 0)
    blocks.push(
      { is: 'part', title: words.elsewhere },
      { is: 'executed', title: words.executed, commands: elsewhere },
    )
  const others = (ledgers.length > 0 ? commandsOf(module) : [])
    .filter((each) => !context.shown.has(each))
    .flatMap((each) => otherRow(context, each) ?? [])
  if (others.length > 0) blocks.push({ is: 'part', title: words.others }, table(lang, others))
  return blocks
}

const viaOf = ({ via }: { via?: Via }) => (via ? ` --via ${via}` : '')

const commandsOf = ({ name }: Module) =>
  (ledger('none').commands ?? []).filter(({ modules }) => !modules || modules.includes(name))

const table = (lang: Language, rows: Row[]): Block => ({
  is: 'table',
  columns: [WORDS[lang].manual, WORDS[lang].run],
  rows,
})

/** A manual, step by step: where a row is in it, whichever step carries it out. */
function manualBlocks(context: Context, of: Ledger): Block[] {
  const { module, lang, executed, shown } = context
  const words = WORDS[lang]
  const parts: { step?: LedgerStep; headings: ManualLine[]; rows: LedgerRow[] }[] = []
  let headings: ManualLine[] = []
  for (const row of of.rows ?? []) {
    const step = stepOf(of, { lines: row.lines })
    if (!step && row.is === 'heading') {
      headings.push(...linesOf(row))
      continue
    }
    if (parts.length === 0 || parts.at(-1)!.step !== step) {
      parts.push({ step, headings, rows: [] })
      headings = []
    }
    parts.at(-1)!.rows.push(row)
  }
  const known = new Set<string>()
  /** the commands of none.yaml for a step */
  const otherRows = ({ step, via = 'repo' }: LedgerStep) =>
    commandsOf(module)
      .filter((each) => (each.step ?? each.before) === step && (!each.via || each.via === via))
      .flatMap((each) => {
        const row = otherRow(context, each)
        if (!row) return []
        shown.add(each)
        // two scripts may run the same for it
        const texts = row.run.map(({ text }) => text).join('\n')
        const isKnown = known.has(texts)
        known.add(texts)
        return isKnown ? [] : [row]
      })
  const blocksOf = ({ step, headings, rows }: (typeof parts)[number]): Block[] => {
    const above: Block[] = headings.length > 0 ? [{ is: 'headings', lines: headings }] : []
    const own = rows.map((row) => manualRow(context, of, row))
    if (!step) return [...above, { is: 'step', title: words.between }, table(lang, own)]
    const where = `${of.manual}:${step.lines}`
    const options = (step.step === 'install' ? ' --install' : '') + viaOf(step)
    const commands = executed?.filter(({ places }) => places.includes(where))
    const heading = words[commands?.length ? 'executed' : 'notExecuted']
    return [
      ...above,
      { is: 'step', title: step[lang], note: `${where}, ${SCRIPT_OF[step.step]}.mts${options}` },
      table(lang, [...otherRows(step), ...own]),
      ...(commands ? [{ is: 'executed' as const, title: heading, commands }] : []),
    ]
  }
  return [
    { is: 'part', title: of.manual!, note: `sha256 ${of.sha256}` },
    ...parts.flatMap(blocksOf),
  ]
}

/** The lines of a row, each with its number. */
export function linesOf({ lines, text }: Pick<LedgerRow, 'lines' | 'text'>): ManualLine[] {
  return text.split('\n').map((text, index) => ({ number: range(lines)[0] + index, text }))
}

/** A row of a manual, with the commands that its dry runs have for it. */
function manualRow({ lang, dryRuns }: Context, of: Ledger, row: LedgerRow): Row {
  const run = commandsFor(dryRuns, of, row)
  const isSame = row.is === 'command' && isRunAsPrinted(row, run)
  const isAside = row.is === 'output' || row.is === 'remark' || row.is === 'blank'
  return {
    is: row.is === 'heading' ? 'heading' : isAside ? 'aside' : 'pair',
    place: row.lines,
    lines: linesOf(row),
    run,
    tag: tagOf(row, isSame, run.length > 0, WORDS[lang]),
    isSame,
    why: whys(lang, row.differs),
  }
}

function tagOf({ is }: LedgerRow, isSame: boolean, isRun: boolean, words: Wordings) {
  if (is === 'output' || is === 'remark') return words[is]
  if (isSame) return words.same
  if (is === 'heading' || is === 'blank' || isRun) return
  return is === 'file' ? words.file : words.nothing
}

const whys = (lang: Language, differs: Difference[] = []): Row['why'] =>
  differs.map(({ line, kind, ...texts }) => ({ line, kind: nameOf(kind, lang), text: texts[lang] }))

/** What no manual has, and why it is run. */
const ownRow = (lang: Language, run: Command[], each?: LedgerCommand): Row => ({
  is: 'pair',
  lines: [],
  run,
  why: whys(lang, each?.differs).map((why) => ({ ...why, kind: WORDS[lang].notInManual })),
})

/** A command that no manual has; undefined where none of the dry runs has it. */
function otherRow({ lang, dryRuns }: Context, each: LedgerCommand): Row | undefined {
  const commands = dryRuns
    .filter((run) => fits(each, run))
    .map((run) => run.sections.flatMap(({ commands }) => commands))
    .map((all) => each.run.flatMap((pattern) => all.filter((text) => matches(pattern, text))))
    .find((found) => found.length > 0)
  if (!commands) return
  const run = [...new Set(commands)].map((text) => ({ text }))
  return { ...ownRow(lang, run, each), place: each.script + viaOf(each) }
}

/**
 * The commands that the dry runs have for a row, in their order: below the heading of its step, those
 * that have its patterns. Where a site without a chart repository runs something else, that too.
 */
export function commandsFor(dryRuns: DryRun[], of: Ledger, row: LedgerRow): Command[] {
  const step = stepOf(of, row)
  if (!row.run || !step) return []
  const found: Command[] = []
  for (const kind of ['HARBOR', 'LOCAL'] as const) {
    // the step is carried out alike in each of them
    const sections = dryRuns
      .filter((run) => run.kind === kind && fits(row, run))
      .map((run) => sectionsFor(run.sections, of.manual, step.lines))
      .find((each) => each.length > 0)
    const note = kind === 'LOCAL' && row.kind !== 'LOCAL' ? 'kind: LOCAL' : undefined
    for (const text of (sections ?? []).flatMap(({ commands }) => commands)) {
      const isNew = !found.some((each) => each.text === text)
      if (isNew && row.run.some((pattern) => matches(pattern, text))) found.push({ text, note })
    }
  }
  return found
}

/** Is what is run for a command just what the manual prints? A footnote mark is not part of it. */
export const isRunAsPrinted = ({ text }: LedgerRow, run: Command[]): boolean =>
  run.map((each) => each.text).join('\n') === text.replaceAll(/ # \(\d+\)$/gm, '')

/** The name of a kind of reason. */
const nameOf = (kind: string, lang: Language) => WORDS[lang].kinds[kind]!.split(/[:：]/)[0]!

/**
 * How many lines of a manual's commands and files are the same in what is run (remarks
 * apart), and for how many lines of the manual each kind of reason is given: a line may have several.
 */
function countOf({ lang, dryRuns }: Context, of: Ledger): string {
  const numbersIn = (lines: string) => {
    const [first, last] = range(lines)
    return Array.from({ length: last - first + 1 }, (_, index) => first + index)
  }
  const rows = of.rows ?? []
  const bare = (line: string) => line.replace(/\s+# .*$/, '').trim()
  const lines = rows
    .filter(({ is }) => is === 'command' || is === 'file')
    .flatMap((row) => {
      const run = commandsFor(dryRuns, of, row)
      const ours = run.flatMap(({ text }) => text.split('\n').map(bare))
      const given = (row.differs ?? []).flatMap(({ line }) =>
        line && line !== row.lines ? numbersIn(line) : [],
      )
      return linesOf(row).map(
        ({ number, text }) => ours.includes(bare(text)) && !given.includes(number),
      )
    })
  const [all, same] = [lines.length, lines.filter(Boolean).length]
  const counts = Object.keys(WORDS[lang].kinds).flatMap((kind) => {
    const numbers = rows.flatMap(({ lines, differs = [] }) =>
      differs.flatMap(({ line = lines, kind: given }) => (given === kind ? numbersIn(line) : [])),
    )
    return numbers.length > 0 ? [`${nameOf(kind, lang)} ${new Set(numbers).size}`] : []
  })
  return lang === 'en'
    ? `${of.manual}: of ${all} lines of commands and files ${same} are the same; lines with a reason (a line may have several): ${counts.join(', ')}`
    : `${of.manual}：命令和文件共 ${all} 行，其中 ${same} 行与手册一致；有差异原因的行数（一行可有多个原因）：${counts.join('，')}`
}

/** The commands of a module's dry runs, below their own headings. */
function withoutManual({ module, lang, dryRuns }: Context): Block[] {
  return dryRuns.flatMap((run): Block[] => {
    const others = otherCommands(ledger('none'), module, run)
    const via = run.script === 'upgrade' ? viaOf(run) : ''
    const sections = run.sections.filter(({ commands }) => commands.length > 0)
    const blocks = sections.flatMap((section): Block[] => {
      const step = stepOfSection(section)
      const patterns = step ? patternsFor(step, module) : []
      const rows: Row[] = []
      let before: LedgerCommand | undefined
      for (const text of section.commands) {
        const isIn = (pattern: string) => matches(pattern, text)
        const other = patterns.some(isIn) ? undefined : others.find(({ run }) => run.some(isIn))
        // commands that are run for one reason
        if (other && other === before) rows.at(-1)!.run.push({ text })
        else rows.push(ownRow(lang, [{ text }], other))
        before = other
      }
      const [en = '', zh = en] = section.title.split(' · ')
      return [{ is: 'step', title: step?.[lang] ?? { en, zh }[lang] }, table(lang, rows)]
    })
    return [{ is: 'part', title: `${run.script}.mts${via}` }, ...blocks]
  })
}

const executedOf = ({ command, ended }: RecordedRun['commands'][number]): Executed => ({
  time: command.time,
  command: `${command['command']}\n${variablesOf(command)}`.trimEnd(),
  ended: ended ? outcomeOf(ended) : '–',
  places: String(command['manual']).split(', '),
})
