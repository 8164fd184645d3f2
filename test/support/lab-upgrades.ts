import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { parse } from 'yaml'
import {
  auditOf,
  changedChart,
  byHand,
  clusterState,
  installOld,
  kubectlJson,
  lab,
  labSite,
  names,
  podsOf,
  registryKeys,
  releaseOf,
  runInLab,
  userValues,
  printedCommands,
} from './lab-site.ts'
import { nodesOf } from '../lab/lab.ts'
import { freePorts } from '../lab/processes.ts'
import { onTheNodes } from './load-site.ts'
import { emptySite, login, sync } from './sync-site.ts'

const atPath = (values: any, path: string) =>
  path.split('.').reduce((value, key) => value?.[key], values)

/** The commands of a dry run: no comments, no header, exports apart. */
function commandsOf(dryRun: string) {
  const body = dryRun.slice(dryRun.indexOf('\n# Before anything'))
  const exports: Record<string, string> = {}
  const text = body
    .split('\n')
    .filter((line) => line && !line.startsWith('#'))
    .filter((line) => {
      const [, name, value] = /^export (\w+)=(.*)$/.exec(line) ?? []
      if (name) exports[name] = value!.replace(/^'(.*)'$/, '$1')
      return !name
    })
  return { text: text.join('\n'), exports }
}

/** The commands of a real run, from its audit, are those of the dry run, all of them, in its order. */
function isWhatTheDryRunSaid(state: string, module: string, dryRun: string) {
  const { text, exports } = commandsOf(dryRun)
  const records = auditOf(state, module).filter(({ event }) => event === 'command')
  let rest = text.trim()
  for (const { command, variables } of records) {
    expect(
      rest.startsWith(command),
      `not in the dry run at its place:
${command}
there:
${rest}`,
    ).toBe(true)
    rest = rest.slice(command.length).trimStart()
    // the placeholders, filled in: a variable that the dry run knew has the same value
    for (const [name, value] of Object.entries(variables)) {
      expect(exports, name).toHaveProperty(name)
      if (!exports[name]!.startsWith('{')) expect(value).toBe(exports[name])
      expect(value).not.toMatch(/[{}]/)
    }
  }
  expect(rest.trim()).toBe('')
}

/** The upgrade went well: what the pods run, what the values are, what the release is. */
export async function isUpgraded(module: string, registryValue: string) {
  const { namespace, release } = names(module)
  const { version, images } = lab.modules[module]!.new
  const place = `${lab.registry.host}/release.daocloud.io/${module}/`
  expect(await releaseOf(module)).toMatchObject({
    chart: `${module}-${version}`,
    status: 'deployed',
    revision: '2',
  })

  const values = JSON.parse(
    await byHand('helm', 'get', 'values', release, '-n', namespace, '-o', 'json'),
  )
  expect(values).toMatchObject(userValues)
  for (const key of registryKeys(module)) expect(atPath(values, key)).toBe(registryValue)

  const pods = await podsOf(module)
  const wanted = images.map((image) => `${place}${image}`)
  for (const { image, ready } of pods) {
    expect(wanted).toContain(image)
    expect(ready).toBe(true)
  }
  for (const node of ['node1', 'node2']) expect(pods.map(({ node }: any) => node)).toContain(node)
  return { pods }
}

/** The module goes from old to new, via its manual's helm repository or its chart package. */
export function testUpgrade(module: string, via: 'repo' | 'package') {
  const { originalChart } = lab.modules[module]!.new
  const how = via === 'repo' ? [] : ['--via', 'package', '--chart', originalChart]
  const registry = lab.registry.host
  const registryValue = via === 'repo' ? registry : `${registry}/release.daocloud.io/${module}`
  test(`${module} goes from old to new via ${via}, and a second run has nothing to do`, async () => {
    await installOld(module)
    const { site, state } = labSite()
    const args = ['--module', module, '--site', site, ...how]
    const dryRun = await runInLab('upgrade', [...args, '--dry-run'])
    const result = await runInLab('upgrade', args)
    expect(result.exitCode, result.output).toBe(0)
    await isUpgraded(module, registryValue)
    isWhatTheDryRunSaid(state, module, dryRun.stdout)

    const backup = join(state, module, 'bak.yaml')
    expect(readlinkSync(backup)).toMatch(new RegExp(`^backups/${module}/1-\\d{8}T\\d{6}Z\\.yaml$`))
    expect(statSync(backup).mode & 0o777).toBe(0o600)
    expect(parse(readFileSync(backup, 'utf8'))).toMatchObject(userValues)
    const lastSuccess = JSON.parse(readFileSync(join(state, module, 'last-success.json'), 'utf8'))
    expect(lastSuccess.upgrade).toMatchObject({ module, script: 'upgrade' })

    const verified = await runInLab('audit', ['verify', '--module', module, '--site', site])
    expect(verified.exitCode, verified.output).toBe(0)
    const id = ['--run', lastSuccess.upgrade.run, '--site', site]
    const trace = await runInLab('trace', ['--module', module, ...id, '--format', 'md'])
    expect(trace.exitCode, trace.output).toBe(0)
    const isDescribed = via === 'repo' || module !== 'mspider'
    if (isDescribed) expect(trace.stdout).toMatch(/executed in the run[^]*exit 0, [^]*helm upgrade/)
    for (const secret of [lab.chartRepository.password, lab.registry.password])
      expect(verified.output + trace.output).not.toContain(secret)

    if (module === 'kairship') await newFieldCanBeUsed()

    const again = await runInLab('upgrade', args)
    expect(again.exitCode, again.output).toBe(0)
    expect(again.stdout).toContain('nothing to do')
    expect(again.stdout).toContain('2 of 2 pods are new and available')
    expect(await releaseOf(module)).toMatchObject({ revision: '2' })
  })
}

/** kairship's CRDs were updated before the upgrade: their new field and the new kind are there. */
async function newFieldCanBeUsed() {
  const { items } = await kubectlJson('get', 'crds')
  const crds = items.filter(({ spec }: any) => spec.group === 'kairship.io')
  expect(crds.map(({ metadata }: any) => metadata.name).sort()).toEqual([
    'clusters.kairship.io',
    'overridepolicies.kairship.io',
    'propagationpolicies.kairship.io',
  ])
  const policies = await kubectlJson('get', 'overridepolicies.kairship.io', '-A')
  expect(policies.items).toHaveLength(1)
}

export const noRegistryLogin = { REGISTRY_USERNAME: '', REGISTRY_PASSWORD: '' }

/**
 * A new version of which something does not come up: the upgrade ends with 1, says why, and prints
 * what brings the old pods back.
 */
export function testFailedRollout(
  module: string,
  what: string,
  change: (values: any) => void,
  reason: RegExp,
) {
  test(`${what} is told apart, and the printed commands bring the old pods back`, async () => {
    await installOld(module)
    const chart = await changedChart(module, change)
    const args = [
      '--module',
      module,
      '--site',
      labSite().site,
      '--via',
      'package',
      '--chart',
      chart,
    ]
    // who does not log in at the registry is not told that it lacks an image, until the pods start
    const result = await runInLab('upgrade', [...args, '--timeout', '20s'], noRegistryLogin)
    expect(result.stdout).toMatch(
      /could not check whether the registry has these images: .*REGISTRY_USERNAME/,
    )
    expect(result.exitCode, result.output).toBe(1)
    expect(result.stderr).toMatch(reason)
    const versions = lab.modules[module]!
    expect(result.stderr).toContain(
      `release ${module} is at revision 2, ${module}-${versions.new.version}, deployed (before: revision 1, ${module}-${versions.old.version})`,
    )
    await oldPodsComeBack(module, result.stderr)
  })
}

/** Runs the commands that the script printed, as they stand. */
export async function oldPodsComeBack(module: string, output: string) {
  for (const command of printedCommands(output)) await byHand('bash', '-c', command)
  const { version } = lab.modules[module]!.old
  expect(await releaseOf(module)).toMatchObject({
    status: 'deployed',
    chart: `${module}-${version}`,
    revision: '3',
  })
  await vi.waitFor(
    async () => {
      const pods = await podsOf(module)
      expect(pods.length).toBeGreaterThanOrEqual(4)
      for (const { image, ready } of pods) {
        expect(image).toMatch(new RegExp(`:v${version}$`))
        expect(ready).toBe(true)
      }
    },
    { timeout: 60_000, interval: 500 },
  )
}

/** A bundle is brought in by sync-images, to a project of its own, and the module upgraded from there. */
export function testSyncedUpgrade(module: string, kind: string) {
  test(`${module} is upgraded from what sync-images brought in (${kind})`, async () => {
    await installOld(module)
    const { version, bundle } = lab.modules[module]!.new
    const keys = registryKeys(module).map((key) => [key, '{containerRegistry}'])
    // the chart in local-repo is rewritten for the registry
    const changes = { registryValues: { [module]: { package: Object.fromEntries(keys) } } }
    const site = emptySite(kind, kind === 'LOCAL' ? changes : {})
    const synced = await sync(site, module, bundle)
    expect(synced.exitCode, synced.output).toBe(0)
    const chart = join(site.state, module, `local-repo/${module}-${version}.tgz`)
    const how = kind === 'LOCAL' ? ['--via', 'package', '--chart', chart] : []
    const args = ['--module', module, '--site', site.site, ...how]
    const result = await runInLab('upgrade', args, login(kind))
    expect(result.exitCode, result.output).toBe(0)
    expect(await releaseOf(module)).toMatchObject({ chart: `${module}-${version}`, revision: '2' })
    const pods = await podsOf(module)
    expect(pods.length).toBeGreaterThanOrEqual(4)
    for (const { image, ready } of pods) {
      expect(image).toContain(`${lab.registry.host}/${site.project}/${module}/`)
      expect(ready).toBe(true)
    }
  })
}

/** The images are loaded on the nodes, the site has no registry at all, and the module is upgraded. */
export function testLoadedUpgrade(module: string) {
  test(`${module} is upgraded from the images that load-images put on the nodes, without a registry`, async () => {
    await installOld(module)
    const { version, bundle } = lab.modules[module]!.new
    const [port] = await freePorts(1)
    const containerRegistry = `127.0.0.1:${port}` // nobody listens there
    const { site, state } = labSite({ containerRegistry, imagesFrom: 'nodes', nodes: nodesOf(lab) })
    const args = ['--module', module, '--site', site]
    const before = await clusterState(module)
    const early = await runInLab('upgrade', args)
    expect(early.exitCode, early.output).toBe(66)
    expect(early.stderr).toMatch(
      new RegExp(`node1: ${containerRegistry}/release[^]*node2: ${containerRegistry}/release`),
    )
    expect(await clusterState(module)).toBe(before)
    const loaded = await onTheNodes(() => runInLab('load-images', [...args, '--bundle', bundle]))
    expect(loaded.exitCode, loaded.output).toBe(0)
    // what a load of 0.1 that was killed left is gone too
    expect(readdirSync(join(state, module, 'load'))).toEqual([])
    const result = await runInLab('upgrade', args)
    expect(result.exitCode, result.output).toBe(0)
    expect(await releaseOf(module)).toMatchObject({ chart: `${module}-${version}`, revision: '2' })
    const pods = await podsOf(module)
    expect(pods.length).toBeGreaterThanOrEqual(4)
    for (const { image, ready } of pods) {
      expect(image).toContain(`${containerRegistry}/release.daocloud.io/${module}/`)
      expect(ready).toBe(true)
    }
    for (const node of ['node1', 'node2']) expect(pods.map(({ node }: any) => node)).toContain(node)
  })
}
