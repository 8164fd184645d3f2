import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { type LedgerRow, stepOf } from '../../lib/manual/ledger.ts'
import { all, hasManuals, names } from '../dry-run/gate-inputs.ts'
import { problemsOf } from '../dry-run/gate.ts'
import { copyOfTheCollection, ROOT, runProgram, scriptEnv } from '../support/run-script.ts'
import { skeletonOf } from './skeleton.ts'

const sameRow = (one: Pick<LedgerRow, 'lines' | 'is' | 'text'>, other: typeof one) =>
  one.lines === other.lines && one.is === other.is && one.text === other.text

describe.runIf(hasManuals).each(names)('the skeleton of %s', (name) => {
  const real = all.ledgers.get(name)!
  const [release] = name.split('.')
  const page = () => all.manuals.get(name)!.join('\n')
  const skeleton = () => skeletonOf(`${name}.md`, page(), release!, all.none)

  test('has every row of the ledger, and no other', () => {
    const { rows } = skeleton().ledger
    const missing = real.rows!.filter((row) => !rows.some((each) => sameRow(each, row)))
    const others = rows.filter((row) => !real.rows!.some((each) => sameRow(each, row)))
    expect({ missing, others }).toEqual({ missing: [], others: [] })
    expect(skeleton().ledger.sha256).toBe(real.sha256)
  })

  test('guesses which commands are run for a row, and the tab that it is of', () => {
    const { ledger, byHand } = skeleton()
    const wrong = ledger.rows.flatMap((row) => {
      const one = real.rows!.findLast((each) => sameRow(each, row))!
      const step = stepOf(real, one)?.step
      const general = all.none.steps.find((each) => each.step === step)?.run
      const run = row.run === 'all' ? general : row.run
      const isRight = JSON.stringify([run, row.kind]) === JSON.stringify([one.run, one.kind])
      // what it cannot guess it names with the step
      return isRight || byHand.some((each) => each.includes(`the row of ${step} that runs`))
        ? []
        : [`${row.lines}: ${run} (${row.kind}), not ${one.run} (${one.kind})`]
    })
    expect(wrong).toEqual([])
  })

  test('guesses the steps, in their order', () => {
    const guessed = skeleton().ledger.steps
    const parts = ({ step, via, lines }: (typeof guessed)[number]) => `${step} ${via} ${lines}`
    const wrong = real.steps.filter((each) => !guessed.map(parts).includes(parts(each)))
    // a numbered item that is a remark on the one before, spidernet.en.md:151, is found by the gate
    expect(wrong.length, wrong.map(parts).join('\n')).toBeLessThanOrEqual(1)
    expect(guessed.length).toBe(real.steps.length)
  })

  test('names what is left to do, and with that filled in the gate is green', () => {
    const { ledger, byHand } = skeleton()
    const byPerson = real.rows!.filter(
      (row) => row.differs || (row.is === 'prose' && (row.run || row.step)),
    )
    for (const { lines } of byPerson) {
      const place = `${name}.md:${lines.split('-')[0]}:`
      expect(
        byHand.some((each) => each.startsWith(place)),
        place,
      ).toBe(true)
    }
    // the reasons, headings, and what could not be guessed; of a line that asks for two things two rows
    const rows = ledger.rows.flatMap(({ run: _, ...row }) =>
      real
        .rows!.filter((each) => sameRow(each, row))
        .map(({ step, via, run, differs }) => ({
          ...row,
          ...(step && { step }),
          ...(via && { via }),
          ...(run && { run }),
          ...(differs && { differs }),
        })),
    )
    const filled = { ...ledger, steps: real.steps, rows }
    const ledgers = new Map(all.ledgers).set(name, filled)
    expect(problemsOf({ ...all, ledgers })).toEqual([])
  })
})

describe('npm run ledger', () => {
  const run = (cwd: string, ...args: string[]) =>
    runProgram(join(ROOT, 'node_modules/.bin/zx'), ['test/ledger/ledger.mts', ...args], {
      cwd,
      env: scriptEnv(),
    })

  test.runIf(hasManuals)(
    'writes the file that is missing, says the rest, and never over one',
    async () => {
      const copy = copyOfTheCollection()
      for (const part of ['test', '.prettierrc.json'])
        if (existsSync(join(ROOT, part)))
          await runProgram('cp', ['-r', join(ROOT, part), join(copy, part)])
      const target = join(copy, 'modules/manuals/kairship.en.yaml')
      const page = join(copy, 'kairship.en.md')
      writeFileSync(page, all.manuals.get('kairship.en')!.join('\n'))
      rmSync(target)
      const { exitCode, output } = await run(copy, page, '--module', 'kairship')
      expect(exitCode, output).toBe(0)
      expect(output).toContain('Left to do by hand')
      expect(output).toContain('kairship.en.md:174: why it differs, if it does: kubectl apply')
      const written = readFileSync(target, 'utf8')
      expect(written).toContain('run: all')
      const again = await run(copy, page, '--module', 'kairship')
      expect(again.exitCode, again.output).toBe(73)
      expect(readFileSync(target, 'utf8')).toBe(written)
      // it fits its schema: the scripts take it as it is
      const { exitCode: code, stdout } = await runProgram(
        join(ROOT, 'node_modules/.bin/zx'),
        ['scripts/trace.mts', '--module', 'kairship'],
        { cwd: copy, env: scriptEnv() },
      )
      expect(code).toBe(0)
      expect(stdout).toContain('=== kairship.en.md ===')
    },
  )

  test.each([
    [[], 64, 'name one page'],
    [['a.md'], 64, '--module NAME is missing'],
    [['a.md', '--module', 'other'], 64, 'other is not a module'],
    [['a.md', '--modul', 'mspider'], 64, "'--modul'"],
    [['a.md', 'b.md', '--module', 'mspider'], 64, 'name one page'],
    [['nowhere.md', '--module', 'mspider'], 66, 'does not exist'],
    [['--help'], 0, 'Usage: npm run ledger'],
  ] as [string[], number, string][])('%j: %i', async (args, code, said) => {
    const { exitCode, output } = await run(ROOT, ...args)
    expect(output).toContain(said)
    expect(exitCode, output).toBe(code)
  })
})
