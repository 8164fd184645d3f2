import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parseAllDocuments } from 'yaml'
import {
  auditOf,
  changedChart,
  byHand,
  clusterState,
  installOld,
  kubectlJson,
  lab,
  labSite,
  releaseOf,
  runInLab,
} from '../support/lab-site.ts'
import { namesIn } from '../support/old-state.ts'
import { runProgram } from '../support/run-script.ts'

const fields = async () => {
  const crd = await kubectlJson('get', 'crd', 'propagationpolicies.kairship.io')
  return Object.keys(crd.spec.versions[0].schema.openAPIV3Schema.properties.spec.properties)
}

test('update-crds alone updates the CRDs and nothing else, after saving them so that they can be applied again', async () => {
  await installOld('kairship')
  const before = await fields()
  const { site, state } = labSite()
  const { originalPackage } = lab.modules['kairship']!.new
  const result = await runInLab('update-crds', [
    '--module',
    'kairship',
    '--site',
    site,
    '--via',
    'package',
    '--chart',
    originalPackage,
  ])
  expect(result.exitCode, result.output).toBe(0)
  const after = await fields()
  expect(after.length).toBeGreaterThan(before.length)
  expect(await releaseOf('kairship')).toMatchObject({ revision: '1', status: 'deployed' })

  const [saved] = namesIn(state, 'kairship/crds').new
  const text = readFileSync(join(state, 'kairship/crds', saved!), 'utf8')
  // the third CRD is new: there was nothing of it to save
  expect(parseAllDocuments(text)).toHaveLength(2)
  const restore = /kubectl apply --server-side --force-conflicts -f \S+/.exec(result.stdout)![0]
  await byHand('bash', '-c', restore)
  expect(await fields()).toEqual(before)
})

test('update-crds changes no CRD when one of them is refused by the API server', async () => {
  await installOld('kairship')
  const chart = await changedChart('kairship', () => {})
  writeFileSync(
    join(chart, 'crds/zzz.yaml'),
    'apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: wrong.kairship.io}\nspec: {group: kairship.io, scope: Namespaced, names: {kind: Other, plural: others}, versions: [{name: v1, served: true, storage: true}]}\n',
  )
  const before = await clusterState('kairship')
  const { site } = labSite()
  const result = await runInLab('update-crds', [
    '--module',
    'kairship',
    '--site',
    site,
    '--via',
    'package',
    '--chart',
    chart,
  ])
  expect(result.exitCode, result.output).toBe(1)
  expect(result.output).toMatch(/must be (spec\.names\.plural|<plural>)/i)
  expect(await clusterState('kairship')).toBe(before)
})

test('update-crds refuses a chart without CRDs, and one with something else among them', async () => {
  await installOld('kairship')
  const { site, state } = labSite()
  const chart = await changedChart('kairship', () => {})
  const args = ['--module', 'kairship', '--site', site, '--via', 'package', '--chart', chart]
  const before = await clusterState('kairship')
  writeFileSync(
    join(chart, 'crds/cm.yaml'),
    'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: stray}\n',
  )
  const stray = await runInLab('update-crds', args)
  expect(stray.output).toMatch(/holds a ConfigMap \(stray\), which is not a CRD/)
  expect(stray.exitCode).toBe(78)
  await runProgram('rm', ['-r', join(chart, 'crds')])
  const missing = await runInLab('update-crds', args)
  expect(missing.output).toMatch(/\S*\/crds is missing in the chart/)
  expect(missing.exitCode).toBe(66)
  expect(await clusterState('kairship')).toBe(before)
  expect(auditOf(state, 'kairship').filter(({ event }) => event === 'command')).toEqual([])
})
