import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parse } from 'yaml'
import { byHand, installOld, lab, labSite, runInLab } from '../support/lab-site.ts'
import { namesIn } from '../support/old-state.ts'
import { testUpgrade } from '../support/lab-upgrades.ts'

const module = 'spidernet'
const backupsIn = (state: string) => namesIn(state, join(module, 'backups', module)).all

test('no user values at all is a valid backup; earlier backups and a bak.yaml of somebody else are kept', async () => {
  await installOld(module)
  await byHand(
    'helm',
    'upgrade',
    module,
    lab.modules[module]!.old.originalPackage,
    '-n',
    `${module}-system`,
    '--reset-values',
  )
  const { site, state } = labSite()
  const args = ['--module', module, '--site', site]
  const first = await runInLab('backup-values', args)
  expect(first.exitCode, first.output).toBe(0)
  expect(first.stdout).toContain('no user values at all')
  expect(parse(readFileSync(join(state, module, 'bak.yaml'), 'utf8'))).toBeNull()

  await byHand('rm', join(state, module, 'bak.yaml'))
  writeFileSync(join(state, module, 'bak.yaml'), 'mine: true\n')
  const earlier = backupsIn(state)
  const second = await runInLab('backup-values', args)
  expect(second.exitCode, second.output).toBe(0)
  const now = backupsIn(state)
  expect(now).toEqual(expect.arrayContaining(earlier))
  const byHandName = now.find((name) => name.startsWith('by-hand-'))!
  expect(readFileSync(join(state, module, 'backups', module, byHandName), 'utf8')).toBe(
    'mine: true\n',
  )
  expect(now).toHaveLength(earlier.length + 2)
})

testUpgrade('spidernet', 'repo')
