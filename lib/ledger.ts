import { join } from 'node:path'
import { readChecked, ROOT } from './checked-files.ts'
import { type Via } from './flags.ts'
import { type Module } from './inputs.ts'

/** A step of a manual: what modules/schemas/manual.schema.json says of it. */
interface LedgerStep {
  step: string
  via?: Via
  en: string
  zh: string
  lines?: string
  differs?: { line: string; en: string; zh: string }[]
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

/** The heading of a step, where it stands in the manuals, and where we differ from them. */
export interface Heading {
  title: string
  lines: string
  differs: { where: string; en: string; zh: string }[]
}

interface Ledger {
  manual: string | null
  steps: LedgerStep[]
}

const ledgers = new Map<string, Ledger>()

function ledger(name: string): Ledger {
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
  const found = module.manuals.map(ledger).flatMap(({ manual, steps }) => {
    const entry = steps.find(same)
    return entry ? [{ manual, entry }] : []
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
  for (const { manual, entry } of found) {
    for (const { line, en, zh } of entry.differs ?? []) {
      const same = differs.find((each) => each.en === en)
      if (same) same.where += `, ${manual}:${line}`
      else differs.push({ where: `${manual}:${line}`, en, zh })
    }
  }
  return {
    title: `${en} · ${zh}`,
    lines: found.map(({ manual, entry }) => `${manual}:${entry.lines}`).join(', '),
    differs,
  }
}
