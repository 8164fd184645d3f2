import { readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ROOT } from '../support/run-script.ts'
import { type Before, type Copy, dryRun, keep, makeCopies, realRun, type Seen } from './runs.ts'
import { standInRegistry, withScripts } from './runs.ts'
import { way } from './ways.ts'

const UNCHANGED = 'nothing in the cluster, in the registry or on a node was changed'
const UPGRADE = way('upgrade', 'mspider')

/** A script in which one text stands in the place of another, which must be there. */
function adapted(script: string, from: string, to: string): Record<string, string> {
  const text = readFileSync(join(ROOT, 'scripts', `${script}.mts`), 'utf8')
  expect(text).toContain(from)
  return { [script]: text.replace(from, () => to) }
}

/** A dry run of an adapted copy, and a real one with the stand-ins; then a second real one. */
async function runAdapted(
  texts: Record<string, string>,
  before: Before = 'old',
): Promise<{ copy: Copy; dry: Seen; real: Seen; again: Seen }> {
  const [copy] = makeCopies(1)
  const registry = await standInRegistry()
  const left = join(copy!.directory, 'left')
  const [script] = Object.keys(texts)
  const line = script === 'backup-values' ? way(script, 'mspider') : UPGRADE
  return await withScripts(copy!, texts, async () => {
    const dry = await dryRun(copy!, line)
    const real = await realRun(copy!, line, before, registry, left)
    keep(copy!, left)
    const again = await realRun(copy!, line, 'upgraded', registry, left)
    return { copy: copy!, dry, real, again }
  })
}

test('lockReleases() above checkCluster() is refused with the word that must come first', async () => {
  const { dry, real } = await runAdapted(
    adapted(
      'upgrade',
      'await checkCluster()\nawait lockReleases()',
      'await lockReleases()\nawait checkCluster()',
    ),
  )
  for (const seen of [dry, real]) {
    expect(seen.output).toContain('checkCluster() must come before lockReleases()')
    expect(seen.exitCode).toBe(70)
  }
  expect(real.changes).toEqual([])
})

test('a backup file by another name in a copy is written, checked and published', async () => {
  const { copy, dry, real } = await runAdapted(
    adapted(
      'backup-values',
      'backups/${release}/$revision-$time.yaml.new',
      'backups/${release}/mine-of-$time',
    ),
  )
  expect(dry.exitCode, dry.output).toBe(0)
  expect(real.exitCode, real.output).toBe(0)
  const state = join(copy.directory, 'left/state/stand-in/mspider')
  expect(readlinkSync(join(state, 'bak.yaml'))).toMatch(/^backups\/mspider\/1-\w+\.yaml$/)
  expect(readFileSync(join(state, 'bak.yaml'), 'utf8')).toContain('of mspider')
})

test("a copy's own command that changes the cluster is refused before the checks", async () => {
  const { dry, real } = await runAdapted(
    adapted(
      'upgrade',
      'await checkCluster()',
      'await run`kubectl delete job old -n mspider-system`\nawait checkCluster()',
    ),
  )
  for (const seen of [dry, real]) {
    expect(seen.output).toContain('checkCluster(…) must come before kubectl delete job old')
    expect(seen.exitCode).toBe(70)
  }
  expect(real.changes).toEqual([])
})

test("after a copy's own command a failing check does not say that nothing was changed", async () => {
  const { real } = await runAdapted(
    adapted(
      'upgrade',
      'await lockReleases()',
      'await lockReleases()\nawait run`kubectl delete job old -n mspider-system`',
    ),
    'no images',
  )
  expect(real.changes).toEqual(['CHANGED: delete job old -n mspider-system'])
  expect(real.exitCode, real.output).toBe(66)
  expect(real.output).not.toContain(UNCHANGED)
})

test('what a copy adds to helm upgrade is rendered and looked at before; a second run makes no new revision', async () => {
  const { real, again } = await runAdapted(
    adapted(
      'upgrade',
      '-f ./${backup} \\\n  ${registryKeys(each).set} \\\n',
      '-f ./${backup} \\\n  ${registryKeys(each).set} \\\n  --set foo=bar \\\n',
    ),
  )
  expect(real.exitCode, real.output).toBe(0)
  const rendered = real.log.findIndex((line) => /^helm template .* --set foo=bar /.test(line))
  const upgraded = real.log.findIndex((line) => /^helm upgrade .* --set foo=bar /.test(line))
  expect(rendered).toBeGreaterThan(-1)
  expect(upgraded).toBeGreaterThan(rendered)
  expect(again.exitCode, again.output).toBe(0)
  expect(again.changes).toEqual([])
})

test("a copy's own command behind the upgrade is run; where it fails, nobody is told that nothing was changed", async () => {
  const post = (words: string) =>
    adapted('upgrade', 'await finish()', `await run\`kubectl ${words}\`\nawait finish()`)
  const good = await runAdapted(post('delete job old -n mspider-system'))
  expect(good.real.exitCode, good.real.output).toBe(0)
  expect(good.real.changes).toEqual([
    'CHANGED: revision 2 of mspider',
    'CHANGED: delete job old -n mspider-system',
  ])
  const bad = await runAdapted(post('patch nothing'))
  expect(bad.real.exitCode, bad.real.output).toBe(1)
  expect(bad.real.output).toMatch(/command · 命令\n\s+kubectl patch nothing/)
  expect(bad.real.output).not.toContain(UNCHANGED)
})

test('a forgotten finish() is told as that', async () => {
  const { dry, real } = await runAdapted(adapted('upgrade', '\nawait finish()\n', '\n'))
  for (const seen of [dry, real]) {
    expect(seen.output).toContain('finish() was not reached')
    expect(seen.exitCode).toBe(70)
  }
})

test('a heading in one language is told as that', async () => {
  const { dry, real } = await runAdapted(
    adapted(
      'upgrade',
      "ownStep('Before anything is changed', '变更前的检查')",
      "ownStep('Before anything is changed')",
    ),
  )
  for (const seen of [dry, real]) {
    expect(seen.output).toContain('ownStep(en, zh) needs its text in English and in Chinese')
    expect(seen.exitCode).toBe(70)
  }
})
