import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { parse, stringify } from 'yaml'
import {
  clusterState,
  installOld,
  isRefused,
  lab,
  labSite,
  releaseOf,
  runInLab,
} from '../support/lab-site.ts'
import { testUpgrade } from '../support/lab-upgrades.ts'
import { temporaryDirectory } from '../support/run-script.ts'

const module = 'mspider'

/** A kubeconfig of the lab with changes, in a directory of its own. */
function kubeconfig(change: (config: any) => void): string {
  const config = parse(readFileSync(lab.kubeconfig, 'utf8'))
  change(config)
  const path = join(temporaryDirectory(), 'kubeconfig')
  writeFileSync(path, stringify(config))
  return path
}

describe('refused before anything is changed', () => {
  beforeAll(() => installOld(module))

  test('another current context than the site file names: 78, with the command that switches', async () => {
    const path = kubeconfig((config) => {
      config.contexts.push({ name: 'other-customer', context: config.contexts[0].context })
      config['current-context'] = 'other-customer'
    })
    await isRefused(
      module,
      { kubeconfig: path },
      [],
      78,
      /the current context is other-customer; the site file says lab[\s\S]*kubectl config use-context lab/,
    )
  })

  test('a cluster that is not reachable: 69, with kubectl’s words', async () => {
    const path = kubeconfig(({ clusters }) => (clusters[0].cluster.server = 'https://127.0.0.1:1'))
    await isRefused(module, { kubeconfig: path }, [], 69, /cannot be reached[\s\S]*127\.0\.0\.1:1/)
  })

  test('a login that the cluster does not accept: 77', async () => {
    const path = kubeconfig(({ users }) => (users[0].user = { token: 'wrong' }))
    await isRefused(
      module,
      { kubeconfig: path },
      [],
      77,
      /not allowed[\s\S]*must be logged in|Unauthorized/,
    )
  })

  test('a password that the chart repository does not accept: 77, and it is not printed', async () => {
    const result = await isRefused(module, {}, [], 77, /401/, {
      CHART_REPO_PASSWORD: 'wrong-and-secret',
    })
    expect(result.output).not.toContain('wrong-and-secret')
  })

  test('a release that is not there: 66, with those that are; --install is named', async () => {
    const before = await clusterState('mspider')
    const { site } = labSite()
    const descriptor = JSON.parse(readFileSync('modules/mspider.json', 'utf8'))
    descriptor.releases[0].release = 'mspidr'
    const { copyOfTheCollection, runScript } = await import('../support/run-script.ts')
    const copy = copyOfTheCollection()
    writeFileSync(join(copy, 'modules/mspider.json'), JSON.stringify(descriptor))
    const result = await runScript('upgrade', ['--module', module, '--site', site], {
      cwd: copy,
      env: lab.env,
    })
    expect(result.output).toMatch(
      /release mspidr does not exist in the namespace mspider-system\. There is: mspider[\s\S]*--install/,
    )
    expect(result.exitCode).toBe(66)
    expect(await clusterState('mspider')).toBe(before)
  })

  test('an image outside the module’s place in the registry: 78, each is named with its object', async () => {
    const changed = {
      registryValues: { mspider: { repo: { 'global.imageRegistry': 'docker.io' } } },
    }
    await isRefused(
      module,
      changed,
      [],
      78,
      /these images are not in \S+\/release\.daocloud\.io\/mspider\/[\s\S]*docker\.io\/release\.daocloud\.io\/mspider\/mspider-agent:v0\.20\.1 {2}\(DaemonSet\/mspider-agent\)/,
    )
  })

  test('an audit that cannot be written: 73, and nothing is run', async () => {
    const { site, state } = labSite()
    rmSync(join(state, module, 'audit.jsonl'))
    mkdirSync(join(state, module, 'audit.jsonl'))
    const before = await clusterState(module)
    const result = await runInLab('upgrade', ['--module', module, '--site', site])
    expect(result.output).toMatch(
      /the audit \S+audit\.jsonl cannot be written[\s\S]*What cannot be recorded is not run/,
    )
    expect(result.exitCode).toBe(73)
    expect(await clusterState(module)).toBe(before)
  })
})

test('two upgrades of one release at the same moment: one runs, the other exits 75 and names the holder', async () => {
  await installOld(module)
  const { site } = labSite()
  const args = ['--module', module, '--site', site, '--ticket', 'CHG-1']
  const both = await Promise.all([runInLab('upgrade', args), runInLab('upgrade', args)])
  const [first, second] = both.sort((a, b) => a.exitCode! - b.exitCode!)
  expect(first!.exitCode, first!.output).toBe(0)
  expect(second!.exitCode, second!.output).toBe(75)
  expect(second!.output).toMatch(
    /mspider-system\/mspider of the cluster \S+ is locked by script upgrade, ticket CHG-1, pid \d+/,
  )
  expect(await releaseOf(module)).toMatchObject({ revision: '2' })
  // both wrote to one audit
  const verified = await runInLab('audit', ['verify', '--module', module, '--site', site])
  expect(verified.exitCode, verified.output).toBe(0)
})

testUpgrade(module, 'repo')
