import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { parse, stringify } from 'yaml'
import {
  auditOf,
  changedChart,
  byHand,
  clusterState,
  installOld,
  lab,
  labSite,
  podsOf,
  releaseOf,
  remove,
  runInLab,
} from './lab-site.ts'
import { testFailedRollout, testUpgrades } from './lab-upgrades.ts'
import { runProgram, temporaryDirectory } from './run-script.ts'

const module = 'mspider'
const old = lab.modules[module]!.old
const chart = lab.modules[module]!.new

/** A kubeconfig of the lab with changes, in a directory of its own. */
function kubeconfig(change: (config: any) => void): string {
  const config = parse(readFileSync(lab.kubeconfig, 'utf8'))
  change(config)
  const path = join(temporaryDirectory(), 'kubeconfig')
  writeFileSync(path, stringify(config))
  return path
}

const repository = (changes: object) => ({
  chartRepository: { kind: 'HARBOR', url: lab.chartRepository.harbor, login: true, ...changes },
})

describe('refused before anything is changed', () => {
  beforeAll(() => installOld(module))

  /** Runs the upgrade; the cluster must be as before. */
  async function isRefused(
    changes: Record<string, unknown>,
    args: string[],
    exitCode: number,
    sentence: RegExp,
    env = {},
  ) {
    const { site } = labSite(changes)
    const before = await clusterState(module)
    const result = await runInLab('upgrade', ['--module', module, '--site', site, ...args], env)
    expect(result.output).toMatch(sentence)
    expect(result.exitCode, result.output).toBe(exitCode)
    expect(await clusterState(module)).toBe(before)
    return result
  }

  test('another current context than the site file names: 78, with the command that switches', async () => {
    const path = kubeconfig((config) => {
      config.contexts.push({ name: 'other-customer', context: config.contexts[0].context })
      config['current-context'] = 'other-customer'
    })
    await isRefused(
      { kubeconfig: path },
      [],
      78,
      /the current context is other-customer; the site file says lab[\s\S]*kubectl config use-context lab/,
    )
  })

  test('another cluster than the one that the records of the site are of: 78', async () => {
    const { site, state } = labSite()
    mkdirSync(state, { recursive: true })
    writeFileSync(join(state, 'cluster.json'), '{"uid": "of-another-cluster"}\n')
    const before = await clusterState(module)
    const result = await runInLab('upgrade', ['--module', module, '--site', site])
    expect(result.output).toMatch(
      /this is another cluster: its uid is [0-9a-f-]+, the records of the site "lab" are of of-another-cluster/,
    )
    expect(result.exitCode).toBe(78)
    expect(await clusterState(module)).toBe(before)
  })

  test('a kubeconfig that does not exist: 78', () =>
    isRefused(
      { kubeconfig: '/nowhere/config' },
      [],
      78,
      /kubeconfig \/nowhere\/config does not exist/,
    ).then(() => {}))

  test('a cluster that is not reachable: 69, with kubectl’s words', async () => {
    const path = kubeconfig(({ clusters }) => (clusters[0].cluster.server = 'https://127.0.0.1:1'))
    await isRefused({ kubeconfig: path }, [], 69, /cannot be reached[\s\S]*127\.0\.0\.1:1/)
  })

  test('a login that the cluster does not accept: 77', async () => {
    const path = kubeconfig(({ users }) => (users[0].user = { token: 'wrong' }))
    await isRefused(
      { kubeconfig: path },
      [],
      77,
      /not allowed[\s\S]*must be logged in|Unauthorized/,
    )
  })

  test('a chart repository that is not reachable: 69', async () => {
    await isRefused(
      repository({ url: 'http://127.0.0.1:1/chartrepo/x' }),
      [],
      69,
      /127\.0\.0\.1:1.*connection refused/,
    )
  })

  test('a password that the chart repository does not accept: 77, and it is not printed', async () => {
    const result = await isRefused({}, [], 77, /401/, { CHART_REPO_PASSWORD: 'wrong-and-secret' })
    expect(result.output).not.toContain('wrong-and-secret')
  })

  test('a chart repository that asks for a login, and no password in the environment: 78', async () => {
    await isRefused({}, [], 78, /CHART_REPO_PASSWORD is not set/, { CHART_REPO_PASSWORD: '' })
  })

  test('a version that the repository does not have: 66, with those that it has', async () => {
    await isRefused(
      {},
      ['--version', '0.20.9'],
      66,
      /mspider-release\/mspider has no version 0\.20\.9\. It has: 0\.20\.1, 0\.20\.0/,
    )
  })

  test('an older version than the deployed one: 78', async () => {
    const newest = await runInLab('upgrade', ['--module', module, '--site', labSite().site])
    expect(newest.exitCode, newest.output).toBe(0)
    await isRefused(
      {},
      ['--version', old.version],
      78,
      /0\.20\.0 is older than 0\.20\.1, which is deployed[\s\S]*--allow-downgrade/,
    )
    const { site } = labSite()
    const meant = await runInLab('upgrade', [
      '--module',
      module,
      '--site',
      site,
      '--version',
      `v${old.version}`,
      '--allow-downgrade',
    ])
    expect(meant.exitCode, meant.output).toBe(0)
    expect(await releaseOf(module)).toMatchObject({
      chart: `mspider-${old.version}`,
      status: 'deployed',
    })
  })

  test('a release that is not there: 66, with those that are; --install is named', async () => {
    const before = await clusterState('mspider')
    const { site } = labSite()
    const descriptor = JSON.parse(readFileSync('modules/mspider.json', 'utf8'))
    descriptor.releases[0].release = 'mspidr'
    const { copyOfTheCollection, runScript } = await import('./run-script.ts')
    const copy = copyOfTheCollection()
    writeFileSync(join(copy, 'modules/mspider.json'), JSON.stringify(descriptor))
    const result = await runScript('upgrade', ['--module', module, '--site', site], {
      cwd: copy,
      env: lab.env,
    })
    expect(result.output).toMatch(
      /no release mspidr in the namespace mspider-system\. There is: mspider[\s\S]*--install/,
    )
    expect(result.exitCode).toBe(66)
    expect(await clusterState('mspider')).toBe(before)
  })

  test('--install where the release exists: 64', async () => {
    const values = join(temporaryDirectory(), 'mspider.yaml')
    writeFileSync(values, '')
    await isRefused(
      {},
      ['--install', '--values', values],
      64,
      /--install is for a release that does not exist; mspider does/,
    )
  })

  test.each<[string, () => Promise<string[]>, number, RegExp]>([
    [
      'a chart that does not exist: 66',
      async () => ['/nowhere/mspider'],
      66,
      /the chart \/nowhere\/mspider does not exist/,
    ],
    [
      'a file that is no chart: 66',
      async () => [lab.kubeconfig],
      66,
      /is not a chart that helm can read/,
    ],
    [
      'the chart of another module: 78',
      async () => [lab.modules['skoala']!.new.originalChart],
      78,
      /is the chart skoala; mspider needs the chart mspider/,
    ],
    [
      'another version than the package has: 78',
      async () => [chart.originalPackage, '--version', '0.20.2'],
      78,
      /is version 0\.20\.1; --version says 0\.20\.2/,
    ],
  ])('%s', async (_, args, exitCode, sentence) => {
    await isRefused({}, ['--via', 'package', '--chart', ...(await args())], exitCode, sentence)
  })

  test('an image outside the module’s place in the registry: 78, each is named with its object', async () => {
    const changed = {
      registryValues: { mspider: { repo: { 'global.imageRegistry': 'docker.io' } } },
    }
    await isRefused(
      changed,
      [],
      78,
      /these images are not in \S+\/release\.daocloud\.io\/mspider\/[\s\S]*docker\.io\/release\.daocloud\.io\/mspider\/mspider-agent:v0\.20\.1 {2}\(DaemonSet\/mspider-agent\)/,
    )
  })

  test('images that are always pulled, where they were loaded on the nodes: 78', async () => {
    const { site } = labSite()
    const adapted = await changedChart(module, (values) => (values.imagePullPolicy = 'Always'))
    await isRefused(
      { imagesFrom: 'nodes' },
      ['--via', 'package', '--chart', adapted],
      78,
      /imagePullPolicy: Always[\s\S]*mspider-agent:v0\.20\.1/,
    )
    const fromRegistry = await runInLab('upgrade', [
      '--module',
      module,
      '--site',
      site,
      '--via',
      'package',
      '--chart',
      adapted,
    ])
    expect(fromRegistry.exitCode, fromRegistry.output).toBe(0)
  })

  test('an audit that cannot be written: 73, and nothing is run', async () => {
    const { site, state } = labSite()
    mkdirSync(join(state, module, 'audit.jsonl'), { recursive: true })
    const before = await clusterState(module)
    const result = await runInLab('upgrade', ['--module', module, '--site', site])
    expect(result.output).toMatch(
      /the audit \S+audit\.jsonl cannot be written[\s\S]*What cannot be recorded is not run/,
    )
    expect(result.exitCode).toBe(73)
    expect(await clusterState(module)).toBe(before)
  })

  test('a full disk: 73; a backup that existed stays, and what is written next to it is not half of one', async () => {
    const directory = temporaryDirectory()
    const state = join(directory, 'state')
    mkdirSync(state)
    await byHand('mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', state)
    onTestFinished(async () => void (await byHand('umount', state)))
    const { site } = labSite()
    writeFileSync(join(directory, 'site.yaml'), readFileSync(site))
    const args = ['--module', module, '--site', join(directory, 'site.yaml')]
    const first = await runInLab('backup-values', args)
    expect(first.exitCode, first.output).toBe(0)
    const good = readFileSync(join(state, 'lab', module, 'bak.yaml'), 'utf8')
    const before = await clusterState(module)
    // from full to nearly full: the audit, the backup or helm's index is what does not fit any more
    for (const free of [0, 4096, 12288, 24576]) {
      await runProgram('dd', ['if=/dev/zero', `of=${join(state, 'filler')}`, 'bs=4096'])
      if (free) await runProgram('truncate', ['-s', `-${free}`, join(state, 'filler')])
      const result = await runInLab('upgrade', args)
      expect(result.output).toMatch(
        /no space left on device|cannot be written|cannot write|ENOSPC/i,
      )
      expect(result.exitCode, result.output).toBe(73)
      expect(readFileSync(join(state, 'lab', module, 'bak.yaml'), 'utf8')).toBe(good)
      rmSync(join(state, 'filler'))
    }
    expect(await clusterState(module)).toBe(before)
    const after = await runInLab('backup-values', args)
    expect(after.exitCode, after.output).toBe(0)
  })

  test('a repository that went down after it was added: 69, not an answer from helm’s old index', async () => {
    const index = await fetch(`${lab.chartRepository.harbor}/index.yaml`, {
      headers: {
        authorization:
          'Basic ' +
          Buffer.from(`${lab.chartRepository.username}:${lab.chartRepository.password}`).toString(
            'base64',
          ),
      },
    }).then((response) => response.text())
    const server: Server = createServer((_, response) => response.end(index)).listen(0, '127.0.0.1')
    await new Promise((resolve) => server.once('listening', resolve))
    const { site } = labSite(
      repository({
        url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
        login: false,
      }),
    )
    const args = ['--module', module, '--site', site]
    const up = await runInLab('helm-repo', args)
    expect(up.exitCode, up.output).toBe(0)
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    const down = await runInLab('helm-repo', args)
    expect(down.output).toMatch(/could not be updated|connection refused/)
    expect(down.exitCode).toBe(69)
  })
})

describe('a release that is pending', () => {
  /** helm is killed while it waits for pods that never come. */
  async function killHelm(...args: string[]) {
    const env = { ...process.env, ...lab.env, HELM_CONFIG_HOME: temporaryDirectory() }
    const helm = spawn(
      'helm',
      [...args, '-n', `${module}-system`, '--set', 'api.command={/app,crash}', '--wait'],
      { env, stdio: 'ignore' },
    )
    const exited = new Promise((resolve) => helm.once('exit', resolve))
    await new Promise((resolve) => setTimeout(resolve, 3000))
    helm.kill('SIGKILL')
    await exited
  }

  test('is left alone: 75, with the rollback that cures it; after that the upgrade works', async () => {
    await installOld(module)
    await killHelm('upgrade', module, old.originalPackage, '--reuse-values')
    const { site } = labSite()
    const before = await clusterState(module)
    const result = await runInLab('upgrade', ['--module', module, '--site', site])
    expect(result.output).toMatch(
      /release mspider is pending-upgrade since \S+ \(revision 2\): another helm is at work on it, or was killed/,
    )
    expect(result.exitCode, result.output).toBe(75)
    expect(await clusterState(module)).toBe(before)

    const backup = await runInLab('backup-values', ['--module', module, '--site', site])
    expect(backup.exitCode, backup.output).toBe(0)
    expect(backup.stdout).toContain('export revision=1')

    await byHand('bash', '-c', /helm rollback mspider 1 .*/.exec(result.output)![0])
    const again = await runInLab('upgrade', ['--module', module, '--site', site])
    expect(again.exitCode, again.output).toBe(0)
    expect(await releaseOf(module)).toMatchObject({
      chart: `mspider-${chart.version}`,
      status: 'deployed',
    })
  })

  test('after a killed installation there is no cure to print: 75, a person decides', async () => {
    await remove(module)
    await killHelm('install', module, old.originalPackage)
    const result = await runInLab('upgrade', ['--module', module, '--site', labSite().site])
    expect(result.output).toMatch(
      /is pending-install[\s\S]*no deployed revision to go back to: a person decides/,
    )
    expect(result.output).not.toMatch(/helm rollback|helm uninstall/)
    expect(result.exitCode, result.output).toBe(75)
  })
})

test('two upgrades of one release at the same moment: one runs, the other exits 75 and names the holder', async () => {
  await installOld(module)
  const { site, state } = labSite()
  const args = ['--module', module, '--site', site, '--ticket', 'CHG-1']
  const both = await Promise.all([runInLab('upgrade', args), runInLab('upgrade', args)])
  const [first, second] = both.sort((a, b) => a.exitCode! - b.exitCode!)
  expect(first!.exitCode, first!.output).toBe(0)
  expect(second!.exitCode, second!.output).toBe(75)
  expect(second!.output).toMatch(
    /mspider-system\/mspider of the cluster \S+ is locked; the holder is script upgrade, ticket CHG-1, pid \d+/,
  )
  expect(await releaseOf(module)).toMatchObject({ revision: '2' })
  // both wrote to one audit: its chain of hashes holds
  const { createHash } = await import('node:crypto')
  const lines = readFileSync(join(state, module, 'audit.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
  lines.forEach((line, index) => {
    const before = index === 0 ? '' : lines[index - 1]!
    expect(JSON.parse(line).prev).toBe(createHash('sha256').update(before).digest('hex'))
  })
})

test('the first form of mspider’s manual installs the release where there is none, with the values given', async () => {
  await remove(module)
  await runProgram('kubectl', ['delete', 'namespace', `${module}-system`], {
    env: { ...process.env, ...lab.env },
  })
  const values = join(temporaryDirectory(), 'mspider.yaml')
  writeFileSync(values, stringify({ auth: { password: 'from-the-file' } }))
  const { site, state } = labSite()
  const args = ['--module', module, '--site', site, '--install', '--values', values]
  const result = await runInLab('upgrade', args)
  expect(result.exitCode, result.output).toBe(0)
  expect(await releaseOf(module)).toMatchObject({
    chart: `mspider-${chart.version}`,
    status: 'deployed',
    revision: '1',
  })
  const set = JSON.parse(
    await byHand('helm', 'get', 'values', module, '-n', `${module}-system`, '-o', 'json'),
  )
  expect(set).toEqual({
    auth: { password: 'from-the-file' },
    global: { imageRegistry: lab.registry.host },
  })
  expect(
    (await podsOf(module)).every(({ image }: any) => image.startsWith(lab.registry.host)),
  ).toBe(true)
  const [install] = auditOf(state, module).filter(
    ({ command, event }) => event === 'command' && /helm upgrade/.test(command),
  )
  expect(install.manual).toBe('mspider.en.md:158-167')
})

testUpgrades(module)

testFailedRollout(
  module,
  'a StatefulSet’s image that is not in the registry',
  ({ store }) => (store.image.tag = 'v9.9.9'),
  /StatefulSet\/mspider-system\/mspider-store: 0 of 1 replicas are new and available\n\s+image can't be pulled[\s\S]*kubectl delete pod mspider-store-0 /,
)
