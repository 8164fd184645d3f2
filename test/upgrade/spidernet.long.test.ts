import { readlinkSync } from 'node:fs'
import { parse } from 'yaml'
import {
  testFailedRollout,
  testUpgrade,
  testSyncedUpgrade,
  testLoadedUpgrade,
} from '../support/lab-upgrades.ts'
import { readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import {
  auditOf,
  changedChart,
  byHand,
  installOld,
  kubectlJson,
  lab,
  labSite,
  registryKeys,
  releaseOf,
  runInLab,
  userValues,
} from '../support/lab-site.ts'
import { copyOfTheCollection, runScript, temporaryDirectory } from '../support/run-script.ts'

const module = 'spidernet'

/** An upgrade by hand that fails, and leaves a failed last revision with other values. */
async function failByHand() {
  const { originalPackage } = lab.modules[module]!.old
  const args = ['upgrade', module, originalPackage, '-n', `${module}-system`, '--reuse-values']
  const fail = [
    '--set',
    'auth.password=of-the-failed-one',
    '--set',
    'ui.image.tag=missing',
    '--wait',
    '--timeout',
    '3s',
  ]
  await expect(byHand('helm', ...args, ...fail)).rejects.toThrow(
    /FAILED|timed out|deadline|not ready/i,
  )
}

test('a backup holds the values of the last deployed revision, not of a failed one after it', async () => {
  await installOld(module)
  await failByHand()
  expect(await releaseOf(module)).toMatchObject({ revision: '2', status: 'failed' })
  const { site, state } = labSite()
  const result = await runInLab('backup-values', ['--module', module, '--site', site])
  expect(result.exitCode, result.output).toBe(0)
  expect(readlinkSync(join(state, module, 'bak.yaml'))).toMatch(/^backups\/spidernet\/1-/)
  expect(parse(readFileSync(join(state, module, 'bak.yaml'), 'utf8'))).toMatchObject(userValues)

  // and an upgrade goes on from there
  const upgrade = await runInLab('upgrade', ['--module', module, '--site', site])
  expect(upgrade.exitCode, upgrade.output).toBe(0)
  const values = JSON.parse(
    await byHand('helm', 'get', 'values', module, '-n', `${module}-system`, '-o', 'json'),
  )
  expect(values).toMatchObject(userValues)
  expect(await releaseOf(module)).toMatchObject({ revision: '3', status: 'deployed' })
})

test('a copy of the script under another name, adapted, runs as well as the original', async () => {
  await installOld(module)
  const copy = copyOfTheCollection()
  const original = readFileSync(join(copy, 'scripts/upgrade.mts'), 'utf8')
  const adapted = original.replaceAll(
    '${registryKeys(each).set} \\\n',
    '${registryKeys(each).set} \\\n  --set spidernet.logLevel=debug --set replicaCount=1 \\\n',
  )
  expect(adapted).not.toBe(original)
  writeFileSync(join(copy, 'scripts/upgrade-for-acme.mts'), adapted)
  const { site, state } = labSite()
  const args = ['--module', module, '--site', site]
  const result = await runScript('upgrade-for-acme', args, { cwd: copy, env: lab.env })
  expect(result.exitCode, result.output).toBe(0)
  const values = JSON.parse(
    await byHand('helm', 'get', 'values', module, '-n', `${module}-system`, '-o', 'json'),
  )
  expect(values).toMatchObject({ ...userValues, replicaCount: 1, spidernet: { logLevel: 'debug' } })
  const [start] = auditOf(state, module)
  expect(start).toMatchObject({ event: 'start', script: 'upgrade-for-acme' })
  expect(Object.keys(start.files)).toContain('scripts/upgrade-for-acme.mts')

  // the original has other values, so it is not "nothing to do": what the copy added is looked at too
  const again = await runScript('upgrade-for-acme', args, { cwd: copy, env: lab.env })
  expect(again.stdout).toContain('nothing to do')
  const back = readFileSync(join(copy, 'scripts/upgrade-for-acme.mts'), 'utf8').replaceAll(
    'replicaCount=1',
    'replicaCount=2',
  )
  writeFileSync(join(copy, 'scripts/upgrade-for-acme.mts'), back)
  const third = await runScript('upgrade-for-acme', args, { cwd: copy, env: lab.env })
  expect(third.exitCode, third.output).toBe(0)
  expect(await releaseOf(module)).toMatchObject({ revision: '3' })
})

test('a site that has another form of a registry value says so in its site file', async () => {
  await installOld(module)
  const relocated = temporaryDirectory()
  const { harbor, username, password } = lab.chartRepository
  await byHand(
    'helm',
    'pull',
    module,
    '--repo',
    harbor,
    '--username',
    username,
    '--password',
    password,
    '--version',
    lab.modules[module]!.new.version,
    '-d',
    relocated,
  )
  const chart = join(relocated, readdirSync(relocated)[0]!)
  const args = ['--module', module, '--via', 'package', '--chart', chart]
  const asInTheDescriptor = await runInLab('upgrade', [...args, '--site', labSite().site])
  expect(asInTheDescriptor.output).toMatch(
    /these images are not in[\s\S]*registryValues: \{spidernet: \{package:/,
  )
  expect(asInTheDescriptor.exitCode).toBe(78)
  expect(await releaseOf(module)).toMatchObject({ revision: '1' })
  const own = Object.fromEntries(registryKeys(module).map((key) => [key, '{containerRegistry}']))
  const { site } = labSite({ registryValues: { [module]: { package: own } } })
  const result = await runInLab('upgrade', [...args, '--site', site])
  expect(result.exitCode, result.output).toBe(0)
  const { items } = await kubectlJson('get', 'deployments', '-n', `${module}-system`)
  expect(items[0].spec.template.spec.containers[0].image).toContain(
    `${lab.registry.host}/release.daocloud.io/spidernet/`,
  )
})

testFailedRollout(
  module,
  'pods that fit on no node',
  ({ resources }) => (resources.requests.cpu = '900'),
  /Deployment\/spidernet-system\/spidernet-api: 0 of 2[^\n]*\n\s+no room[^\n]*Insufficient cpu/,
)

test('random values, a test pod and lookups in a chart are no reason to refuse, to upgrade again, or to miss a change', async () => {
  await installOld(module)
  const chart = await changedChart(module, () => {})
  const extra = (level: string) =>
    writeFileSync(
      join(chart, 'templates/extra.yaml'),
      `{{- if not (lookup "v1" "Namespace" "" "kube-system") }}{{ fail "lookup found nothing" }}{{ end }}
apiVersion: v1
kind: ConfigMap
metadata: { name: extra }
data: { token: {{ randAlphaNum 8 | quote }}, level: ${level} }
---
apiVersion: v1
kind: Pod
metadata: { name: test, annotations: { helm.sh/hook: test } }
spec: { restartPolicy: Never, containers: [{ name: test, image: busybox }] }
`,
    )
  const args = ['--module', module, '--site', labSite().site, '--via', 'package', '--chart', chart]
  extra('one')
  const first = await runInLab('upgrade', args)
  expect(first.exitCode, first.output).toBe(0)
  const second = await runInLab('upgrade', args)
  expect(second.stdout, second.output).toContain('nothing to do')
  expect(await releaseOf(module)).toMatchObject({ revision: '2' })
  extra('two')
  const third = await runInLab('upgrade', args)
  expect(third.exitCode, third.output).toBe(0)
  expect(await releaseOf(module)).toMatchObject({ revision: '3' })
})

test.each(['3.10', '4'] as const)(
  'the module goes from old to new with helm %s',
  async (version) => {
    await installOld(module)
    const { site } = labSite()
    const env = { PATH: `${lab.helms[version]}:${lab.env['PATH']}` }
    const result = await runInLab('upgrade', ['--module', module, '--site', site], env)
    expect(result.exitCode, result.output).toBe(0)
    expect(await releaseOf(module)).toMatchObject({ revision: '2', status: 'deployed' })
    const again = await runInLab('upgrade', ['--module', module, '--site', site], env)
    expect(again.stdout, again.output).toContain('nothing to do')
  },
)

testUpgrade('spidernet', 'package')

testSyncedUpgrade('spidernet', 'LOCAL')

testLoadedUpgrade('spidernet')
