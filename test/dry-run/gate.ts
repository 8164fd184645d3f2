import { sha256 } from '../../lib/base/hash.ts'
import { type Module } from '../../lib/inputs/types.ts'
import { type DryRun, sectionsFor, stepOfSection } from '../../lib/manual/dry-runs.ts'
import {
  fits,
  type Ledger,
  type LedgerCommand,
  type LedgerRow,
  matches,
  otherCommands,
  patternsFor,
  range,
  rowsOf,
  SCRIPT_OF,
  stepOf,
} from '../../lib/manual/ledger.ts'
import { commandsFor, isRunAsPrinted, linesOf } from '../../lib/manual/trace.ts'
import { demandsOf, fenceLines, HEADING, isWhatItSays } from '../ledger/page.ts'

/** What the gate holds against each other. */
export interface Audited {
  /** name of the ledger, for example skoala.en → the manual, line by line; none where it is not at hand */
  manuals: Map<string, string[]>
  ledgers: Map<string, Ledger>
  /** modules/manuals/none.yaml */
  none: Ledger
  dryRuns: AuditedRun[]
}

export interface AuditedRun extends DryRun {
  /** of the golden file */
  name: string
  module: Pick<Module, 'name' | 'manuals' | 'releases'>
  isInstall?: boolean
  /** for another site or another chart package: its commands are known, but need not be all of a row's */
  isVariant?: boolean
}

/** What is not accounted for, each as a sentence that begins with where it is. */
export function problemsOf({ manuals, ledgers, none, dryRuns }: Audited): string[] {
  const problems: string[] = []
  for (const [name, ledger] of ledgers) {
    const manual = manuals.get(name)
    if (manual) {
      problems.push(...linesWithoutRow(name, manual, ledger.rows ?? []))
      const found = sha256(manual.join('\n'))
      if (found !== ledger.sha256)
        problems.push(`${name}.md: it is not the file of its ledger: sha256 ${found}`)
    }
    const own = dryRuns.filter(({ module }) => module.manuals.includes(name))
    for (const row of ledger.rows ?? []) problems.push(...rowProblems(name, ledger, row, own))
  }
  for (const each of none.commands ?? []) problems.push(...entryProblems(each, dryRuns))
  for (const dryRun of dryRuns) problems.push(...commandsWithoutRow(dryRun, ledgers, none))
  return problems
}

/** Headings, lines in fences and prose that asks for something have rows that say the same. */
function linesWithoutRow(name: string, manual: string[], rows: LedgerRow[]): string[] {
  const problems: string[] = []
  const inside = fenceLines(manual)
  const covered = new Set<number>()
  let before = 0
  for (const row of rows) {
    const [first, last] = range(row.lines)
    const texts = linesOf(row)
    if (texts.length !== last - first + 1)
      problems.push(`${name}.md:${first}: its row has another number of lines`)
    for (let number = first; number <= last; number++) {
      const text = texts[number - first]?.text
      const line = manual[number - 1] ?? ''
      const where = `${name}.md:${number}`
      const fence = inside.get(number)
      const said = fence ? line.slice(fence.indent).trimEnd() : line.trim()
      if (said !== text?.trimEnd() || (fence && line.slice(0, fence.indent).trim() !== ''))
        problems.push(`${where}: the manual says something else than its row: ${line}`)
      // a command may go on over lines that look like something else
      if (number === first && !isWhatItSays(row.is, line, fence))
        problems.push(`${where}: its row calls it ${row.is}: ${line}`)
      // one line of prose can ask for two things
      if (covered.has(number) && row.is !== 'prose') problems.push(`${where}: two rows`)
      if (number < before) problems.push(`${where}: its row is behind that of line ${before}`)
      covered.add((before = number))
    }
  }
  const demands = demandsOf(manual)
  manual.forEach((line, index) => {
    const number = index + 1
    if (covered.has(number)) return
    const where = `${name}.md:${number}`
    if (inside.has(number)) problems.push(`${where}: without a row: ${line}`)
    else if (HEADING.test(line)) problems.push(`${where}: a heading without a row: ${line}`)
    else if (demands.has(number))
      problems.push(`${where}: it asks for something, and has no row: ${line}`)
  })
  return problems
}

/** A command of the manual is carried out as its row says, or the row says why it is not. */
function rowProblems(name: string, of: Ledger, row: LedgerRow, dryRuns: AuditedRun[]): string[] {
  const where = `${name}.yaml, lines ${row.lines}`
  const problems: string[] = []
  const [first, last] = range(row.lines)
  for (const { line = row.lines, name } of row.differs ?? []) {
    if (range(line)[0] < first || range(line)[1] > last)
      problems.push(`${where}: its reason ${name} is for line ${line}, which is not in it`)
  }
  // a command that is none, like `helm update repo`, has a reason
  const isRefused = row.differs?.some(({ kind }) => kind === 'misprint')
  if (row.is === 'command' && !row.run && !isRefused)
    return [...problems, `${where}: a command, and nothing is run for it`]
  if (!['command', 'file', 'prose'].includes(row.is) && (row.run || row.differs))
    return [...problems, `${where}: ${row.is}, and something is run for it`]
  if (!row.run) return problems
  const step = stepOf(of, row)
  if (!step) return [...problems, `${where}: no step carries it out`]
  const found = dryRuns.flatMap((dryRun) => {
    if (dryRun.isVariant || !fits(row, dryRun)) return []
    const sections = sectionsFor(dryRun.sections, of.manual, step.lines)
    if (sections.length === 0) return []
    return [{ dryRun, commands: sections.flatMap(({ commands }) => commands) }]
  })
  if (found.length === 0)
    return [...problems, `${where}: no dry run of ${SCRIPT_OF[step.step]} has its step`]
  for (const { dryRun, commands } of found) {
    for (const pattern of new Set(row.run)) {
      const wanted = row.run.filter((each) => each === pattern).length
      const count = commands.filter((text) => matches(pattern, text)).length
      if (count !== wanted)
        problems.push(
          `${where}: "${pattern}" is in ${count} commands of ${dryRun.name}, not in ${wanted}`,
        )
    }
  }
  const run = commandsFor(
    found.map(({ dryRun }) => dryRun),
    of,
    row,
  )
  if (row.is === 'command' && !isRunAsPrinted(row, run) && !row.differs?.length)
    problems.push(`${where}: we run something else, and nothing says why`)
  return problems
}

/** What no manual has is run, each pattern by one command, in each dry run of its script. */
export function entryProblems(each: LedgerCommand, dryRuns: AuditedRun[]): string[] {
  const own = dryRuns.filter(
    (run) =>
      run.module.manuals.length > 0 &&
      !run.isInstall &&
      fits(each, run) &&
      (each.script === run.script || each.mayBeMissing) &&
      (each.mayBeMissing || !run.isVariant) &&
      (!each.modules || each.modules.includes(run.module.name)),
  )
  const wrong = own.map((run) => {
    const commands = run.sections.flatMap(({ commands }) => commands)
    return each.run.flatMap((pattern) => {
      const count = commands.filter((text) => matches(pattern, text)).length
      return count === 1 ? [] : [`"${pattern}" is in ${count} commands of ${run.name}, not in 1`]
    })
  })
  if (own.length === 0 || (each.mayBeMissing && wrong.every((problems) => problems.length > 0)))
    return [`none.yaml: in no dry run of ${each.script}: ${each.run.join(', ')}`]
  return each.mayBeMissing ? [] : wrong.flat().map((problem) => `none.yaml: ${problem}`)
}

/** Each command of a dry run is in a row of its step, or among those that no manual has. */
function commandsWithoutRow(
  dryRun: AuditedRun,
  ledgers: Map<string, Ledger>,
  none: Ledger,
): string[] {
  const { name, module, sections } = dryRun
  return sections.flatMap((section) => {
    const rows = module.manuals.flatMap((name) => {
      const of = ledgers.get(name)!
      return of.steps
        .filter(({ lines }) => section.places.includes(`${of.manual}:${lines}`))
        .flatMap((step) => rowsOf(of, step).filter((row) => fits(row, dryRun)))
    })
    const own = stepOfSection(section)
    const steps = new Set([
      ...module.manuals.flatMap((name) => {
        const { manual, steps } = ledgers.get(name)!
        return steps
          .filter(({ lines }) => section.places.includes(`${manual}:${lines}`))
          .map(({ step }) => step)
      }),
      ...(own ? [own.step] : []),
    ])
    const others = otherCommands(none, module, dryRun).filter(
      ({ step }) => !step || steps.has(step),
    )
    const known = [
      ...rows.flatMap(({ run }) => run ?? []),
      ...(module.manuals.length === 0 && own ? patternsFor(own, module) : []),
      // of several releases each has its own version
      ...(module.releases.length > 1 ? ['export version'] : []),
      ...others.flatMap(({ run }) => run),
    ]
    return section.commands
      .filter((text) => !known.some((pattern) => matches(pattern, text)))
      .map((text) => `${name}: no row of "${section.title}" has this command: ${text}`)
  })
}
