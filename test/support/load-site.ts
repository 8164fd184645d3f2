import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { parse, stringify } from 'yaml'
import { addMachine, nodesOf, type LabNode } from '../lab/lab.ts'
import { alone } from '../lab/processes.ts'
import { lab, labSite, runInLab } from './lab-site.ts'
import { makeBundle } from './make-bundle.ts'
import { runProgram, temporaryDirectory, type Result } from './run-script.ts'

let count = 0
const unique = (what: string) => `${what}${process.pid}n${++count}`

/** A machine that images can be loaded on, and how a site file lists it. */
export interface Machine extends LabNode {
  runtime: 'containerd' | 'docker'
}

/** A machine of the lab with nothing on it. */
export async function machine(
  runtime: Machine['runtime'] = 'containerd',
  size?: string,
): Promise<Machine> {
  const name = unique(runtime === 'docker' ? 'd' : 'c')
  return { ...(await addMachine(lab, { name, runtime, size })), runtime }
}

export const listed = ({ name, sshPort: port, runtime }: Machine) => ({
  name,
  address: '127.0.0.1',
  port,
  runtime,
})

/** A site that lists these machines, and whose names no image has yet. */
export function siteOf(machines: Machine[], changes: object = {}) {
  const project = unique('p')
  const list = machines.map(listed)
  const nodes = { ...nodesOf(lab), list }
  const { site, state } = labSite({ project, imagesFrom: 'nodes', nodes, ...changes })
  return { site, state, place: `${lab.registry.host}/${project}/skoala` }
}

/** Loads on the cluster's own nodes, one test at a time. */
export const onTheNodes = (work: () => Promise<Result>): Promise<Result> =>
  alone(`${lab.directory}/loading`, work)

/** The import that is at work on a machine. */
export function importOn({ containerdSocket }: Machine): number | undefined {
  const namespace = (pid: number | string) => readlinkSync(`/proc/${pid}/ns/mnt`)
  const own = namespace(containerdSocket.split('/')[2]!)
  return readdirSync('/proc')
    .map(Number)
    .filter(Boolean)
    .find((pid) => {
      try {
        const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
        return command === 'ctr\0-n\0k8s.io\0image\0import\0-\0' && namespace(pid) === own
      } catch {
        return false // it has just ended
      }
    })
}

/** Changes `nodes` of a site file. */
export function changeNodes({ site }: { site: string }, change: (nodes: any) => void) {
  const values = parse(readFileSync(site, 'utf8'))
  change(values.nodes)
  writeFileSync(site, stringify(values))
}

/** A bundle of skoala with images that nobody has yet, of so many bytes each. */
export function newBundle(bytes = 1000, recipe: Parameters<typeof makeBundle>[1] = {}): string {
  const directory = join(temporaryDirectory(), 'skoala-offline')
  mkdirSync(directory)
  const names = ['skoala-api', 'skoala-agent', 'skoala-hive']
  const images = Object.fromEntries(names.map((name) => [name, randomBytes(bytes)]))
  const registry = `${unique('vendor')}.example`
  return makeBundle(join(directory, 'skoala-0.14.0.bundle.tar'), { registry, images, ...recipe })
}

export const load = (
  { site }: { site: string },
  bundle: string,
  more: string[] = [],
  env: NodeJS.ProcessEnv = {},
): Promise<Result> =>
  runInLab('load-images', ['--module', 'skoala', '--site', site, '--bundle', bundle, ...more], env)

/** No archive, no list, no record of an import that did not end. */
export const nothingLeft = ({ state }: { state: string }) =>
  expect(readdirSync(join(state, 'skoala/load'))).toEqual([])

export async function ctr({ containerdSocket }: LabNode, ...args: string[]): Promise<string> {
  const result = await runProgram('ctr', ['--address', containerdSocket, '-n', 'k8s.io', ...args])
  if (result.exitCode !== 0) throw new Error(`ctr ${args.join(' ')}: ${result.output}`)
  return result.stdout
}

/** Docker's own command, on the machine. */
export async function docker({ containerdSocket }: LabNode, ...args: string[]): Promise<string> {
  const socket = containerdSocket.replace('containerd/containerd.sock', 'docker.sock')
  const result = await runProgram('docker', ['--host', `unix://${socket}`, ...args])
  if (result.exitCode !== 0) throw new Error(`docker ${args.join(' ')}: ${result.output}`)
  return result.stdout
}

/** The image ID under each name, as the runtime itself says; those that are not whole are left out. */
export async function idsOn(machine: Machine): Promise<Record<string, string>> {
  if (machine.runtime === 'docker') {
    const format = ['--no-trunc', '--format', '{{.Repository}}:{{.Tag}} {{.ID}}']
    const lines = (await docker(machine, 'image', 'ls', ...format)).trim().split('\n')
    return Object.fromEntries(lines.filter(Boolean).map((line) => line.split(' ')))
  }
  const ids: Record<string, string> = {}
  for (const line of (await ctr(machine, 'image', 'check')).split('\n').slice(1)) {
    const [name, , digest, status] = line.split(/\s+/)
    if (!name || status !== 'complete' || !/true\s*$/.test(line)) continue
    const manifest = JSON.parse(await ctr(machine, 'content', 'get', digest!))
    if (manifest.config) ids[name] = manifest.config.digest
  }
  return ids
}

/** The bundle's images with their IDs, from its own manifest: `vendor/skoala/skoala-api:v0.14.0`. */
export async function imagesIn(bundle: string): Promise<Record<string, string>> {
  const line = 'tar -xOf "$0" images.tar | tar -xOf - manifest.json'
  const { stdout } = await runProgram('bash', ['-c', line, bundle])
  return Object.fromEntries(
    JSON.parse(stdout).map(({ Config, RepoTags }: any) => [RepoTags[0], Config]),
  )
}

/** Every image of the bundle is on the machine, whole, under the name that the installation pulls. */
export async function allOn(machine: Machine, bundle: string, { place }: { place: string }) {
  const ids = await idsOn(machine)
  for (const [source, id] of Object.entries(await imagesIn(bundle))) {
    const target = `${place}/${source.split('/').at(-1)}`
    expect(ids[target], `${target} on ${machine.name}`).toBe(id)
  }
  if (machine.runtime === 'containerd') expect(await ctr(machine, 'leases', 'ls', '-q')).toBe('')
}
