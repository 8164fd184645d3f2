import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { recordOf } from '../../lib/manual/dry-runs.ts'
import { ROOT, runProgram, runScript, temporaryDirectory } from '../support/run-script.ts'

const modules = ['skoala', 'kairship', 'mspider', 'spidernet']
const site = ['--site', 'site.example.yaml']

const directoryOf = (module: string) =>
  JSON.parse(readFileSync(join(ROOT, `modules/${module}.json`), 'utf8')).bundle.directory

/** name of the golden file, script, arguments */
const runs: [string, string, string[]][] = [
  ...modules.flatMap((module): [string, string, string[]][] => [
    [`helm-repo.${module}`, 'helm-repo', ['--module', module]],
    [`sync-images.${module}`, 'sync-images', ['--module', module]],
    [`load-images.${module}`, 'load-images', ['--module', module]],
    [`backup-values.${module}`, 'backup-values', ['--module', module]],
    [`update-crds.${module}.repo`, 'update-crds', ['--module', module]],
    [
      `update-crds.${module}.package`,
      'update-crds',
      ['--module', module, '--via', 'package', '--chart', `original-chart/${module}`],
    ],
    [`upgrade.${module}.repo`, 'upgrade', ['--module', module]],
    [
      `upgrade.${module}.package`,
      'upgrade',
      ['--module', module, '--via', 'package', '--chart', `original-chart/${module}`],
    ],
  ]),
  [
    'upgrade.mspider.repo.version',
    'upgrade',
    ['--module', 'mspider', '--version', '0.20.1', '--timeout', '15m', '--ticket', 'CHG 0042'],
  ],
  [
    'upgrade.mspider.repo.install',
    'upgrade',
    ['--module', 'mspider', '--version', '0.20.1', '--install', '--values', 'mspider.yaml'],
  ],
  ['load-images.skoala.local', 'load-images', ['--module', 'skoala', '--local']],
  [
    'upgrade.kairship.package.tgz',
    'upgrade',
    ['--module', 'kairship', '--via', 'package', '--chart', 'kairship-0.21.0.tgz'],
  ],
]

const scratch = mkdtempSync(join(tmpdir(), 'dce-upgrade-test-'))
afterAll(() => rmSync(scratch, { recursive: true }))

const shellcheck = (await runProgram('which', ['shellcheck'])).exitCode === 0
if (process.env['TESTS'] === 'all' && !shellcheck) throw new Error('shellcheck is needed')

async function isGoodBash(name: string, text: string, directory: string) {
  const file = join(directory, `${name}.sh`)
  writeFileSync(file, text)
  expect(await runProgram('bash', ['-n', file])).toMatchObject({ exitCode: 0, output: '' })
  if (!shellcheck) return
  // SC2086: the manual writes $imageRegistry unquoted
  const checked = await runProgram('shellcheck', ['-e', 'SC2086', file])
  expect(checked.output).toBe('')
}

describe('a dry run prints the bash script that reviewers compare with the manual', () => {
  test.concurrent.for(runs)('%s', async ([name, script, args], { expect }) => {
    const result = await runScript(script, [...args, ...site, '--dry-run'])
    expect(result).toMatchObject({ exitCode: 0, stderr: '' })
    await expect(result.stdout).toMatchFileSnapshot(recordOf(name) ?? `golden/${name}.sh`)
    await isGoodBash(name, result.stdout, scratch)
  })

  test.each([
    [
      'upgrade.skoala.repo.oci',
      'upgrade',
      'kind: OCI\n  url: oci://10.16.10.111/release.daocloud.io\n  login: true\n  plainHttp: true',
    ],
    [
      'upgrade.skoala.repo.chartmuseum',
      'upgrade',
      'kind: CHARTMUSEUM\n  url: https://charts.example.org\n  login: false\n  caFile: ca.crt',
    ],
    [
      'sync-images.skoala.oci',
      'sync-images',
      'kind: OCI\n  url: oci://10.16.10.111/release.daocloud.io\n  login: true\n  plainHttp: true',
    ],
    [
      'sync-images.skoala.chartmuseum',
      'sync-images',
      'kind: CHARTMUSEUM\n  url: https://charts.example.org\n  login: false\n  caFile: ca.crt',
    ],
    ...modules.map((module) => [`sync-images.${module}.local`, 'sync-images', 'kind: LOCAL']),
    [
      'load-images.skoala.list',
      'load-images',
      'kind: LOCAL\nnodes:\n  user: ops\n  port: 2222\n  identityFile: ~/.ssh/nodes\n  sudo: true\n  list:\n    - name: node1\n      address: 10.16.10.121\n    - name: node2\n      address: 10.16.10.122',
    ],
  ] as [string, string, string][])('%s', async (name, script, chartRepository) => {
    const module = name.split('.')[1]!
    const directory = temporaryDirectory()
    const example = `name: example\nkubeconfig: ~/.kube/config\ncontext: kubernetes-admin@cluster.local\narchitecture: amd64\ncontainerRegistry: 10.16.10.111\nproject: release.daocloud.io\nimagesFrom: registry\nchartRepository:\n  ${chartRepository}\n`
    writeFileSync(join(directory, 'site.yaml'), example)
    const result = await runScript(script, [
      '--module',
      module,
      ...(script.endsWith('-images') ? ['--bundle', `/media/${directoryOf(module)}`] : []),
      '--site',
      join(directory, 'site.yaml'),
      '--dry-run',
    ])
    expect(result).toMatchObject({ exitCode: 0, stderr: '' })
    const text = result.stdout.replaceAll(/[^\s=]*dce-upgrade-test-\w+\//g, '')
    await expect(text).toMatchFileSnapshot(recordOf(name) ?? `golden/${name}.sh`)
    await isGoodBash(name, text, directory)
  })
})

test('a dry run needs no tool and no cluster, and writes nothing', async () => {
  const directory = temporaryDirectory()
  const empty = join(directory, 'bin')
  mkdirSync(empty)
  writeFileSync(join(directory, 'site.yaml'), await example())
  const env = {
    PATH: `${empty}:${process.execPath.replace(/\/node$/, '')}:/bin`,
    HOME: directory,
    KUBECONFIG: '/nowhere',
  }
  const result = await runScript(
    'upgrade',
    ['--module', 'skoala', '--site', join(directory, 'site.yaml'), '--dry-run'],
    { env },
  )
  expect(result).toMatchObject({ exitCode: 0, stderr: '' })
  expect(
    (await runProgram('ls', ['-A', directory])).stdout.split('\n').filter(Boolean).sort(),
  ).toEqual(['bin', 'site.yaml'])
})

async function example(): Promise<string> {
  return (await runProgram('cat', ['site.example.yaml'])).stdout
}

test('the line of the manual-minded engineer works as it stands: npx zx scripts/upgrade.mts', async () => {
  const { NODE_OPTIONS: _, ...env } = process.env
  const result = await runProgram(
    'npx',
    ['zx', 'scripts/upgrade.mts', '--module', 'mspider', ...site, '--dry-run'],
    { env },
  )
  expect(result.exitCode, result.output).toBe(0)
  expect(result.stdout).toContain('helm upgrade mspider mspider-release/mspider')
})
