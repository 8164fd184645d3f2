import { sha256 } from '../../lib/audit/write.ts'
import {
  range,
  SCRIPT_OF,
  stepOf,
  type Ledger,
  type LedgerRow,
  type StepName,
} from '../../lib/manual/ledger.ts'

/** What the gate holds against each other. */
export interface Audited {
  /** name of the ledger, for example skoala.en → the manual, line by line; none where it is not at hand */
  manuals: Map<string, string[]>
  ledgers: Map<string, Ledger>
  /** modules/manuals/none.yaml */
  none: Ledger
  dryRuns: DryRun[]
}

export interface DryRun {
  script: string
  module: string
  /** the ledgers of its module */
  manuals: string[]
  via: 'repo' | 'package'
  isInstall?: boolean
  /** for a site without a chart repository (kind: LOCAL) */
  isLocal?: boolean
  text: string
}

/** Prose that asks for something to be done. */
const DEMAND =
  /each node|tag the images|tag image|proceed to the next step|helm update repo|parameters in this YAML file are required|outdated Helm version|(recommended|advisable|suggested) (to|that you) (update|override)|imageRegistry|image\.registry|container management|每个节点|需要 tag|进行下一步|helm 版本过低|建议您覆盖/i

/** The lines of a manual that are inside a fence: how far it is indented, and of which language. */
export function fenceLines(manual: string[]): Map<number, { indent: number; language: string }> {
  const inside = new Map<number, { indent: number; language: string }>()
  let fence: { indent: number; language: string } | undefined
  manual.forEach((line, index) => {
    const [, blanks, language] = /^(\s*)(?:```|~~~)(\w*)/.exec(line) ?? []
    if (blanks !== undefined)
      fence = fence ? undefined : { indent: blanks.length, language: language! }
    else if (fence) inside.set(index + 1, fence)
  })
  return inside
}

/** A heading, or the name of a tab. */
export const HEADING = /^\s*(#+ |=== ")/

/** What a row is, the line in the manual must be. */
function isWhatItSays(is: LedgerRow['is'], line: string, language: string | undefined): boolean {
  const isRemark = line.trimStart().startsWith('#')
  const isBlank = line.trim() === ''
  if (language === undefined) return is === (HEADING.test(line) ? 'heading' : 'prose')
  if (language === 'yaml') return is === 'file'
  if (isBlank || isRemark) return is === (isBlank ? 'blank' : 'remark')
  return is === 'output' || (is === 'command' && ['shell', 'bash'].includes(language))
}

const linesOf = (row: LedgerRow) => {
  const [first, last] = range(row.lines)
  const texts = row.text.replace(/\n$/, '').split('\n')
  return Array.from({ length: last - first + 1 }, (_, index) => ({
    number: first + index,
    text: texts[index],
    isAll: texts.length === last - first + 1,
  }))
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
    for (const row of ledger.rows ?? [])
      problems.push(...rowWithoutCommand(name, ledger, row, dryRuns))
  }
  for (const { script, modules, via, run } of none.commands ?? []) {
    const own = dryRuns.filter(
      (each) =>
        each.script === script &&
        !each.isInstall &&
        (!via || each.via === via) &&
        (!modules || modules.includes(each.module)),
    )
    if (own.length === 0 || own.some((each) => !has(each, run.replaceAll('{module}', each.module))))
      problems.push(`none.yaml: not in each dry run of ${script}: ${run}`)
  }
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
    for (const { number, text, isAll } of linesOf(row)) {
      const line = manual[number - 1] ?? ''
      const where = `${name}.md:${number}`
      const fence = inside.get(number)
      const said = fence ? line.slice(fence.indent).trimEnd() : line.trim()
      if (!isAll) problems.push(`${where}: its row has another number of lines`)
      if (said !== text?.trimEnd() || (fence && line.slice(0, fence.indent).trim() !== ''))
        problems.push(`${where}: the manual says something else than its row: ${line}`)
      // a command may go on over lines that look like something else
      if (number === range(row.lines)[0] && !isWhatItSays(row.is, line, fence?.language))
        problems.push(`${where}: its row calls it ${row.is}: ${line}`)
      // one line of prose can ask for two things
      if (covered.has(number) && row.is !== 'prose') problems.push(`${where}: two rows`)
      if (number < before) problems.push(`${where}: its row stands behind that of line ${before}`)
      covered.add((before = number))
    }
  }
  manual.forEach((line, index) => {
    const number = index + 1
    if (covered.has(number)) return
    const where = `${name}.md:${number}`
    if (inside.has(number)) problems.push(`${where}: no row: ${line}`)
    else if (HEADING.test(line)) problems.push(`${where}: a heading without a row: ${line}`)
    else if (DEMAND.test(line))
      problems.push(`${where}: it asks for something, and has no row: ${line}`)
  })
  return problems
}

/** A command of the manual is carried out as its row says, or the row says why it is not. */
function rowWithoutCommand(
  name: string,
  ledger: Ledger,
  row: LedgerRow,
  dryRuns: DryRun[],
): string[] {
  const where = `${name}.yaml, lines ${row.lines}`
  // a command that is none, like `helm update repo`, has a reason
  const isRefused = row.differs?.some(({ reason }) => reason === 'misprint')
  if (row.is === 'command' && !row.run && !isRefused)
    return [`${where}: a command, and nothing is run for it`]
  if (!['command', 'file', 'prose'].includes(row.is) && (row.run || row.differs))
    return [`${where}: ${row.is}, and something is run for it`]
  if (!row.run) return []
  // a footnote mark is no part of a command
  const manual = row.text.replaceAll(/ # \(\d+\)$/gm, '').trim()
  if (row.is === 'command' && row.run.join('\n').trim() !== manual && !row.differs?.length)
    return [`${where}: we run something else, and nothing says why`]
  const step = stepOf(ledger, row)
  if (!step) return [`${where}: no step carries it out`]
  const via = row.via ?? step.via
  const isLocal = row.differs?.some(({ reason }) => reason === 'alternative') ?? false
  const own = dryRuns.filter(
    (each) =>
      each.manuals.includes(name) &&
      (each.script === SCRIPT_OF[step.step] || isPhaseOf(each, step.step)) &&
      (!via || each.via === via) &&
      isLocal === (each.isLocal ?? false) &&
      (each.isInstall
        ? step.step === 'install' || SCRIPT_OF[step.step] === 'helm-repo'
        : step.step !== 'install'),
  )
  if (own.length === 0) return [`${where}: there is no dry run of ${SCRIPT_OF[step.step]}`]
  return row.run
    .filter((run) => own.some((each) => !has(each, run)))
    .map((run) => `${where}: not in each dry run of ${SCRIPT_OF[step.step]}: ${run}`)
}

const has = ({ text }: DryRun, run: string) => `\n${text}\n`.includes(`\n${run.trimEnd()}\n`)

/** The upgrade is the whole section of the manual; the scripts of its other steps are imported by it. */
const isPhaseOf = ({ script, text }: DryRun, step: StepName) =>
  (script === 'upgrade' &&
    ['helm-repo', 'backup-values', 'update-crds'].includes(SCRIPT_OF[step])) ||
  (script === 'update-crds' && SCRIPT_OF[step] === 'helm-repo' && text.includes('\nhelm repo '))

/** Each command of a dry run is in a row of the module's manuals, or among those that no manual has. */
function commandsWithoutRow(dryRun: DryRun, ledgers: Map<string, Ledger>, none: Ledger): string[] {
  const { script, module, manuals, via, text } = dryRun
  const rows = manuals.flatMap((name) => {
    const ledger = ledgers.get(name)!
    return (ledger.rows ?? []).filter((row) => {
      const of = row.via ?? stepOf(ledger, row)?.via
      return !of || of === via
    })
  })
  const others = (none.commands ?? []).filter(
    (each) => (!each.modules || each.modules.includes(module)) && (!each.via || each.via === via),
  )
  const known = [
    ...rows.flatMap(({ run }) => run ?? []),
    ...others.map(({ run }) => run.replaceAll('{module}', module)),
  ]
  // what stands before the first heading sets the environment up
  let rest = `\n${text.slice(text.indexOf('\n\n# '))}\n`
  for (const run of known.toSorted((one, other) => other.length - one.length))
    rest = rest.replaceAll(`\n${run.trimEnd()}\n`, '\n\n')
  return rest
    .split('\n')
    .filter((line) => line.trim() && !line.startsWith('#'))
    .map((line) => `${script} --module ${module} --via ${via}: no row has this command: ${line}`)
}
