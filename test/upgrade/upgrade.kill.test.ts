import { readFileSync, rmSync } from 'node:fs'
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
import {
  byHand,
  installOld,
  lab,
  lastingSite,
  podsOf,
  releaseOf,
  runInLab,
  userValues,
} from '../support/lab-site.ts'

const module = 'mspider'
const { old, new: next } = lab.modules[module]!
const { site, state } = lastingSite()
// this release comes to a revision 11 of its own, which is not the one that 0.1 found not to come up
rmSync(join(state, module, 'did-not-come-up.json'))
const args = ['--module', module, '--site', site]
const backups = join(state, module, 'backups', module)
let usual: Undisturbed
const audited = { state, module }

beforeAll(async () => {
  await installOld(module)
  // the images come to the nodes, which takes longer than later runs
  const cold = await runInLab('upgrade', args)
  expect(cold.exitCode, cold.output).toBe(0)
  await backToOld()
  usual = await undisturbed('upgrade', args, audited, /^helm upgrade mspider /, [0.4, 1])
})

/** Back to the old version, as somebody would do it who wants to see the upgrade again. */
async function backToOld() {
  const where = ['-n', `${module}-system`]
  await byHand('helm', 'upgrade', module, old.originalPackage, ...where, '--reuse-values')
}

afterAll(() => hitTheChange())

test.each(randomInterruptions())(
  'an upgrade that is interrupted (%s) leaves whole backups, and the next run ends well',
  async (_, interruption) => {
    await backToOld()
    const before = filesIn(backups)
    const run = await interrupt(
      'upgrade',
      [...args, '--timeout', '30s'],
      interruption,
      usual,
      audited,
    )
    const after = filesIn(backups)
    isKept(before, after)
    for (const [name, text] of Object.entries(after)) {
      expect(parse(text), name).toMatchObject(userValues)
    }
    expect(parse(readFileSync(join(state, module, 'bak.yaml'), 'utf8'))).toMatchObject(userValues)
    chainHolds(state, module)

    await runAgain('upgrade', args)
    expect(await releaseOf(module), run.output).toMatchObject({
      chart: `${module}-${next.version}`,
      status: 'deployed',
    })
    const values = await byHand('helm', 'get', 'values', module, '-n', `${module}-system`)
    expect(parse(values.slice(values.indexOf('\n')))).toMatchObject({
      ...userValues,
      global: { imageRegistry: lab.registry.host },
    })
    const pods = await podsOf(module)
    expect(pods.length).toBeGreaterThanOrEqual(5)
    for (const { image, ready } of pods) {
      expect(image).toMatch(new RegExp(`:v${next.version}$`))
      expect(ready).toBe(true)
    }
    isKept(after, filesIn(backups))
    nothingIsLeft(state, module)
    chainHolds(state, module)
  },
)
