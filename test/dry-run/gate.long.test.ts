import { describe, expect, test } from 'vitest'
import { ledger, type LedgerRow, matches } from '../../lib/manual/ledger.ts'
import { all, copyOf, hasManuals, modules, names } from './gate-inputs.ts'
import { fenceLines, HEADING } from '../ledger/page.ts'
import { entryProblems, problemsOf, type Audited } from './gate.ts'

describe.runIf(hasManuals)('with the manuals at hand', () => {
  /** The sentence that begins with the place is among those that the gate gives. */
  const isNamed = (change: (audited: Audited) => void, place: string) => {
    const changed = copyOf(/(\w+)\./.exec(place)![1]!)
    change(changed)
    // of a place in a manual the dry runs say nothing
    if (/^[\w.]+\.md:/.test(place)) Object.assign(changed, { dryRuns: [] })
    const problems = problemsOf(changed)
    return problems.some((problem) => problem.startsWith(place))
      ? []
      : [`${place}: ${problems[0] ?? 'nothing'}`]
  }

  test.each(names)(
    '%s: each heading, and each line in a fence, that is changed, added or dropped is named',
    (name) => {
      const manual = all.manuals.get(name)!
      const inside = fenceLines(manual)
      const numbers = manual.flatMap((line, index) =>
        inside.has(index + 1) || HEADING.test(line) ? [index + 1] : [],
      )
      const missed = numbers.flatMap((number) => {
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
            ({ manuals }) =>
              void manuals
                .get(name)!
                .splice(number - 1, 0, inside.has(number) ? '        added' : '## added'),
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

  const kinds: LedgerRow['is'][] = [
    'heading',
    'command',
    'file',
    'output',
    'remark',
    'blank',
    'prose',
  ]

  test.each(names)('%s: each row that is changed, moved, added or dropped is named', (name) => {
    const missed = ledger(name).rows!.flatMap((row, index, rows) => {
      const [first] = row.lines.split('-')
      const place = `${name}.md:${first}:`
      return [
        ...isNamed(
          ({ ledgers }) => void (ledgers.get(name)!.rows![index]!.text = 'changed'),
          place,
        ),
        ...kinds
          .filter((is) => is !== row.is)
          .flatMap((is) =>
            // a line of a sample may look like a command: then there is a command without anything run
            [place, `${name}.yaml, lines ${row.lines}:`].every(
              (place) =>
                isNamed(({ ledgers }) => void (ledgers.get(name)!.rows![index]!.is = is), place)
                  .length > 0,
            )
              ? [`${place} as ${is}`]
              : [],
          ),
        // two rows of one line of prose have no order
        ...(index === 0 || rows[index - 1]!.lines === row.lines
          ? []
          : isNamed(
              ({ ledgers }) => {
                const rows = ledgers.get(name)!.rows!
                rows.splice(index - 1, 2, rows[index]!, rows[index - 1]!)
              },
              `${name}.md:${rows[index - 1]!.lines.split('-')[0]}:`,
            )),
        ...(row.is === 'prose'
          ? []
          : isNamed(({ ledgers }) => {
              const rows = ledgers.get(name)!.rows!
              rows.splice(index, 0, rows[index]!)
            }, place)),
        // of two rows of one line of prose, one may go
        ...(ledger(name).rows!.filter(({ lines }) => lines === row.lines).length > 1
          ? []
          : isNamed(({ ledgers }) => void ledgers.get(name)!.rows!.splice(index, 1), place)),
        // a pattern that no command has, or several have, and one too many
        ...(row.run ?? []).flatMap((pattern, at) =>
          [['and more'], ['e', 'n'], [pattern, pattern]].flatMap((changed) =>
            isNamed(
              ({ ledgers }) => void ledgers.get(name)!.rows![index]!.run!.splice(at, 1, ...changed),
              `${name}.yaml, lines ${row.lines}:`,
            ),
          ),
        ),
        // a reason for a line that the row does not have
        ...(row.differs ?? []).flatMap((_, at) =>
          isNamed(
            ({ ledgers }) =>
              void (ledgers.get(name)!.rows![index]!.differs![at]!.line = `${Number(first) - 1}`),
            `${name}.yaml, lines ${row.lines}:`,
          ),
        ),
        ...(row.is === 'command' && row.run && row.differs
          ? isNamed(
              ({ ledgers }) => void delete ledgers.get(name)!.rows![index]!.differs,
              `${name}.yaml, lines ${row.lines}:`,
            )
          : []),
        ...(row.is === 'command' && !row.differs?.some(({ kind }) => kind === 'misprint')
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
    const known = [
      ...[...base.ledgers.values()].flatMap(({ rows = [] }) => rows),
      ...base.none.commands!,
    ].flatMap(({ run = [] }) => run)
    const missed = base.dryRuns.flatMap((dryRun, index) =>
      dryRun.sections.flatMap((section, of) =>
        section.commands.flatMap((text, at) => {
          const isFound = (...commands: string[]) => {
            const changed = { ...section, commands: section.commands.toSpliced(at, 1, ...commands) }
            const sections = dryRun.sections.with(of, changed)
            const dryRuns = base.dryRuns.with(index, { ...dryRun, sections })
            return problemsOf({ ...base, dryRuns }).length > 0
          }
          const patterns = known.filter((pattern) => matches(pattern, text))
          const changed = patterns.reduce(
            (rest, pattern) => rest.replaceAll(/\s+/g, ' ').replaceAll(pattern, 'changed'),
            text,
          )
          return [
            isFound(changed) ? '' : 'changed',
            isFound('echo added', text) ? '' : 'added',
            // what another site or chart package needs may be missing
            isFound() || dryRun.isVariant ? '' : 'dropped',
            isFound(text, text) || dryRun.isVariant ? '' : 'twice',
          ].flatMap((what) => (what ? [`${dryRun.name}: ${what}: ${text}`] : []))
        }),
      ),
    )
    expect(missed).toEqual([])
  },
)

test('each pattern of none.yaml that no command has, or several have, is named', () => {
  const missed = all.none.commands!.flatMap((each) =>
    each.run.flatMap((pattern, at) =>
      ['and more', ...(each.mayBeMissing ? [] : ['e'])].flatMap((changed) =>
        entryProblems({ ...each, run: each.run.with(at, changed) }, all.dryRuns).length > 0
          ? []
          : [`${each.script}: ${pattern}: ${changed}`],
      ),
    ),
  )
  expect(missed).toEqual([])
})
