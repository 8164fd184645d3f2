import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { ledger } from '../lib/ledger.ts'
import { fenceLines, problemsOf, type Audited, type DryRun } from './gate.ts'
import { ROOT } from './run-script.ts'

// MANUALS names the directory with the vendor's manuals
const directory = process.env['MANUALS'] ?? join(ROOT, '../shared/manuals')
const names = readdirSync(join(ROOT, 'modules/manuals'))
  .map((file) => file.replace(/\.yaml$/, ''))
  .filter((name) => name !== 'none')
const hasManuals = names.every((name) => existsSync(join(directory, `${name}.md`)))

if (process.env['MANUALS'] && !hasManuals)
  throw new Error(`MANUALS=${directory} has not all of ${names.join(', ')}`)

const modules = ['skoala', 'kairship', 'mspider', 'spidernet']
const scripts: [string, ('repo' | 'package')[]][] = [
  ['sync-images', ['repo']],
  ['load-images', ['repo']],
  ['helm-repo', ['repo']],
  ['backup-values', ['repo']],
  ['update-crds', ['repo', 'package']],
  ['upgrade', ['repo', 'package']],
]

/** The dry runs as they are in golden/, where another test holds the scripts to them. */
const golden = (name: string) => readFileSync(join(ROOT, 'test/golden', `${name}.sh`), 'utf8')
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

const all: Audited = {
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
function copyOf(module: string): Audited {
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

test('every command of a script has a row in a ledger or a reason, and every row its command', () => {
  expect(problemsOf(all)).toEqual([])
})

describe.runIf(hasManuals)('with the manuals at hand', () => {
  test('every line in a fence of the five manuals is accounted for', () => {
    const { manuals, ledgers } = all
    const lines = [...manuals.values()].reduce((sum, manual) => sum + fenceLines(manual).size, 0)
    const inRows = [...ledgers.values()].flatMap(({ rows }) => rows ?? [])
    expect(manuals.size).toBe(5)
    expect(lines).toBeGreaterThan(200)
    expect(inRows.length).toBeGreaterThan(100)
  })

  /** The sentence that begins with the place is among those that the gate gives. */
  const isNamed = (change: (audited: Audited) => void, place: string) => {
    const changed = copyOf(/(\w+)\./.exec(place)![1]!)
    change(changed)
    const problems = problemsOf(changed)
    return problems.some((problem) => problem.startsWith(place))
      ? []
      : [`${place}: ${problems[0] ?? 'nothing'}`]
  }

  test.each(names)(
    '%s: each line in a fence that is changed, added or dropped is named',
    (name) => {
      const manual = all.manuals.get(name)!
      const missed = [...fenceLines(manual).keys()].flatMap((number) => {
        const place = `${name}.md:${number}:`
        return [
          ...isNamed(({ manuals }) => void (manuals.get(name)![number - 1] += ' changed'), place),
          // a line that becomes a remark
          ...isNamed(({ manuals }) => {
            const lines = manuals.get(name)!
            const line = lines[number - 1]!
            lines[number - 1] = `${line.startsWith('#') ? ';' : '#'}${line.slice(1)}`
          }, place),
          ...isNamed(
            ({ manuals }) => void manuals.get(name)!.splice(number - 1, 0, '        added'),
            place,
          ),
          // where the line behind it is the same, the first that differs is another one
          ...(manual[number] === manual[number - 1]
            ? []
            : isNamed(({ manuals }) => void manuals.get(name)!.splice(number - 1, 1), place)),
        ]
      })
      expect(missed).toEqual([])
    },
  )

  test.each(names)('%s: each row that is changed or dropped is named', (name) => {
    const missed = ledger(name).rows!.flatMap((row, index) => {
      const [first] = row.lines.split('-')
      const place = `${name}.md:${first}:`
      return [
        ...isNamed(
          ({ ledgers }) => void (ledgers.get(name)!.rows![index]!.text = 'changed\n'),
          place,
        ),
        // of two rows of one line of prose, one may go
        ...(ledger(name).rows!.filter(({ lines }) => lines === row.lines).length > 1
          ? []
          : isNamed(({ ledgers }) => void ledgers.get(name)!.rows!.splice(index, 1), place)),
        ...(row.run ?? []).flatMap((_, at) =>
          isNamed(
            ({ ledgers }) => void (ledgers.get(name)!.rows![index]!.run![at] += 'and more\n'),
            `${name}.yaml, lines ${row.lines}:`,
          ),
        ),
        ...(row.is === 'command' && row.run && row.differs
          ? isNamed(
              ({ ledgers }) => void delete ledgers.get(name)!.rows![index]!.differs,
              `${name}.yaml, lines ${row.lines}:`,
            )
          : []),
        ...(row.is === 'command' && !row.differs?.some(({ reason }) => reason === 'misprint')
          ? isNamed(
              ({ ledgers }) => void delete ledgers.get(name)!.rows![index]!.run,
              `${name}.yaml, lines ${row.lines}:`,
            )
          : []),
      ]
    })
    expect(missed).toEqual([])
  })
})

test.each(modules)(
  '%s: each command of a dry run that is changed, added or dropped is named',
  (module) => {
    const base = { ...copyOf(module), manuals: new Map() }
    expect(problemsOf(base)).toEqual([])
    const missed = base.dryRuns.flatMap((dryRun, index) => {
      const { script, via, text } = dryRun
      const lines = text.split('\n')
      const header = text.slice(0, text.indexOf('\n\n# ')).split('\n').length
      const isFound = (edited: string[]) => {
        const dryRuns = base.dryRuns.with(index, { ...dryRun, text: edited.join('\n') })
        return problemsOf({ ...base, dryRuns }).length > 0
      }
      return lines.flatMap((line, at) => {
        if (at <= header || !line.trim() || line.startsWith('#')) return []
        return [
          isFound(lines.with(at, `${line} --changed`)) ? '' : 'changed',
          isFound(lines.toSpliced(at, 0, 'echo added')) ? '' : 'added',
          isFound(lines.toSpliced(at, 1)) ? '' : 'dropped',
        ].flatMap((what) => (what ? [`${script} ${via}: ${what}: ${line}`] : []))
      })
    })
    expect(missed).toEqual([])
  },
)
