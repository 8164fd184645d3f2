import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { ledger } from '../../lib/manual/ledger.ts'
import { type Audited, type DryRun } from './gate.ts'
import { ROOT } from '../support/run-script.ts'

// MANUALS names the directory with the vendor's manuals
const directory = process.env['MANUALS'] ?? join(ROOT, '../shared/manuals')
export const names = readdirSync(join(ROOT, 'modules/manuals'))
  .map((file) => file.replace(/\.yaml$/, ''))
  .filter((name) => name !== 'none')
export const hasManuals = names.every((name) => existsSync(join(directory, `${name}.md`)))

if (process.env['MANUALS'] && !hasManuals)
  throw new Error(`MANUALS=${directory} has not all of ${names.join(', ')}`)

export const modules = ['skoala', 'kairship', 'mspider', 'spidernet']
const scripts: [string, ('repo' | 'package')[]][] = [
  ['sync-images', ['repo']],
  ['load-images', ['repo']],
  ['helm-repo', ['repo']],
  ['backup-values', ['repo']],
  ['update-crds', ['repo', 'package']],
  ['upgrade', ['repo', 'package']],
]

/** The dry runs as they are in golden/, where another test holds the scripts to them. */
const golden = (name: string) =>
  readFileSync(join(ROOT, 'test/dry-run/golden', `${name}.sh`), 'utf8')
const dryRuns: DryRun[] = [
  ...modules.flatMap((module) => {
    const { manuals } = JSON.parse(readFileSync(join(ROOT, `modules/${module}.json`), 'utf8'))
    const of = { module, manuals }
    return [
      ...scripts.flatMap(([script, ways]) =>
        ways.map((via): DryRun => {
          const name = `${script}.${module}${ways.length > 1 ? `.${via}` : ''}`
          return { ...of, script, via, text: golden(name) }
        }),
      ),
      {
        ...of,
        script: 'sync-images',
        via: 'repo' as const,
        isLocal: true,
        // with --bundle
        text: golden(`sync-images.${module}.local`).replace("'/media/", "'../../../"),
      },
    ]
  }),
  {
    script: 'upgrade',
    module: 'mspider',
    manuals: ['mspider.en'],
    via: 'repo',
    isInstall: true,
    // with --version the version is that of the flag
    text: golden('upgrade.mspider.repo.install').replace(
      'export version=0.20.1',
      "export version='{newest_stable_version}'",
    ),
  },
]

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
  const pick = <T>(from: Map<string, T>) =>
    new Map([...from].filter(([name]) => own.includes(name)))
  const { commands = [] } = all.none
  return {
    manuals: new Map([...pick(all.manuals)].map(([name, lines]) => [name, [...lines]])),
    ledgers: structuredClone(pick(all.ledgers)),
    none: {
      ...all.none,
      commands: commands.filter(({ modules }) => !modules || modules.includes(module)),
    },
    dryRuns: all.dryRuns.filter((each) => each.module === module).map((each) => ({ ...each })),
  }
}
