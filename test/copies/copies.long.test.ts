import { describe, expect, test } from 'vitest'
import { check, takenBy } from './check.ts'
import { mutantsOf, some, SCRIPTS } from './mutants.ts'
import { makeCopies } from './runs.ts'

/** FULL=1: all of them, which takes long; else so many of each script, others for each SEED. */
const COUNT = process.env['FULL'] ? Infinity : 6
const SEED = Number(process.env['SEED'] ?? 1)

describe('a copy of a script in which two lines are swapped, a word is dropped or an await is missing does the same, or says what is wrong', () => {
  test.each(SCRIPTS)(
    '%s',
    async (script) => {
      const copies = makeCopies()
      const { takes, never } = await takenBy(copies, script)
      expect(never, 'statements that no way takes').toEqual([])
      const mutants = some(mutantsOf(script), COUNT, SEED)
      const { counts, wrong } = await check(copies, script, mutants, takes, true)
      console.log(`${script}: ${mutants.length} mutants (seed ${SEED})`, counts)
      expect(wrong.join('\n\n')).toBe('')
    },
    5_400_000,
  )
})
