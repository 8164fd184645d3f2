import { describe, expect, test } from 'vitest'
import { all, hasManuals } from './gate-inputs.ts'
import { fenceLines } from '../ledger/page.ts'
import { problemsOf } from './gate.ts'

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
})
