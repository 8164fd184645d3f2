import { mkdirSync, readdirSync, statSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { expect, test } from 'vitest'
import { processesOf } from '../support/interruptions.ts'
import { installOld, lab, labSite, runInLab } from '../support/lab-site.ts'
import {
  testFailedRollout,
  testUpgrade,
  testSyncedUpgrade,
  testLoadedUpgrade,
} from '../support/lab-upgrades.ts'
import { nodesOf } from '../lab/lab.ts'
import { onTheNodes } from '../support/load-site.ts'
import { runProgram } from '../support/run-script.ts'

testFailedRollout(
  'kairship',
  'an image that is not in the registry',
  ({ api }) => (api.image.tag = 'v9.9.9'),
  /Deployment\/kairship-system\/kairship-api: 0 of 2 replicas are new and available\n\s+image can't be pulled[^\n]*kairship-apiserver:v9\.9\.9[^\n]*not found/,
)

testFailedRollout(
  'kairship',
  'a container that crashes',
  ({ agent }) => (agent.extraArgs = ['crash']),
  /DaemonSet\/kairship-system\/kairship-agent: \d of 2 pods[^\n]*\n\s+crash[^\n]*container agent ended with exit code 1[^\n]*kubectl logs/,
)

testUpgrade('kairship', 'repo')
testUpgrade('kairship', 'package')

// those that only read are asked afterwards
const scripts = readdirSync('scripts')
  .map((file) => file.replace(/\.mts$/, ''))
  .filter((script) => script !== 'audit' && script !== 'trace')
const { harbor, oci, username, password } = lab.chartRepository

test.each(
  scripts.flatMap((script) => [
    [script, 'HARBOR', harbor, username, password],
    [script, 'OCI', oci, lab.registry.username, lab.registry.password],
  ]),
)(
  'a password in the environment of %s, with %s, is in no argv, output, audit or file but helm’s own private one',
  async (script, kind, url, user, canary) => {
    await installOld('kairship')
    const isSync = script === 'sync-images'
    const isLoad = script === 'load-images'
    // a project of its own has nothing yet, so that everything is pushed
    const project = isSync ? `canary-${kind!.toLowerCase()}` : 'release.daocloud.io'
    const { site } = labSite({
      project,
      ...(isLoad && { nodes: nodesOf(lab) }),
      chartRepository: {
        kind,
        url: url!.replace(/[^/]+$/, project),
        login: true,
        ...(kind === 'OCI' && { plainHttp: true }),
      },
    })
    const directory = dirname(site)
    const mark = `CANARY_RUN=${directory}`
    const seen = new Set<string>()
    const sampling = setInterval(
      () => processesOf(mark).forEach(({ command }) => seen.add(command)),
      5,
    )
    for (const own of ['home', 'tmp']) mkdirSync(join(directory, own))
    const bundle = isSync || isLoad ? ['--bundle', lab.modules['kairship']!.new.bundle] : []
    const ofRegistry = isSync ? lab.registry.password : `${canary}-of-the-registry`
    const env = {
      CANARY_RUN: directory,
      HOME: join(directory, 'home'),
      TMPDIR: join(directory, 'tmp'),
      CHART_REPO_USERNAME: user,
      CHART_REPO_PASSWORD: canary,
      REGISTRY_PASSWORD: ofRegistry,
    }
    const args = ['--module', 'kairship', '--site', site]
    const work = () => runInLab(script!, [...args, ...bundle], env)
    const result = await (isLoad ? onTheNodes(work) : work())
    clearInterval(sampling)
    expect(result.exitCode, result.output).toBe(0)

    const argv = [...seen].join('\n')
    expect(argv).toMatch(isSync ? /^charts-syncer sync /m : isLoad ? /^ssh /m : /^(\S+\/)?helm /m)
    const shown = await runInLab('audit', ['show', ...args], env)
    expect(shown.exitCode, shown.output).toBe(0)
    for (const secret of [canary!, ofRegistry]) {
      expect(argv).not.toContain(secret)
      expect(result.output + shown.output).not.toContain(secret)
    }

    const secrets = ['-e', canary!, '-e', ofRegistry]
    const found = await runProgram('grep', ['-r', '-l', '-F', ...secrets, directory])
    const files = found.stdout.split('\n').filter(Boolean)
    const needed = kind === 'HARBOR' && script !== 'backup-values' && !isSync && !isLoad
    expect(files.map((file) => relative(directory, file))).toEqual(
      needed ? ['state/lab/kairship/.helm/repositories.yaml'] : [],
    )
    for (const file of files) expect(statSync(file).mode & 0o777).toBe(0o600)
  },
)

testSyncedUpgrade('kairship', 'CHARTMUSEUM')

testLoadedUpgrade('kairship')
