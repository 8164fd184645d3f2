import { join } from 'node:path'
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
interface LedgerStep {
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

/** Why we run something else than the manual prints; the page says what each means. */
export const REASON_KINDS = [
  'misprint',
  'unsafe',
  'ambiguous',
  'unstated',
  'efficient',
  'redundant',
  'alternative',
  'value',
] as const
export type ReasonKind = (typeof REASON_KINDS)[number]

/** A reason of modules/manuals/reasons.yaml, and the lines that it is given for. */
export interface Difference {
  /** left out: all lines of the row */
  line?: string
  name: string
  kind: ReasonKind
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

/** The steps that the ledgers know. */
export type StepName =
  | 'load-image-yaml'
  | 'sync-images'
  | 'unpack-bundle'
  | 'load-images'
  | 'tag-images'
  | 'repo-list'
  | 'repo-add'
  | 'repo-update'
  | 'search-repo'
  | 'backup-values'
  | 'update-crds'
  | 'install'
  | 'upgrade'

/** The script that carries a step out by itself; `upgrade` does all of the section "Upgrading". */
export const SCRIPT_OF: Record<StepName, string> = {
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

/** The heading of a step in both languages, where it is in the manuals, and where we differ from them. */
export interface Heading {
  en: string
  zh: string
  lines: string
  differs: { where: string; en: string; zh: string }[]
}

export interface Ledger {
  manual: string | null
  /** of the manual's file that the rows are of */
  sha256?: string
  steps: LedgerStep[]
  rows?: LedgerRow[]
  commands?: LedgerCommand[]
}

/** A ledger as it is written: reasons by name; `all`: the patterns that none.yaml has for the step. */
interface WrittenLedger extends Omit<Ledger, 'rows' | 'commands'> {
  rows?: (Omit<LedgerRow, 'run' | 'differs'> & Written)[]
  commands?: (Omit<LedgerCommand, 'run' | 'differs'> & Required<Written>)[]
}
interface Written {
  run?: string[] | 'all'
  differs?: WrittenDifference[]
}
type WrittenDifference = string | { line: string; reason: string }

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
export function matches(pattern: string, command: string): boolean {
  const known = expressions.get(pattern)
  if (known) return known.test(command)
  const words = pattern
    .replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')
    .replaceAll(' ', '(?:\\s|\\\\\\n)+')
  const before = /^\w/.test(pattern) ? '(?<![\\w./-])' : ''
  const after = /\w$/.test(pattern) ? '(?![\\w-])' : ''
  expressions.set(pattern, new RegExp(before + words + after))
  return matches(pattern, command)
}
/** A cache: to make one takes a while. */
const expressions = new Map<string, RegExp>()

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

const directory = join(ROOT, 'modules/manuals')
/** A cache: to read one takes a while. */
const ledgers = new Map<string, Ledger>()
/** A cache: reasons.yaml. */
let reasons: Record<string, Omit<Difference, 'line' | 'name'>> | undefined

/**
 * Reads `modules/manuals/NAME.yaml`, with its reasons out of reasons.yaml; once in a run.
 * @throws Failure 78 it does not fit its schema, or names a reason that does not exist
 */
export function ledger(name: string): Ledger {
  const known = ledgers.get(name)
  if (known) return known
  const path = join(directory, `${name}.yaml`)
  const written = readChecked<WrittenLedger>(path, 'manual')
  const all = (reasons ??= readChecked<NonNullable<typeof reasons>>(
    join(directory, 'reasons.yaml'),
    'reasons',
  ))
  const resolve = (each: WrittenDifference): Difference => {
    const { line, reason } = typeof each === 'string' ? { reason: each } : each
    if (!all[reason]) throw wrongFile(path, `names the reason ${reason}, which reasons.yaml lacks`)
    return { ...(line && { line }), name: reason, ...all[reason] }
  }
  const { steps } = name === 'none' ? written : ledger('none')
  const allOf = (step?: StepName) => {
    const { run } = steps.find((each) => each.step === step) ?? {}
    if (!run) throw wrongFile(path, `says run: all, and none.yaml has no commands of ${step}`)
    return run
  }
  const read: Ledger = {
    ...written,
    rows: written.rows?.map(({ run, differs, ...row }) => ({
      ...row,
      ...(run && { run: run === 'all' ? allOf(stepOf(written, row)?.step) : run }),
      ...(differs && { differs: differs.map(resolve) }),
    })),
    commands: written.commands?.map(({ run, differs, ...each }) => ({
      ...each,
      run: run === 'all' ? allOf(each.step) : run,
      differs: differs.map(resolve),
    })),
  }
  ledgers.set(name, read)
  return read
}

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
  const others = otherCommands(none, module, way).filter(({ run }) => run.some(isIn))
  const own = module.manuals.map(ledger).flatMap((of) =>
    (of.rows ?? []).flatMap((row) => {
      if (!row.run?.some(isIn)) return []
      const step = stepOf(of, row)
      return step && fits(step, way) && fits(row, way) ? [step.step] : []
    }),
  )
  const general = none.steps.filter((step) => patternsFor(step, module).some(isIn))
  return [
    ...new Set([
      ...(module.manuals.length > 0 ? own : general.map(({ step }) => step)),
      ...others.flatMap(({ step }) => step ?? []),
    ]),
  ]
}

/**
 * The manual's heading for a step of a module, in English and Chinese, and the reasons for which what
 * is run there differs; our heading (modules/manuals/none.yaml) where the module's manual has no such
 * step.
 */
export function heading(module: Module, way: Way, step: StepName): Heading {
  const same = (entry: LedgerStep) => entry.step === step && fits(entry, way)
  const found = module.manuals.map(ledger).flatMap((each) => {
    const entry = each.steps.find(same)
    return entry ? [{ manual: each.manual, entry, rows: rowsOf(each, entry) }] : []
  })
  if (found.length === 0) {
    const { en, zh } = ledger('none').steps.find(same)!
    const manuals = module.manuals.map((name) => ledger(name).manual).join(', ')
    const lines = manuals
      ? `not described in ${manuals} · 手册中没有此步骤`
      : 'no manual on record · 未收录手册'
    return { en, zh, lines, differs: [] }
  }
  const { en, zh } = found[0]!.entry
  const differs: (Heading['differs'][number] & { name: string })[] = []
  for (const { manual, rows } of found) {
    for (const row of rows.filter((each) => fits(each, way))) {
      for (const { line = row.lines, kind, name, en, zh } of row.differs ?? []) {
        // a value of the site, and the manual's other way, need no word at each step
        if (kind === 'value' || kind === 'alternative') continue
        const where = `${manual}:${line}`
        const same = differs.find((each) => each.name === name)
        if (!same) differs.push({ where, name, en, zh })
        else if (!same.where.split(', ').includes(where)) same.where += `, ${where}`
      }
    }
  }
  return {
    en,
    zh,
    lines: found.map(({ manual, entry }) => `${manual}:${entry.lines}`).join(', '),
    differs: differs.map(({ where, en, zh }) => ({ where, en, zh })),
  }
}

/** The rows that a step carries out. */
export const rowsOf = (of: Ledger, step: LedgerStep): LedgerRow[] =>
  (of.rows ?? []).filter((row) => stepOf(of, row) === step)
