import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { parse } from 'yaml'
import {
  chainHolds,
  filesIn,
  interrupt,
  isKept,
  nothingIsLeft,
  randomInterruptions,
  runAgain,
} from './interruptions.ts'
import { installOld, lastingSite, releaseOf, runInLab } from './lab-site.ts'

const module = 'spidernet'
const { site, state } = lastingSite()
const args = ['--module', module, '--site', site, '--timeout', '60s']
const backups = join(state, module, 'backups', module)
let duration: number
let values: unknown

beforeAll(async () => {
  // so many that they are not written at once
  const many = Array.from({ length: 1000 }, (_, index) => [`key${index}`, `${index} `.repeat(40)])
  await installOld(module, { replicaCount: 2, extra: Object.fromEntries(many) })
  const begun = Date.now()
  const result = await runInLab('backup-values', args)
  expect(result.exitCode, result.output).toBe(0)
  duration = (Date.now() - begun) / 1000
  values = parse(readFileSync(join(state, module, 'bak.yaml'), 'utf8'))
  expect(values).toMatchObject({ extra: { key999: '999 '.repeat(40) } })
})

test.each(randomInterruptions())(
  'a backup that is interrupted (%s: %s, at %f) is whole or not there, and the next run ends well',
  async (_, kind, moment) => {
    const before = filesIn(backups)
    const run = await interrupt('backup-values', args, kind, moment, duration)
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
