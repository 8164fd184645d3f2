import { join } from 'node:path'
import { readChecked, ROOT } from '../inputs/checked-files.ts'
import { type Via } from '../inputs/flags.ts'
import { type Module } from '../inputs/inputs.ts'

/** A step of a manual: what modules/schemas/manual.schema.json says of it. */
interface LedgerStep {
  step: StepName
  via?: Via
  en: string
  zh: string
  lines?: string
}

/** Why we run something else than the manual prints. */
export type Reason =
  | 'misprint'
  | 'unsafe'
  | 'ambiguous'
  | 'unstated'
  | 'efficient'
  | 'redundant'
  | 'alternative'
  | 'value'

/** A line of a manual, or some: what it is, who carries it out, and what is run for it. */
export interface LedgerRow {
  lines: string
  is: 'heading' | 'command' | 'file' | 'output' | 'remark' | 'blank' | 'prose'
  text: string
  step?: StepName
  via?: Via
  run?: string[]
  differs?: { line?: string; reason: Reason; en: string; zh: string }[]
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

/** The heading of a step, where it stands in the manuals, and where we differ from them. */
export interface Heading {
  title: string
  lines: string
  differs: { where: string; en: string; zh: string }[]
}

export interface Ledger {
  manual: string | null
  /** of the manual's file that the rows are of */
  sha256?: string
  steps: LedgerStep[]
  rows?: LedgerRow[]
  commands?: {
    script: string
    modules?: string[]
    via?: Via
    /** the step of the manuals before which it is run */
    step?: StepName
    run: string
    en: string
    zh: string
  }[]
}

/** from and to */
export function range(lines: string): [first: number, last: number] {
  const [first, last = first] = lines.split('-').map(Number)
  return [first!, last!]
}

/** The step that carries a row out: the one that it names, else the one whose lines it is in. */
export function stepOf({ steps }: Ledger, row: LedgerRow): LedgerStep | undefined {
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

const ledgers = new Map<string, Ledger>()

/** Reads `modules/manuals/NAME.yaml`. */
export function ledger(name: string): Ledger {
  const path = join(ROOT, 'modules/manuals', `${name}.yaml`)
  const read = ledgers.get(name) ?? readChecked<Ledger>(path, 'manual')
  ledgers.set(name, read)
  return read
}

/**
 * The manual's heading for a step of a module, in English and Chinese; ours (modules/manuals/none.yaml)
 * where the module's manual has no such step.
 */
export function heading(module: Module, via: Via, step: StepName): Heading {
  const same = (entry: LedgerStep) => entry.step === step && (!entry.via || entry.via === via)
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
    return { title: `${en} · ${zh}`, lines, differs: [] }
  }
  const { en, zh } = found[0]!.entry
  const differs: Heading['differs'] = []
  for (const { manual, rows } of found) {
    for (const row of rows) {
      for (const { line = row.lines, reason, en, zh } of row.differs ?? []) {
        // a value of the site, and the manual's other way, need no word at each step
        if (reason === 'value' || reason === 'alternative') continue
        const same = differs.find((each) => each.en === en)
        if (same) same.where += `, ${manual}:${line}`
        else differs.push({ where: `${manual}:${line}`, en, zh })
      }
    }
  }
  return {
    title: `${en} · ${zh}`,
    lines: found.map(({ manual, entry }) => `${manual}:${entry.lines}`).join(', '),
    differs,
  }
}

/** The rows that a step carries out. */
const rowsOf = (of: Ledger, step: LedgerStep): LedgerRow[] =>
  (of.rows ?? []).filter((row) => stepOf(of, row) === step)
