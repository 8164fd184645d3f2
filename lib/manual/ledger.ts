import { join } from 'node:path'
import { memo } from '../base/memo.ts'
import { ROOT } from '../base/root.ts'
import { readChecked, wrongFile } from '../inputs/checked-files.ts'
import { type Via } from '../inputs/flags.ts'
import { type Module, type Site } from '../inputs/types.ts'

/** The way that a run goes: what decides which lines of a manual are carried out. */
export interface Way {
  via: Via
  kind: Site['chartRepository']['kind']
}

/** Where something applies; what is left out: everywhere. */
interface Where {
  via?: Via
  /** HARBOR: with a chart repository of any kind; LOCAL: without; another one: with exactly this kind */
  kind?: Way['kind']
}

/** A step of a manual: what modules/schemas/manual.schema.json says of it. */
export interface LedgerStep {
  step: StepName
  via?: Via
  en: string
  zh: string
  lines?: string
  /** the manual demands it in its text; the heading is ours */
  prose?: boolean
  /** in none.yaml: patterns of the commands that a module without a manual runs in this step */
  run?: string[]
}

/** A reason of modules/manuals/reasons.yaml, and the lines that it is given for. */
export interface Difference {
  /** left out: all lines of the row */
  line?: string
  name: string
  /** one of modules/schemas/reasons.schema.json; lib/manual/words.yaml says what each means */
  kind: string
  en: string
  zh: string
}

/** A line of a manual, or some: what it is, who carries it out, and which commands are run for it. */
export interface LedgerRow extends Where {
  lines: string
  is: 'heading' | 'command' | 'file' | 'output' | 'remark' | 'blank' | 'prose'
  text: string
  step?: StepName
  /** patterns, see `matches`: one command for each; a pattern that is there twice means two */
  run?: string[]
  differs?: Difference[]
}

/** Commands that no manual has, and why they are run. */
export interface LedgerCommand extends Where {
  script: string
  /** left out: every module */
  modules?: string[]
  /** the step under which they are run */
  step?: StepName
  /** run under no step: the step before which the trace shows them */
  before?: StepName
  /** run only where the site file or the chart package asks for it */
  mayBeMissing?: boolean
  run: string[]
  differs: Difference[]
}

/** The script that carries a step out by itself; `upgrade` does all of the section "Upgrading". */
export const SCRIPT_OF = {
  'load-image-yaml': 'sync-images',
  'sync-images': 'sync-images',
  'unpack-bundle': 'load-images',
  'load-images': 'load-images',
  'tag-images': 'load-images',
  'repo-list': 'helm-repo',
  'repo-add': 'helm-repo',
  'repo-update': 'helm-repo',
  'search-repo': 'helm-repo',
  'backup-values': 'backup-values',
  'update-crds': 'update-crds',
  install: 'upgrade',
  upgrade: 'upgrade',
}
/** The steps that the ledgers know. */
export type StepName = keyof typeof SCRIPT_OF

export interface Ledger {
  manual: string | null
  /** of the manual's file that the rows are of */
  sha256?: string
  steps: LedgerStep[]
  rows?: LedgerRow[]
  commands?: LedgerCommand[]
}

/** A row or a command as it is written: reasons by name; `all`: the patterns that none.yaml has for the step. */
type Written<T> = Omit<T, 'run' | 'differs'> & {
  run?: string[] | 'all'
  differs?: (string | { line: string; reason: string })[]
}
interface WrittenLedger extends Omit<Ledger, 'rows' | 'commands'> {
  rows?: Written<LedgerRow>[]
  commands?: Written<LedgerCommand>[]
}

/** from and to */
export function range(lines: string): [first: number, last: number] {
  const [first, last = first] = lines.split('-').map(Number)
  return [first!, last!]
}

/** Does a row, a step or a command apply to a way? */
export const fits = ({ via, kind }: Where, way: Way): boolean =>
  (!via || via === way.via) &&
  (!kind || (kind === 'HARBOR' ? way.kind !== 'LOCAL' : kind === way.kind))

/**
 * Are the words of a pattern in a command, in this order, nothing between them? Line breaks count as
 * blanks, and a word is a whole one: `helm repo add`, `ctr -n k8s.io image import`, `export version`.
 */
export const matches = (pattern: string, command: string) => expressionFor(pattern).test(command)

const expressionFor = memo((pattern) => {
  const words = pattern
    .replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')
    .replaceAll(' ', '(?:\\s|\\\\\\n)+')
  const before = /^\w/.test(pattern) ? '(?<![\\w./-])' : ''
  const after = /\w$/.test(pattern) ? '(?![\\w-])' : ''
  return new RegExp(before + words + after)
})

/** The step that carries a row out: the one that it names, else the one whose lines it is in. */
export function stepOf(
  { steps }: Pick<Ledger, 'steps'>,
  row: Pick<LedgerRow, 'lines' | 'step' | 'via'>,
): LedgerStep | undefined {
  const isIn = ({ lines }: LedgerStep) =>
    lines !== undefined &&
    range(lines)[0] <= range(row.lines)[0] &&
    range(row.lines)[1] <= range(lines)[1]
  const { step, via } = row
  if (!step) return steps.find(isIn)
  return (
    steps.find((each) => each.step === step && isIn(each)) ??
    steps.find((each) => each.step === step && (!via || !each.via || each.via === via))
  )
}

const pathOf = (name: string) => join(ROOT, 'modules/manuals', `${name}.yaml`)
type Reasons = Record<string, Pick<Difference, 'kind' | 'en' | 'zh'>>
const reasonsOf = memo((name) => readChecked<Reasons>(pathOf(name), 'reasons'))

/**
 * Reads `modules/manuals/NAME.yaml`, with its reasons out of reasons.yaml; once in a run.
 * @throws Failure 78 it does not fit its schema, or names a reason that does not exist
 */
export const ledger: (name: string) => Ledger = memo((name) => {
  const path = pathOf(name)
  const { rows, commands, ...written } = readChecked<WrittenLedger>(path, 'manual')
  const reasons = reasonsOf('reasons')
  const { steps } = name === 'none' ? written : ledger('none')
  const resolved = <T>({ run, differs, ...each }: Written<T>, step?: StepName) => {
    const all = steps.find((known) => known.step === step)?.run
    if (run === 'all' && !all)
      throw wrongFile(path, `says run: all, and none.yaml has no commands of ${step}`)
    const reasonsGiven = differs?.map((given) => {
      const { line, reason } = typeof given === 'string' ? { reason: given } : given
      if (!reasons[reason])
        throw wrongFile(path, `names the reason ${reason}, which reasons.yaml lacks`)
      return { ...(line && { line }), name: reason, ...reasons[reason] }
    })
    return {
      ...each,
      ...(run && { run: run === 'all' ? all : run }),
      ...(reasonsGiven && { differs: reasonsGiven }),
    } as T
  }
  return {
    ...written,
    rows: rows?.map((row) => resolved<LedgerRow>(row, stepOf(written, row)?.step)),
    commands: commands?.map((each) => resolved<LedgerCommand>(each, each.step)),
  }
})

/** The commands of none.yaml that a module runs on a way. */
export const otherCommands = (none: Ledger, module: Pick<Module, 'name'>, way: Way) =>
  (none.commands ?? []).filter(
    (each) => fits(each, way) && (!each.modules || each.modules.includes(module.name)),
  )

/** The patterns of a step of none.yaml, with the releases of a module. */
export const patternsFor = ({ run = [] }: LedgerStep, { releases }: Pick<Module, 'releases'>) =>
  run.flatMap((pattern) =>
    pattern.includes('{release}')
      ? releases.map(({ release }) => pattern.replaceAll('{release}', release))
      : [pattern],
  )

/**
 * The steps under which a module runs a command: those of its manuals' rows whose pattern is in it
 * (of none.yaml's steps, where it has no manual), and of none.yaml's commands. [] for a command that
 * the ledgers do not know, or that is run under no step. It reads ledgers, and no dry run.
 * @param command its text, as `run` gets it; it may be several commands
 */
export function stepsFor(module: Module, way: Way, command: string): StepName[] {
  const isIn = (pattern: string) => matches(pattern, command)
  const none = ledger('none')
  const own = module.manuals.map(ledger).flatMap((of) =>
    (of.rows ?? [])
      .filter((row) => row.run?.some(isIn) && fits(row, way))
      .flatMap((row) => stepOf(of, row) ?? [])
      .filter((step) => fits(step, way)),
  )
  const general = none.steps.filter((step) => patternsFor(step, module).some(isIn))
  const others = otherCommands(none, module, way).filter(({ run }) => run.some(isIn))
  const steps = [...(module.manuals.length > 0 ? own : general), ...others]
  return [...new Set(steps.flatMap(({ step }) => step ?? []))]
}

/**
 * The manual's heading for a step of a module, in English and Chinese, where it is in the manuals, and
 * the reasons for which what is run there differs; our heading (modules/manuals/none.yaml) where the
 * module's manual has no such step.
 */
export function heading(module: Module, way: Way, step: StepName) {
  const same = (entry: LedgerStep) => entry.step === step && fits(entry, way)
  const ledgers = module.manuals.map(ledger)
  const found = ledgers.flatMap((each) => {
    const entry = each.steps.find(same)
    return entry ? [{ manual: each.manual, entry, rows: rowsOf(each, entry) }] : []
  })
  const { en, zh } = found[0]?.entry ?? ledger('none').steps.find(same)!
  const lines = found.map(({ manual, entry }) => `${manual}:${entry.lines}`).join(', ')
  const nowhere =
    ledgers.length > 0
      ? `not described in ${ledgers.map(({ manual }) => manual).join(', ')} · 手册中没有此步骤`
      : 'no manual on record · 未收录手册'
  const given = found.flatMap(({ manual, rows }) =>
    rows
      .filter((row) => fits(row, way))
      .flatMap(({ lines, differs = [] }) =>
        differs.map(({ line = lines, ...each }) => ({ ...each, where: `${manual}:${line}` })),
      )
      // a value of the site, and the manual's other way, need no word at each step
      .filter(({ kind }) => kind !== 'value' && kind !== 'alternative'),
  )
  const differs = [...new Set(given.map(({ name }) => name))].map((name) => {
    const same = given.filter((each) => each.name === name)
    const where = [...new Set(same.map((each) => each.where))].join(', ')
    return { where, en: same[0]!.en, zh: same[0]!.zh }
  })
  return { en, zh, lines: lines || nowhere, differs }
}

/** The rows that a step carries out. */
export const rowsOf = (of: Ledger, step: LedgerStep): LedgerRow[] =>
  (of.rows ?? []).filter((row) => stepOf(of, row) === step)
