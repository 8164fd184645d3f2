import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { recordOf, sectionsOf } from '../../lib/manual/dry-runs.ts'
import { ledger } from '../../lib/manual/ledger.ts'
import { entryProblems, type Audited, type AuditedRun } from './gate.ts'
import { ROOT } from '../support/run-script.ts'

// MANUALS names the directory with the vendor's manuals
const directory = process.env['MANUALS'] ?? join(ROOT, '../shared/manuals')
export const names = readdirSync(join(ROOT, 'modules/manuals'))
  .filter((file) => file.endsWith('.yaml'))
  .map((file) => file.replace(/\.yaml$/, ''))
  .filter((name) => name !== 'none' && name !== 'reasons')
export const hasManuals = names.every((name) => existsSync(join(directory, `${name}.md`)))

if (process.env['MANUALS'] && !hasManuals)
  throw new Error(`MANUALS=${directory} has not all of ${names.join(', ')}`)

export const modules = ['skoala', 'kairship', 'mspider', 'spidernet']

/** The text of a dry run: another test holds the scripts to it. */
export const textOf = (name: string) =>
  readFileSync(recordOf(name) ?? join(ROOT, 'test/dry-run/golden', `${name}.sh`), 'utf8')

/** A dry run by the name of its file: sync-images.kairship.local, upgrade.mspider.repo.install */
export function auditedRun(name: string, text = textOf(name)): AuditedRun {
  const [script, moduleName, ...rest] = name.split('.')
  const has = (word: string) => rest.includes(word)
  // load-images.skoala.local is --local, not a site without a chart repository
  const isLocal = script === 'sync-images' ? has('local') : has('list')
  const descriptor = join(ROOT, 'modules', `${moduleName}.json`)
  const several = ['insight', 'insight-agent'].map((release) => ({ release }))
  return {
    name,
    script: script!,
    via: has('package') ? 'package' : 'repo',
    kind: isLocal ? 'LOCAL' : has('oci') ? 'OCI' : has('chartmuseum') ? 'CHARTMUSEUM' : 'HARBOR',
    isInstall: has('install'),
    isVariant:
      ['oci', 'chartmuseum', 'tgz', 'list'].some(has) || name === 'load-images.skoala.local',
    module: existsSync(descriptor)
      ? JSON.parse(readFileSync(descriptor, 'utf8'))
      : { name: moduleName, manuals: [], releases: several },
    sections: sectionsOf(text),
  }
}

const dryRuns = ['test/dry-run/golden', 'modules/manuals/dry-runs']
  .flatMap((directory) => readdirSync(join(ROOT, directory)))
  .map((file) => auditedRun(file.replace(/\.sh$/, '')))

export const all: Audited = {
  manuals: new Map(
    hasManuals
      ? names.map((name) => [name, readFileSync(join(directory, `${name}.md`), 'utf8').split('\n')])
      : [],
  ),
  ledgers: new Map(names.map((name) => [name, ledger(name)])),
  none: ledger('none'),
  dryRuns,
}

/** What belongs to a module: a copy that may be changed. */
export function copyOf(module: string): Audited {
  const own = names.filter((name) => name.startsWith(`${module}.`))
  const dryRuns = all.dryRuns.filter((each) => each.module.name === module)
  const pick = <T>(from: Map<string, T>) =>
    new Map([...from].filter(([name]) => own.includes(name)))
  return {
    manuals: new Map([...pick(all.manuals)].map(([name, lines]) => [name, [...lines]])),
    ledgers: structuredClone(pick(all.ledgers)),
    none: {
      ...all.none,
      commands: commandsOf(module),
    },
    dryRuns,
  }
}

/** What of none.yaml the dry runs of a module have; asked for often. */
function commandsOf(module: string) {
  const own = all.dryRuns.filter((each) => each.module.name === module)
  const commands =
    known.get(module) ??
    (all.none.commands ?? []).filter((each) => entryProblems(each, own).length === 0)
  known.set(module, commands)
  return commands
}
const known = new Map<string, NonNullable<Audited['none']['commands']>>()
