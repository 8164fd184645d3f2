import { beforeAll } from 'vitest'
import { createServer, type Server } from 'node:http'
import { gunzipSync, gzipSync } from 'node:zlib'
import { type AddressInfo } from 'node:net'
import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { parse, stringify } from 'yaml'
import {
  auditOf,
  changedChart,
  byHand,
  clusterState,
  installOld,
  isRefused,
  kubectlJson,
  repository,
  lab,
  labSite,
  podsOf,
  releaseOf,
  remove,
  runInLab,
  userValues,
} from '../support/lab-site.ts'
import {
  noRegistryLogin,
  testFailedRollout,
  testUpgrade,
  testSyncedUpgrade,
  testLoadedUpgrade,
} from '../support/lab-upgrades.ts'
import { namesIn } from '../support/old-state.ts'
import { runProgram, temporaryDirectory } from '../support/run-script.ts'

const module = 'mspider'
const old = lab.modules[module]!.old
const chart = lab.modules[module]!.new

describe('refused before anything is changed', () => {
  beforeAll(() => installOld(module))

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
      module,
      { kubeconfig: '/nowhere/config' },
      [],
      78,
      /kubeconfig \/nowhere\/config does not exist/,
    ).then(() => {}))

  test('a chart repository that is not reachable: 69', async () => {
    await isRefused(
      module,
      repository({ url: 'http://127.0.0.1:1/chartrepo/x' }),
      [],
      69,
      /127\.0\.0\.1:1.*connection refused/,
    )
  })

  test('a chart repository that asks for a login, and no password in the environment: 78', async () => {
    await isRefused(module, {}, [], 78, /but not set: CHART_REPO_PASSWORD/, {
      CHART_REPO_PASSWORD: '',
    })
  })

  test('a version that the repository does not have: 66, with those that it has', async () => {
    await isRefused(
      module,
      {},
      ['--version', '0.20.9'],
      66,
      /mspider-release\/mspider has no version 0\.20\.9\. It has: 0\.20\.1, 0\.20\.0/,
    )
  })

  test('--install where the release exists: 64', async () => {
    const values = join(temporaryDirectory(), 'mspider.yaml')
    writeFileSync(values, '')
    await isRefused(
      module,
      {},
      ['--install', '--values', values],
      64,
      /--install is for a release that does not exist; mspider does/,
    )
  })

  test('an older version than the deployed one: 78', async () => {
    const newest = await runInLab('upgrade', ['--module', module, '--site', labSite().site])
    expect(newest.exitCode, newest.output).toBe(0)
    await isRefused(
      module,
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

  test('images that are always pulled, where they were loaded on the nodes: 78', async () => {
    const { site } = labSite()
    const adapted = await changedChart(module, (values) => (values.imagePullPolicy = 'Always'))
    await isRefused(
      module,
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
    await isRefused(
      module,
      {},
      ['--via', 'package', '--chart', ...(await args())],
      exitCode,
      sentence,
    )
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
      /is pending-install[\s\S]*no deployed revision to roll back to: decide by hand/,
    )
    expect(result.output).not.toMatch(/helm rollback|helm uninstall/)
    expect(result.exitCode, result.output).toBe(75)
  })
})

/** Changes the status of a revision in helm's own record: JSON, packed with gzip, as base64 in a secret. */
async function setStatus(revision: number, status: string) {
  const name = `sh.helm.release.v1.${module}.v${revision}`
  const where = ['-n', `${module}-system`]
  const { data } = await kubectlJson('get', 'secret', name, ...where)
  const base64 = Buffer.from(data.release, 'base64').toString()
  const record = JSON.parse(gunzipSync(Buffer.from(base64, 'base64')).toString())
  record.info.status = status
  const packed = gzipSync(JSON.stringify(record)).toString('base64')
  const release = Buffer.from(packed).toString('base64')
  const patch = JSON.stringify({ data: { release }, metadata: { labels: { status } } })
  await byHand('kubectl', 'patch', 'secret', name, ...where, '-p', patch)
}

test('where helm was told to end while it finished, so that it calls the old revision superseded and the new one failed, the upgrade goes on', async () => {
  await installOld(module)
  const { site, state } = labSite()
  const args = ['--module', module, '--site', site]
  const package_ = lab.modules[module]!.old.originalPackage
  await byHand('helm', 'upgrade', module, package_, '-n', `${module}-system`, '--reuse-values')
  await setStatus(2, 'failed')
  const result = await runInLab('upgrade', args)
  expect(result.exitCode, result.output).toBe(0)
  expect(result.stdout).toContain('export revision=1')
  expect(parse(readFileSync(join(state, module, 'bak.yaml'), 'utf8'))).toMatchObject(userValues)
  expect(await releaseOf(module)).toMatchObject({ revision: '3', status: 'deployed' })
})

test('where helm was killed while it finished, so that no revision is deployed and the new one is pending, the rollback that cures it is printed', async () => {
  await installOld(module)
  const { site } = labSite()
  const package_ = lab.modules[module]!.old.originalPackage
  await byHand('helm', 'upgrade', module, package_, '-n', `${module}-system`, '--reuse-values')
  await setStatus(2, 'pending-upgrade')
  const before = await clusterState(module)
  const result = await runInLab('upgrade', ['--module', module, '--site', site])
  expect(result.exitCode, result.output).toBe(75)
  expect(await clusterState(module)).toBe(before)
  await byHand('bash', '-c', /helm rollback mspider 1 .*/.exec(result.output)![0])
  const again = await runInLab('upgrade', ['--module', module, '--site', site])
  expect(again.exitCode, again.output).toBe(0)
  expect(await releaseOf(module)).toMatchObject({ revision: '4', status: 'deployed' })
})

test('a backup where the cluster is not reachable: 69, and the earlier one stays the newest', async () => {
  await installOld(module)
  const { site, state } = labSite()
  const args = ['--module', module, '--site', site]
  const first = await runInLab('backup-values', args)
  expect(first.exitCode, first.output).toBe(0)
  const backup = join(state, module, 'bak.yaml')
  const [link, text] = [readlinkSync(backup), readFileSync(backup, 'utf8')]
  const config = parse(readFileSync(lab.kubeconfig, 'utf8'))
  config.clusters[0].cluster.server = 'https://127.0.0.1:1'
  const nowhere = join(dirname(site), 'kubeconfig')
  writeFileSync(nowhere, stringify(config))
  writeFileSync(site, readFileSync(site, 'utf8').replace(lab.kubeconfig, nowhere))
  const second = await runInLab('backup-values', args)
  expect(second.output).toMatch(/cannot be reached[\s\S]*127\.0\.0\.1:1/)
  expect(second.exitCode).toBe(69)
  expect([readlinkSync(backup), readFileSync(backup, 'utf8')]).toEqual([link, text])
  expect(namesIn(state, join(module, 'backups', module)).new).toHaveLength(1)
})

test('a Job that stands in the way, which nobody can change, is named with the command that deletes it', async () => {
  await installOld(module)
  const change = (values: any) => (values.migrate.command = ['/app', 'done', 'again'])
  const first = await changedChart(module, () => {})
  const { site } = labSite()
  const args = ['--module', module, '--site', site, '--via', 'package', '--chart']
  const done = await runInLab('upgrade', [...args, first])
  expect(done.exitCode, done.output).toBe(0)
  const second = await changedChart(module, change)
  const result = await runInLab('upgrade', [...args, second])
  expect(result.output).toMatch(/field is immutable/)
  expect(result.exitCode, result.output).toBe(1)
  const command =
    /kubectl delete job mspider-migrate\S* -n mspider-system --kubeconfig \S+ --context lab/
  expect(result.stderr).toMatch(command)
  await byHand('bash', '-c', command.exec(result.stderr)![0])
  const again = await runInLab('upgrade', [...args, second])
  expect(again.exitCode, again.output).toBe(0)
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

testFailedRollout(
  module,
  'a StatefulSet’s image that is not in the registry',
  ({ store }) => (store.image.tag = 'v9.9.9'),
  /StatefulSet\/mspider-system\/mspider-store: 0 of 1 replicas are new and available\n\s+image can't be pulled[\s\S]*kubectl delete pod mspider-store-0 /,
)

test('a revision that 0.1 found not to come up is not what a rollback goes to', async () => {
  await installOld(module)
  const { site, state } = labSite()
  const path = join(state, module, 'did-not-come-up.json')
  expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual({ [module]: [11] })
  for (let revision = 2; revision <= 11; revision++) {
    const how = ['-n', `${module}-system`, '--reuse-values', '--set', `note=${revision}`]
    await byHand('helm', 'upgrade', module, old.originalPackage, ...how)
  }
  expect(await releaseOf(module)).toMatchObject({ revision: '11', status: 'deployed' })
  const bad = await changedChart(module, ({ store }) => (store.image.tag = 'v9.9.9'))
  const how = ['--via', 'package', '--chart', bad, '--timeout', '20s']
  const args = ['--module', module, '--site', site, ...how]
  const result = await runInLab('upgrade', args, noRegistryLogin)
  expect(result.exitCode, result.output).toBe(1)
  expect(result.stderr).toMatch(/helm rollback mspider 10 /)
  expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual({ [module]: [11, 12] })
})

test('an image that the registry does not have is named before anything is changed: 66', async () => {
  await installOld(module)
  const bad = await changedChart(module, ({ store }) => (store.image.tag = 'v9.9.9'))
  await isRefused(
    module,
    {},
    ['--via', 'package', '--chart', bad],
    66,
    /does not have these images:\n.*：\n\s+\S+mspider-store:v9\.9\.9\n[\s\S]*sync-images/,
  )
})

test('a StatefulSet’s pod of a failed upgrade that stands in the way of the next one is named with the command that deletes it', async () => {
  await installOld(module)
  const bad = await changedChart(module, ({ store }) => (store.image.tag = 'v9.9.9'))
  const args = ['--module', module, '--site', labSite().site, '--timeout', '20s']
  const first = await runInLab(
    'upgrade',
    [...args, '--via', 'package', '--chart', bad],
    noRegistryLogin,
  )
  expect(first.exitCode, first.output).toBe(1)

  const second = await runInLab('upgrade', args)
  expect(second.exitCode, second.output).toBe(1)
  const cure = /of an older revision and blocks[^\n]*\n +(kubectl delete pod mspider-store-0 .*)/
  expect(second.stdout).toMatch(cure)
  await byHand('bash', '-c', cure.exec(second.stdout)![1]!)
  const third = await runInLab('upgrade', args)
  expect(third.exitCode, third.output).toBe(0)
})

testUpgrade(module, 'package')

testSyncedUpgrade('mspider', 'OCI')

testLoadedUpgrade('mspider')
