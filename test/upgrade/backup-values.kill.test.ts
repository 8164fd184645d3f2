import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { parse } from 'yaml'
import {
  chainHolds,
  filesIn,
  hitTheChange,
  interrupt,
  isKept,
  nothingIsLeft,
  randomInterruptions,
  runAgain,
  undisturbed,
  type Undisturbed,
} from '../support/interruptions.ts'
import { installOld, lastingSite, releaseOf } from '../support/lab-site.ts'

const module = 'spidernet'
const { site, state } = lastingSite()
const args = ['--module', module, '--site', site]
const backups = join(state, module, 'backups', module)
let usual: Undisturbed
const audited = { state, module }
let values: unknown

beforeAll(async () => {
  // so many that they are not written at once
  const many = Array.from({ length: 1000 }, (_, index) => [`key${index}`, `${index} `.repeat(40)])
  await installOld(module, { replicaCount: 2, extra: Object.fromEntries(many) })
  usual = await undisturbed('backup-values', args, audited, /^helm get values spidernet /, [0, 0.6])
  values = parse(readFileSync(join(state, module, 'bak.yaml'), 'utf8'))
  expect(values).toMatchObject({ extra: { key999: '999 '.repeat(40) } })
})

afterAll(() => hitTheChange())

test.each(randomInterruptions())(
  'a backup that is interrupted (%s) is whole or not there, and the next run ends well',
  async (_, interruption) => {
    const before = filesIn(backups)
    const run = await interrupt(
      'backup-values',
      [...args, '--timeout', '30s'],
      interruption,
      usual,
      audited,
    )
    const after = filesIn(backups)
    isKept(before, after)
    for (const [name, text] of Object.entries(after)) {
      if (!(name in before)) expect(parse(text), `${name}\n${run.output}`).toEqual(values)
    }
    expect(parse(readFileSync(join(state, module, 'bak.yaml'), 'utf8'))).toEqual(values)

    await runAgain('backup-values', args)
    const now = filesIn(backups)
    isKept(after, now)
    expect(Object.keys(now).length).toBeGreaterThan(Object.keys(before).length)
    expect(parse(readFileSync(join(state, module, 'bak.yaml'), 'utf8'))).toEqual(values)
    expect(await releaseOf(module)).toMatchObject({ revision: '1', status: 'deployed' })
    nothingIsLeft(state, module)
    chainHolds(state, module)
  },
)
