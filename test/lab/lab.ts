// A lab: a real cluster of two nodes, the site's registry, the vendor's registry, and a chart
// repository. Several can run on one machine; each is found by its id.

import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { stringify } from 'yaml'
import {
  makeSshKeys,
  startControlPlane,
  startNode,
  startSpare,
  tool,
  type Begin,
} from './cluster.ts'
import {
  alone,
  end,
  endAll,
  freePorts,
  isAlive,
  makeCgroup,
  start,
  startTimeOf,
  succeeds,
  together,
  until,
  type Process,
} from './processes.ts'
import { buildTools, toolDirectory } from './tools.ts'
import {
  chartRepositoryRecipe,
  deliver,
  inParallel,
  registryRecipe,
  releases,
  sync,
  vendorPort,
  type Release,
} from './vendor.ts'

const run = promisify(execFile)

export interface LabNode {
  name: string
  /** of 127.0.0.1 */
  sshPort: number
  /** the node's containerd, as it is reached from outside the node's mount namespace */
  containerdSocket: string
}

export interface Lab {
  id: string
  directory: string
  /** where its own processes are; its pods are in the cgroups beside it */
  cgroup: string
  site: string
  kubeconfig: string
  context: 'lab'
  /** what the upgrade scripts need: tools first on PATH, KUBECONFIG, credentials */
  env: Record<string, string>
  registry: { host: string; username: string; password: string }
  vendorRegistry: string
  chartRepository: {
    harbor: string
    chartmuseum: string
    oci: string
    username: string
    password: string
  }
  /** directories to put first on PATH */
  helms: { '3.10': string; '3': string; '4': string }
  nodes: LabNode[]
  /** how root of each node is reached: at its own address with this port, or at its sshPort of 127.0.0.1 */
  ssh: { port: number; key: string; hostKey: string; knownHosts: string }
  modules: Record<string, { old: Release; new: Release }>
  /** etcd apiserver controller-manager scheduler registry vendor-registry chart-repository, and
   * per node: node1 (holds its mount namespace) node1-containerd node1-kubelet node1-sshd */
  processes: Record<string, Process>
}

/** What a lab takes for itself before it starts. */
interface Reservation {
  /** a lab without an owner is kept until it is stopped */
  owner?: { pid: number; startTime: string }
  subnet: number
  vendorPort: number
}

const labs = () => `${tmpdir()}/dce-upgrade-lab-${process.getuid!()}`
const directoryOf = (id: string) => `${labs()}/${id}`
export const cgroupOf = (id: string) => `dce-lab-${id}`
export const bridgeOf = (id: string, node: number) => `dce-${id}-${node}`

const project = 'release.daocloud.io'

/**
 * Starts a lab and waits until it is ready. It ends with `stopLab`; if the process that started it
 * is gone, the next start of any lab cleans it up, unless it is to be kept.
 */
export async function startLab(
  id = randomBytes(3).toString('hex'),
  { keep = false } = {},
): Promise<Lab> {
  // an interface's name, which carries the id, has room for 15 characters
  if (!/^[a-z0-9]{1,8}$/.test(id)) throw new Error(`a lab's id is 1 to 8 of a-z 0-9, not ${id}`)
  await buildTools()
  const reservation = await reserve(id)
  try {
    const lab = await assemble(id, reservation)
    save(lab)
    if (keep) writeReservation(id, { ...reservation, owner: undefined })
    return lab
  } catch (error) {
    await clean(id)
    throw error
  }
}

/** Ends all that belongs to the lab, and leaves nothing of it on the machine. */
export const stopLab = (lab: Pick<Lab, 'id'>): Promise<void> => clean(lab.id)

/** A running lab, as any process may use it. */
export function loadLab(id: string): Lab | undefined {
  try {
    const lab = read(id)
    return isAlive(lab.processes.node1!) ? lab : undefined
  } catch {
    return undefined
  }
}

/** The ids of the labs that run and that somebody keeps: not those of tests. */
export function runningLabs(): string[] {
  const ids = existsSync(labs()) ? readdirSync(labs()) : []
  return ids.filter((id) => loadLab(id) && !readReservation(id)?.owner)
}

/** Starts a machine beside the nodes, with nothing on it, for a test; it ends with the lab. */
export async function addMachine(
  lab: Lab,
  spare: { name: string; runtime: 'containerd' | 'docker'; size?: string },
): Promise<LabNode> {
  const [sshPort] = await freePorts(1)
  const before = Object.keys(lab.processes)
  const machine = await startSpare(lab, beginIn(lab), { ...spare, sshPort: sshPort! })
  const started = Object.entries(lab.processes).filter(([name]) => !before.includes(name))
  await record(lab, Object.fromEntries(started))
  return machine
}

/** Adds processes to the lab's; tests in several processes do it at the same time. */
const record = (lab: Lab, started: Lab['processes']) =>
  alone(`${lab.directory}/lock`, async () => {
    lab.processes = { ...read(lab.id).processes, ...started }
    save(lab)
  })

/** Starts processes as the lab's. */
const beginIn =
  (lab: Lab): Begin =>
  async (name, recipe) => {
    const process = await start({ log: `${lab.directory}/log/${name}.log`, ...recipe }, lab.cgroup)
    lab.processes[name] = process
    return process
  }

/** Ends one of the lab's processes, for a test of what happens then. */
export async function stopProcess(lab: Lab, name: string, how?: { atOnce: boolean }) {
  await end(processOf(lab, name), how)
}

/** Starts a process that was stopped, on the same port and with the same data. */
export async function startProcess(lab: Lab, name: string): Promise<void> {
  const known = processOf(lab, name)
  if (isAlive(known)) return
  const { pid: _, startTime: __, ...recipe } = known
  await record(lab, { [name]: await start(recipe, lab.cgroup) })
}

/** As it is now: another process may have stopped and started it. */
function processOf(lab: Lab, name: string): Process {
  lab.processes = read(lab.id).processes
  const known = Object.keys(lab.processes).join(' ')
  return lab.processes[name] ?? fail(`the lab has no process ${name}; it has ${known}`)
}

function fail(message: string): never {
  throw new Error(message)
}

const read = (id: string): Lab => JSON.parse(readFileSync(`${directoryOf(id)}/lab.json`, 'utf8'))

const save = (lab: Lab) =>
  writeFileSync(`${lab.directory}/lab.json`, JSON.stringify(lab, null, 2), { mode: 0o600 })

const writeReservation = (id: string, reservation: Reservation) =>
  writeFileSync(`${directoryOf(id)}/reservation.json`, JSON.stringify(reservation))

function readReservation(id: string): Reservation | undefined {
  const file = `${directoryOf(id)}/reservation.json`
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined
}

/** Cleans up labs that were killed, and takes an id, a subnet and a port that no other lab has. */
async function reserve(id: string): Promise<Reservation> {
  mkdirSync(labs(), { recursive: true, mode: 0o700 })
  return alone('/run/lock/dce-upgrade-lab', async () => {
    const others: Reservation[] = []
    for (const other of readdirSync(labs())) {
      const reservation = readReservation(other)
      const lives = reservation?.owner ? isAlive(reservation.owner) : loadLab(other) !== undefined
      if (lives && other === id) throw new Error(`lab ${id} is running already`)
      if (lives) others.push(reservation!)
      else await clean(other)
    }
    const addresses = (await run('ip', ['-oneline', '-4', 'address'])).stdout
    const subnet = Array.from({ length: 51 }, (_, index) => 200 + index).find(
      (n) => !others.some((other) => other.subnet === n) && !addresses.includes(` 10.${n}.`),
    )
    const reservation: Reservation = {
      owner: { pid: process.pid, startTime: startTimeOf(process.pid)! },
      subnet: subnet ?? fail('the subnets 10.200.0.0/16 to 10.250.0.0/16 are all in use'),
      vendorPort: await vendorPort(others.map((other) => other.vendorPort)),
    }
    mkdirSync(`${directoryOf(id)}/log`, { recursive: true })
    writeReservation(id, reservation)
    // the bridges come first: their addresses are the nodes', so that no other network is needed
    for (const node of [1, 2]) {
      const bridge = bridgeOf(id, node)
      await run('ip', ['link', 'add', bridge, 'type', 'bridge'])
      await run('ip', ['address', 'add', `10.${reservation.subnet}.${node}.1/24`, 'dev', bridge])
      await run('ip', ['link', 'set', bridge, 'up'])
    }
    return reservation
  })
}

async function clean(id: string): Promise<void> {
  await endAll(cgroupOf(id), directoryOf(id))
  const links = async () => (await run('ip', ['-oneline', 'link'])).stdout
  for (const node of [1, 2]) {
    const bridge = bridgeOf(id, node)
    // the pods' ends go with their network namespaces, a moment after the last process
    await until(
      `${bridge} to be free`,
      async () => !(await links()).includes(`master ${bridge} `),
      { isCleaning: true },
    )
    if ((await links()).includes(` ${bridge}: `)) await run('ip', ['link', 'delete', bridge])
  }
  await rm(directoryOf(id), { recursive: true, force: true, maxRetries: 20 })
}

async function assemble(id: string, { subnet, vendorPort }: Reservation): Promise<Lab> {
  const directory = directoryOf(id)
  const cgroup = makeCgroup(cgroupOf(id), ['lab', 'node1', 'node2'])
  const ports = await freePorts(10)
  const port = () => ports.pop()!
  const registry = { host: `127.0.0.1:${port()}`, username: 'admin', password: password() }
  const chartRepositoryHost = `127.0.0.1:${port()}`
  const chartRepository = {
    harbor: `http://${chartRepositoryHost}/chartrepo/${project}`,
    chartmuseum: `http://${chartRepositoryHost}/cm`,
    oci: `oci://${registry.host}/${project}`,
    username: 'charts',
    password: password(),
  }
  const kubeconfig = `${directory}/kubeconfig`
  const lab: Lab = {
    id,
    directory,
    cgroup,
    site: `${directory}/site.yaml`,
    kubeconfig,
    context: 'lab',
    env: {
      PATH: [
        ...['helm', 'charts-syncer', 'kubectl'].map((name) => toolDirectory(name)),
        process.env.PATH,
      ].join(':'),
      KUBECONFIG: kubeconfig,
      CHART_REPO_USERNAME: chartRepository.username,
      CHART_REPO_PASSWORD: chartRepository.password,
      REGISTRY_USERNAME: registry.username,
      REGISTRY_PASSWORD: registry.password,
    },
    registry,
    vendorRegistry: `127.0.0.1:${vendorPort}`,
    chartRepository,
    helms: {
      '3.10': toolDirectory('helm', 'v3.10'),
      '3': toolDirectory('helm', 'v3.22'),
      '4': toolDirectory('helm', 'v4'),
    },
    nodes: [],
    ssh: {
      port: port(),
      key: `${directory}/ssh_key`,
      hostKey: `${directory}/ssh_host_key`,
      knownHosts: `${directory}/known_hosts`,
    },
    modules: releases(directory),
    processes: {},
  }
  writeFileSync(lab.site, stringify(siteOf(lab)))
  const { PATH, ...others } = lab.env
  const tools = PATH!.slice(0, -(process.env['PATH']!.length + 1))
  const exports = Object.entries(others).map(([name, value]) => `export ${name}=${value}`)
  const text = [`export PATH=${tools}:$PATH`, ...exports, ''].join('\n')
  writeFileSync(`${directory}/env`, text, { mode: 0o600 })

  const begin = beginIn(lab)
  const delivered = deliver(directory, vendorPort, cgroup).then((process) => {
    lab.processes['vendor-registry'] = process
  })
  const published = async () => {
    const htpasswd = `${directory}/htpasswd`
    writeFileSync(htpasswd, `${registry.username}:${await bcrypt(registry.password)}\n`)
    await together([
      begin('registry', registryRecipe(directory, 'registry', portOf(registry.host), htpasswd)),
      begin(
        'chart-repository',
        chartRepositoryRecipe(directory, 'chart-repository', portOf(chartRepositoryHost), {
          CHART_REPO_USERNAME: chartRepository.username,
          CHART_REPO_PASSWORD: chartRepository.password,
        }),
      ),
      delivered,
    ])
    await publish(lab)
  }
  const clustered = async () => {
    await makeSshKeys(lab)
    await startControlPlane(lab, begin, { subnet, ports: [port(), port(), port()] })
    await together(
      [1, 2].map(async (number) => {
        lab.nodes[number - 1] = await startNode(lab, begin, {
          number,
          subnet,
          ports: [port(), port()],
          delivered,
        })
      }),
    )
    // a node that has not registered yet is an error to kubectl, not a reason to wait
    const wait = ['wait', '--for=condition=Ready', 'node/node1', 'node/node2', '--timeout=1s']
    await until('both nodes to be ready', () =>
      succeeds(tool('kubectl'), [`--kubeconfig=${kubeconfig}`, ...wait]),
    )
  }
  await together([published(), clustered()])
  return lab
}

export const password = () => randomBytes(12).toString('base64url')
const portOf = (host: string) => Number(host.split(':')[1])

/** The registry knows passwords by their bcrypt hashes only; Debian's perl can make one. */
async function bcrypt(password: string): Promise<string> {
  const salt = `$2y$04$${randomBytes(11).toString('hex')}`
  const env = { ...process.env, PASSWORD: password, SALT: salt }
  return (await run('perl', ['-e', 'print crypt($ENV{PASSWORD}, $ENV{SALT})'], { env })).stdout
}

const siteOf = (lab: Lab) => ({
  name: 'lab',
  containerRegistry: lab.registry.host,
  project,
  imagesFrom: 'registry',
  architecture: 'amd64',
  kubeconfig: lab.kubeconfig,
  context: lab.context,
  chartRepository: { kind: 'HARBOR', url: lab.chartRepository.harbor, login: true },
  nodes: nodesOf(lab),
})

/** How the scripts reach the nodes: `nodes` of a site file. */
export const nodesOf = ({ ssh }: Pick<Lab, 'ssh'>) => ({
  user: 'root',
  port: ssh.port,
  identityFile: ssh.key,
  knownHostsFile: ssh.knownHosts,
})

/** Brings the bundles into the site, as charts-syncer does it, and looks whether all has arrived. */
async function publish(lab: Lab): Promise<void> {
  const bundles = Object.entries(lab.modules).flatMap(([module, { old, new: next }]) => [
    { module, release: old },
    { module, release: next },
  ])
  const { harbor, oci } = lab.chartRepository
  await inParallel(bundles, 2, async ({ module, release }) => {
    const directory = `${lab.directory}/sync/${module}-${release.version}`
    const bring = (repo: object, username: string, password: string) =>
      sync(
        directory,
        {
          source: { intermediateBundlesPath: dirname(release.bundle) },
          target: {
            containerRegistry: lab.registry.host,
            containerRepository: `${project}/${module}`,
            repo,
          },
        },
        {
          TARGET_REPO_AUTH_USERNAME: username,
          TARGET_REPO_AUTH_PASSWORD: password,
          TARGET_CONTAINERS_AUTH_USERNAME: lab.registry.username,
          TARGET_CONTAINERS_AUTH_PASSWORD: lab.registry.password,
        },
      )
    const { username, password } = lab.chartRepository
    await bring({ kind: 'HARBOR', url: harbor }, username, password)
    const url = oci.replace('oci:', 'http:')
    await bring({ kind: 'OCI', url }, lab.registry.username, lab.registry.password)

    const images = release.images.map((image) => `${project}/${module}/${image}`)
    for (const reference of [...images, `${project}/${module}:${release.version}`]) {
      await expectManifest(lab, reference)
    }
    await expectOk(`${harbor}/charts/${module}-${release.version}.tgz`, lab.chartRepository)
  })
  rmSync(`${lab.directory}/sync`, { recursive: true })
}

function expectManifest(lab: Lab, reference: string): Promise<void> {
  const [repository, tag] = reference.split(':')
  return expectOk(`http://${lab.registry.host}/v2/${repository}/manifests/${tag}`, lab.registry)
}

async function expectOk(url: string, login: { username: string; password: string }) {
  const basic = Buffer.from(`${login.username}:${login.password}`).toString('base64')
  const accept =
    'application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json, */*'
  const response = await fetch(url, { headers: { authorization: `Basic ${basic}`, accept } })
  if (!response.ok) throw new Error(`charts-syncer said nothing, but ${url}: ${response.status}`)
}
