import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { parseAllDocuments } from 'yaml'
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
  kubectlJson,
  lab,
  lastingSite,
  releaseOf,
} from '../support/lab-site.ts'

const module = 'kairship'
const { site, state } = lastingSite()
const args = ['--module', module, '--site', site]
const saved = join(state, module, 'crds')
let usual: Undisturbed
const audited = { state, module }

/** The CRDs of the module: name, and what decides how they work. */
async function crds(): Promise<Record<string, string>> {
  const { items } = await kubectlJson('get', 'crds')
  return Object.fromEntries(
    items
      .filter(({ spec }: any) => spec.group === `${module}.io`)
      .map(({ metadata, spec }: any) => [metadata.name, JSON.stringify(spec)]),
  )
}

/** The CRDs of the old version: two, without the third that the new version brings. */
async function backToOld() {
  const old = join(lab.modules[module]!.old.originalChart, 'crds')
  await byHand('kubectl', 'apply', '--server-side', '--force-conflicts', '-f', old)
  const third = ['crd', 'overridepolicies.kairship.io', '--ignore-not-found']
  await byHand('kubectl', 'delete', ...third)
}

let oldCrds: Record<string, string>
let newCrds: Record<string, string>

beforeAll(async () => {
  await installOld(module)
  oldCrds = await crds()
  usual = await undisturbed(
    'update-crds',
    args,
    audited,
    /^kubectl apply (?![^]*--dry-run)/,
    [0, 0.6],
  )
  newCrds = await crds()
  expect(Object.keys(newCrds)).toHaveLength(3)
})

afterAll(() => hitTheChange())

test.each(randomInterruptions())(
  'an update of CRDs that is interrupted (%s) leaves each CRD old or new and every saved one whole, and the next run ends well',
  async (_, interruption) => {
    await backToOld()
    expect(await crds()).toEqual(oldCrds)
    const before = filesIn(saved)
    const run = await interrupt(
      'update-crds',
      [...args, '--timeout', '30s'],
      interruption,
      usual,
      audited,
    )
    const after = filesIn(saved)
    isKept(before, after)
    for (const [name, spec] of Object.entries(await crds())) {
      expect([oldCrds[name], newCrds[name]], `${name}\n${run.output}`).toContain(spec)
    }

    await runAgain('update-crds', args)
    expect(await crds()).toEqual(newCrds)
    expect(await releaseOf(module)).toMatchObject({ revision: '1', status: 'deployed' })
    const now = filesIn(saved)
    isKept(after, now)
    // two where the third did not exist when they were saved
    for (const [name, text] of Object.entries(now)) {
      const documents = parseAllDocuments(text)
      expect(
        documents.flatMap(({ errors }) => errors),
        name,
      ).toEqual([])
      expect([2, 3], name).toContain(documents.length)
    }
    nothingIsLeft(state, module)
    chainHolds(state, module)
  },
  // see the wait in scripts/update-crds.mts
  480_000,
)
