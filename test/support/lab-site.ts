import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, inject } from 'vitest'
import { parse, stringify } from 'yaml'
import { layDownOldState, oldTrail } from './old-state.ts'
import { runProgram, runScript, temporaryDirectory, type Result } from './run-script.ts'

export const lab = inject('lab')

/** The releases of the lab's modules: the same as in modules/*.json. */
export const names = (module: string) => ({ release: module, namespace: `${module}-system` })

export const registryKeys = (module: string) =>
  module === 'spidernet'
    ? ['spidernet.image.registry', 'ui.image.registry']
    : ['global.imageRegistry']

/**
 * A site file of the lab in a directory of its own, so that its state is its own too: it begins with
 * what 0.1 left there, as at a site that goes on with a newer version.
 */
export function labSite(
  changes: Record<string, unknown> = {},
  directory = temporaryDirectory(),
): { site: string; state: string } {
  const site = join(directory, 'site.yaml')
  const { harbor } = lab.chartRepository
  const values = {
    name: 'lab',
    kubeconfig: lab.kubeconfig,
    context: lab.context,
    architecture: 'amd64',
    containerRegistry: lab.registry.host,
    project: 'release.daocloud.io',
    imagesFrom: 'registry',
    chartRepository: { kind: 'HARBOR', url: harbor, login: true },
    ...changes,
  }
  writeFileSync(site, stringify(values))
  const state = join(directory, 'state/lab')
  if (!existsSync(state)) layDownOldState(state, inject('clusterUid'))
  return { site, state }
}

/** The same for all tests of a file; it goes with the lab. */
export const lastingSite = () => labSite({}, mkdtempSync(join(lab.directory, 'site-')))

/** Changes of a site file: another chart repository than the lab's own. */
export const repository = (changes: object) => ({
  chartRepository: { kind: 'HARBOR', url: lab.chartRepository.harbor, login: true, ...changes },
})

/** Runs a script as an engineer of the lab's site. */
export function runInLab(
  name: string,
  args: string[],
  env: NodeJS.ProcessEnv = {},
): Promise<Result> {
  return runScript(name, args, { env: { ...lab.env, ...env } })
}

/** Runs helm or kubectl as an engineer would by hand; throws when it fails. */
export async function byHand(program: string, ...args: string[]): Promise<string> {
  const own = temporaryHelmHome()
  const result = await runProgram(program, args, { env: { ...process.env, ...lab.env, ...own } })
  if (result.exitCode !== 0) throw new Error(`${program} ${args.join(' ')}\n${result.output}`)
  return result.stdout
}

const temporaryHelmHome = () => ({
  HELM_CONFIG_HOME: `${lab.directory}/helm-by-hand`,
  HELM_CACHE_HOME: `${lab.directory}/helm-by-hand/cache`,
  HELM_DATA_HOME: `${lab.directory}/helm-by-hand/data`,
})

export async function kubectlJson(...args: string[]): Promise<any> {
  return JSON.parse(await byHand('kubectl', ...args, '-o', 'json'))
}

/** Values that a user of the module had set, which an upgrade must keep. */
export const userValues = {
  replicaCount: 2,
  auth: { password: 'set-by-the-user' },
}

/** Takes a module out of the cluster, with its CRDs. */
export async function remove(module: string) {
  const { release, namespace } = names(module)
  const own = { ...process.env, ...lab.env, ...temporaryHelmHome() }
  await runProgram('helm', ['uninstall', release, '-n', namespace], { env: own })
  const crds: string = await byHand('kubectl', 'get', 'crds', '-o', 'name')
  const ofModule = crds.split('\n').filter((name) => name.endsWith(`.${module}.io`))
  if (ofModule.length > 0) await byHand('kubectl', 'delete', ...ofModule)
}

/** Installs a module afresh in its old version, with the user's values, as the installer left it. */
export async function installOld(module: string, values: object = userValues) {
  const { release, namespace } = names(module)
  await remove(module)
  const file = join(lab.directory, `values-of-${module}.yaml`)
  writeFileSync(file, stringify(values))
  const { originalPackage } = lab.modules[module]!.old
  const place = `${lab.registry.host}/release.daocloud.io/${module}`
  const set = registryKeys(module).flatMap((key) => ['--set', `${key}=${place}`])
  await byHand(
    'helm',
    ...['install', release, originalPackage, '-n', namespace, '--create-namespace'],
    ...['-f', file, ...set],
  )
}

/** The commands that a failure printed, a rollback with the deletions before it as one. */
export const printedCommands = (output: string): string[] =>
  output.match(/^ +((kubectl delete job .* && \\\n +)*helm rollback|kubectl delete pod) .*/gm) ?? []

/** The release as helm knows it: revision, status, chart; undefined where there is none. */
export async function releaseOf(module: string) {
  const { release, namespace } = names(module)
  const list = JSON.parse(await byHand('helm', 'list', '-a', '-n', namespace, '-o', 'json'))
  return list.find(({ name }: { name: string }) => name === release)
}

/** All that a failed run must leave as it was: every object of the namespace, the module's CRDs. */
export async function clusterState(module: string): Promise<string> {
  const { namespace } = names(module)
  const kinds = 'secrets,configmaps,services,deployments,statefulsets,daemonsets,jobs'
  const { items } = await kubectlJson('get', kinds, '-n', namespace)
  const crds = await kubectlJson('get', 'crds')
  return JSON.stringify(
    [...items, ...crds.items.filter(({ spec }: any) => spec.group === `${module}.io`)].map(
      ({ kind, metadata }) => [
        kind,
        metadata.name,
        metadata.uid,
        metadata.generation,
        kind === 'Secret' && metadata.resourceVersion,
      ],
    ),
    null,
    1,
  )
}

/** The running pods of a module: image, image ID, node. */
export async function podsOf(module: string) {
  const { items } = await kubectlJson('get', 'pods', '-n', names(module).namespace)
  return items
    .filter(
      ({ metadata, status }: any) => !metadata.deletionTimestamp && status.phase === 'Running',
    )
    .map(({ spec, status }: any) => ({
      image: spec.containers[0].image as string,
      node: spec.nodeName as string,
      ready: status.containerStatuses?.every(({ ready }: any) => ready) as boolean,
    }))
}

/** The records of the audit of a module that stand behind those of 0.1, which are as they were. */
export function auditOf(state: string, module: string): any[] {
  const bytes = readFileSync(join(state, module, 'audit.jsonl'))
  const old = oldTrail(module)
  expect(bytes.subarray(0, old.length).equals(old), 'the records of 0.1').toBe(true)
  const lines = bytes.subarray(old.length).toString().split('\n')
  return lines.filter(Boolean).map((line) => JSON.parse(line))
}

/** A copy of the new chart with other default values, which the user's values do not set. */
export async function changedChart(module: string, change: (values: any) => void): Promise<string> {
  const chart = join(temporaryDirectory(), module)
  await runProgram('cp', ['-r', lab.modules[module]!.new.originalChart, chart])
  const values = parse(readFileSync(join(chart, 'values.yaml'), 'utf8'))
  change(values)
  writeFileSync(join(chart, 'values.yaml'), stringify(values))
  return chart
}

/** Runs the upgrade at a site with these differences; it is refused, and the cluster is as before. */
export async function isRefused(
  module: string,
  changes: Record<string, unknown>,
  args: string[],
  exitCode: number,
  sentence: RegExp,
  env = {},
): Promise<Result> {
  const { site } = labSite(changes)
  const before = await clusterState(module)
  const result = await runInLab('upgrade', ['--module', module, '--site', site, ...args], env)
  expect(result.output).toMatch(sentence)
  expect(result.exitCode, result.output).toBe(exitCode)
  expect(await clusterState(module)).toBe(before)
  return result
}
