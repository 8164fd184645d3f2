// What load-images.mts takes beside the manual's way, by hand on the node: copy the bundle, unpack it,
// import, tag. The stores are empty before each.

import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { basename } from 'node:path'
import { isDeepStrictEqual, promisify } from 'node:util'
import { parse, stringify } from 'yaml'
import { addMachine, nodesOf, type Lab, type LabNode } from '../lab/lab.ts'
import { makeBundle } from '../support/make-bundle.ts'
import { inPairs, median, root, row, scriptEnv, table, terminalEnv, timed, zx } from './pairs.ts'

const run = promisify(execFile)
const goals = { first: 0.9, disk: 0.6, together: 0.75, nothingToDo: 0.1, nextVersion: 0.4 }
const module = 'skoala'
const names = Array.from({ length: 6 }, (_, index) => `${module}-part${index}`)

/**
 * @param where the machine, for the table
 * @throws Error where the two ways do not lead to the same images, or a goal is missed
 */
export async function benchLoad(lab: Lab, where: string, rounds: number) {
  const home = `${lab.directory}/bench/load`
  mkdirSync(home, { recursive: true })
  // 6 images of 70 MB; the next version shares five of the six large layers with it
  const images = Object.fromEntries(names.map((name) => [name, randomBytes(70_000_000)]))
  const bundle = makeBundle(`${home}/${module}-0.14.0.bundle.tar`, { images })
  const changed = Object.fromEntries(
    names.map((name, index) => [name, index < 5 ? images[name]! : randomBytes(70_000_000)]),
  )
  const next = makeBundle(`${home}/${module}-0.15.0.bundle.tar`, {
    version: '0.15.0',
    images: changed,
  })
  const [one, other] = await Promise.all(
    ['bench1', 'bench2'].map((name) => addMachine(lab, { name, runtime: 'containerd' })),
  )
  const byScript = (machines: LabNode[], file: string, more: string[] = []) =>
    loadByScript(lab, home, machines, file, more)

  const loads = await inPairs(rounds, {
    one: async () => {
      await empty(home, one!)
      const { seconds: first } = await byScript([one!], bundle)
      const ids = await idsOn(one!)
      const again = await byScript([one!], bundle)
      if (!again.stdout.includes('nothing to do')) throw new Error('the second run did something')
      const { seconds: nextVersion } = await byScript([one!], next)
      await empty(home, one!)
      const { seconds: nextInFull } = await byScript([one!], next)
      return { first, ids, again: again.seconds, nextVersion, nextInFull }
    },
    other: async () => {
      await empty(home, other!)
      const seconds = await loadByHand(lab, home, other!, bundle)
      const ids = await idsOn(other!)
      return { seconds, ids }
    },
    compare(script, hand) {
      if (!isDeepStrictEqual(script.ids, hand.ids))
        throw new Error('by the script and by hand, the nodes have other images')
      console.log(`script ${script.first.toFixed(2)} s, by hand ${hand.seconds.toFixed(2)} s`)
    },
  })
  const pair = [one!, other!]
  const both = await inPairs(rounds, {
    one: async () => {
      await Promise.all(pair.map((each) => empty(home, each)))
      return (await byScript(pair, bundle)).seconds
    },
    other: async () => {
      await Promise.all(pair.map((each) => empty(home, each)))
      return (await byScript(pair, bundle, ['--parallel', '1'])).seconds
    },
    compare: (side, after) =>
      console.log(`together ${side.toFixed(2)} s, one after the other ${after.toFixed(2)} s`),
  })
  const disk = await addMachine(lab, { name: 'bench3', runtime: 'containerd', size: '3g' })
  const scriptDisk = await peakDisk(disk, () => byScript([disk], bundle))
  await empty(home, disk)
  const handDisk = await peakDisk(disk, () => loadByHand(lab, home, disk, bundle))

  const ratios = {
    first: loads.map(([script, hand]) => script.first / hand.seconds),
    nothingToDo: loads.map(([script, hand]) => script.again / hand.seconds),
    nextVersion: loads.map(([script]) => script.nextVersion / script.nextInFull),
    together: both.map(([together, after]) => together / after),
    disk: [scriptDisk / handDisk],
  }
  const MB = 1e6
  console.log(`
a bundle of 6 images, 420 MB, ${rounds} pairs
${where}

${table([
  row('load-images.mts', loads, ([{ first }]) => first),
  row('by hand: scp, tar, import, tag', loads, ([, { seconds }]) => seconds),
  { label: 'load-images.mts / by hand', values: ratios.first, unit: '×' },
  row('load-images.mts, nothing to do', loads, ([{ again }]) => again),
  { label: 'nothing to do / by hand', values: ratios.nothingToDo, unit: '×' },
  row('the next version, in full', loads, ([{ nextInFull }]) => nextInFull),
  row('the next version after this one', loads, ([{ nextVersion }]) => nextVersion),
  { label: 'after this one / in full', values: ratios.nextVersion, unit: '×' },
  row('two nodes, one after the other', both, ([, after]) => after),
  row('two nodes together', both, ([together]) => together),
  { label: 'together / one after the other', values: ratios.together, unit: '×' },
  { label: 'peak disk, load-images.mts', values: [scriptDisk / MB], unit: 'MB' },
  { label: 'peak disk, by hand', values: [handDisk / MB], unit: 'MB' },
  { label: 'peak disk, script / by hand', values: ratios.disk, unit: '×' },
])}
`)
  const missed = Object.entries(goals).filter(
    ([name, goal]) => median(ratios[name as keyof typeof ratios]) > goal,
  )
  if (missed.length > 0) {
    const list = missed.map(
      ([name, goal]) =>
        `${name}: ${median(ratios[name as keyof typeof ratios]).toFixed(2)}, the goal is ${goal}`,
    )
    throw new Error(`missed:\n${list.join('\n')}`)
  }
}

const ctr = ({ containerdSocket }: LabNode, ...args: string[]) =>
  run('ctr', ['--address', containerdSocket, '-n', 'k8s.io', ...args])

/** Removes every image, waits until its content is gone, and forgets what the script knows. */
async function empty(home: string, machine: LabNode) {
  rmSync(`${home}/script`, { recursive: true, force: true }) // a node that the script has not seen
  const images = (await ctr(machine, 'image', 'ls', '-q')).stdout.split('\n').filter(Boolean)
  if (images.length > 0) await ctr(machine, 'image', 'rm', '--sync', ...images)
  const { stdout } = await ctr(machine, 'content', 'ls', '-q')
  if (stdout.trim()) throw new Error(`${machine.name} is not empty: ${stdout}`)
}

/** The image ID of each name, as containerd has it. */
async function idsOn(machine: LabNode): Promise<Record<string, string>> {
  const lines = (await ctr(machine, 'image', 'check')).stdout.split('\n').slice(1).filter(Boolean)
  const ids: Record<string, string> = {}
  for (const line of lines) {
    const [name, , digest, status] = line.split(/\s+/)
    if (name!.startsWith('sha256:')) continue
    if (status !== 'complete' || !/true\s*$/.test(line)) throw new Error(line)
    const { stdout } = await ctr(machine, 'content', 'get', digest!)
    ids[name!] = JSON.parse(stdout).config.digest
  }
  return ids
}

function loadByScript(lab: Lab, home: string, machines: LabNode[], bundle: string, more: string[]) {
  const cwd = `${home}/script`
  mkdirSync(cwd, { recursive: true })
  const list = machines.map(({ name, sshPort: port }) => ({ name, address: '127.0.0.1', port }))
  const site = parse(readFileSync(lab.site, 'utf8'))
  const values = { ...site, imagesFrom: 'nodes', nodes: { ...nodesOf(lab), list } }
  writeFileSync(`${cwd}/site.yaml`, stringify(values))
  const args = ['--module', module, '--site', `${cwd}/site.yaml`, '--bundle', bundle, ...more]
  const env = { ...scriptEnv(), ...lab.env }
  return timed([zx, 'scripts/load-images.mts', ...args], { cwd: root, env })
}

/** What one would type: the manual's commands on the node, in a directory that is on its disk. */
async function loadByHand(
  lab: Lab,
  home: string,
  { sshPort, containerdSocket }: LabNode,
  bundle: string,
): Promise<number> {
  const env = terminalEnv()
  const file = basename(bundle)
  const place = `${lab.registry.host}/release.daocloud.io/${module}`
  const tags = names.map(
    (name) =>
      `ctr -n k8s.io image tag --force release.daocloud.io/${module}/${name}:v0.14.0 ${place}/${name}:v0.14.0`,
  )
  const directory = '/var/lib/containerd/by-hand'
  const commands = [
    `cd ${directory}`,
    `tar xvf ${file}`,
    'ctr -n k8s.io image import images.tar',
    ...tags,
  ]
  const options = ['-o', `UserKnownHostsFile=${lab.ssh.knownHosts}`, '-i', lab.ssh.key]
  const own = `/proc/${containerdSocket.split('/')[2]}/root${directory}`
  mkdirSync(own)
  const copy = ['scp', ...options, '-P', `${sshPort}`, bundle, `root@127.0.0.1:${directory}/`]
  const load = ['ssh', ...options, '-p', `${sshPort}`, 'root@127.0.0.1', commands.join(' && ')]
  const copied = await timed(copy, { cwd: home, env })
  const loaded = await timed(load, { cwd: home, env })
  rmSync(own, { recursive: true })
  return copied.seconds + loaded.seconds
}

/** The most bytes of its own disk that a machine uses meanwhile, more than before. */
async function peakDisk({ containerdSocket }: LabNode, work: () => Promise<unknown>) {
  const used = () => {
    const { blocks, bfree, bsize } = statfsSync(
      `/proc/${containerdSocket.split('/')[2]}/root/var/lib/containerd`,
    )
    return (blocks - bfree) * bsize
  }
  const before = used()
  let most = before
  const timer = setInterval(() => (most = Math.max(most, used())), 20)
  try {
    await work()
  } finally {
    clearInterval(timer)
  }
  return most - before
}
