// What sync-images.mts adds to charts-syncer: a bundle is brought in by the script and by charts-syncer
// alone, in pairs; then a run with nothing to do, beside `skopeo inspect` over the same images.

import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { basename } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { parse, stringify } from 'yaml'
import { type Lab } from '../lab/lab.ts'
import { makeBundle } from '../support/make-bundle.ts'
import { inPairs, median, root, row, scriptEnv, table, terminalEnv, timed, zx } from './pairs.ts'

const goals = { first: 1.2, nothingToDo: 0.3 }
const module = 'skoala'
const version = '0.14.0'

/** The bundles: how many images, and bytes of each one's own layer. */
const bundles = [
  { title: '30 images, 60 MB', images: 30, bytes: 2_000_000 },
  { title: '6 images, 400 MB', images: 6, bytes: 66_000_000 },
]

/**
 * @param where the machine, for the table
 * @throws Error where the two ways do not lead to the same images, or a goal is missed
 */
export async function benchSync(lab: Lab, where: string, rounds: number) {
  const missed: string[] = []
  for (const { title, images: count, bytes } of bundles) {
    const home = `${lab.directory}/bench/sync-${count}`
    mkdirSync(home, { recursive: true })
    const names = Array.from({ length: count }, (_, index) => `${module}-part${index}`)
    const images = Object.fromEntries(names.map((name) => [name, randomBytes(bytes)]))
    const bundle = makeBundle(`${home}/${module}-${version}.bundle.tar`, { images })
    const references = names.map((name) => `${module}/${name}:v${version}`)
    const syncs = await inPairs(rounds, {
      one: (round) => byScript(lab, home, bundle, `s${count}-${round}`, references),
      other: (round) => byHand(lab, home, bundle, `h${count}-${round}`, references),
      compare(script, hand) {
        if (!isDeepStrictEqual(script.ids, hand.ids))
          throw new Error('by the script and by hand, the registry has other images')
        console.log(`script ${script.first.toFixed(2)} s, charts-syncer ${hand.sync.toFixed(2)} s`)
      },
    })
    const first = syncs.map(([script, hand]) => script.first / hand.sync)
    const again = syncs.map(([script, hand]) => script.again / hand.inspect)
    console.log(`
a bundle of ${title}, ${rounds} pairs
${where}

${table([
  row('sync-images.mts', syncs, ([{ first }]) => first),
  row('charts-syncer sync', syncs, ([, { sync }]) => sync),
  { label: 'sync-images.mts / charts-syncer', values: first, unit: '×' },
  row('sync-images.mts, nothing to do', syncs, ([{ again }]) => again),
  row(`skopeo inspect, ${count} times`, syncs, ([, { inspect }]) => inspect),
  { label: 'sync-images.mts / skopeo inspect', values: again, unit: '×' },
])}
`)
    if (median(first) > goals.first) missed.push(`${title}: first sync ${median(first).toFixed(2)}`)
    // the goal is for the many images: a script has a start of its own
    if (count === 30 && median(again) > goals.nothingToDo)
      missed.push(`${title}: nothing to do ${median(again).toFixed(2)}`)
  }
  if (missed.length > 0)
    throw new Error(`the goals are ${JSON.stringify(goals)}; missed:\n${missed.join('\n')}`)
}

const projectUrl = (lab: Lab, project: string) =>
  lab.chartRepository.harbor.replace(/[^/]+$/, project)

async function byScript(
  lab: Lab,
  home: string,
  bundle: string,
  project: string,
  references: string[],
) {
  const cwd = `${home}/${project}`
  mkdirSync(cwd)
  const site = parse(readFileSync(lab.site, 'utf8'))
  const chartRepository = { ...site.chartRepository, url: projectUrl(lab, project) }
  writeFileSync(`${cwd}/site.yaml`, stringify({ ...site, project, chartRepository }))
  const sync = async () => {
    const args = ['--module', module, '--site', `${cwd}/site.yaml`, '--bundle', bundle]
    const env = { ...scriptEnv(), ...lab.env }
    return timed([zx, 'scripts/sync-images.mts', ...args], { cwd: root, env })
  }
  const first = await sync()
  const ids = await idsAt(lab, project, references)
  const again = await sync()
  if (!again.stdout.includes('nothing to do')) throw new Error('the second run did something')
  return { first: first.seconds, again: again.seconds, ids }
}

/** What one would type: the manual's file and command, in a directory that holds nothing else. */
async function byHand(
  lab: Lab,
  home: string,
  bundle: string,
  project: string,
  references: string[],
) {
  const cwd = `${home}/${project}`
  for (const needed of ['bundles', 'tmp']) mkdirSync(`${cwd}/${needed}`, { recursive: true })
  symlinkSync(bundle, `${cwd}/bundles/${basename(bundle)}`)
  const target = {
    containerRegistry: lab.registry.host,
    containerRepository: `${project}/${module}`,
    repo: { kind: 'HARBOR', url: projectUrl(lab, project) },
  }
  const file = { source: { intermediateBundlesPath: 'bundles' }, target }
  writeFileSync(`${cwd}/load-image.yaml`, stringify(file))
  const env = {
    ...terminalEnv(),
    ...lab.env,
    TMPDIR: `${cwd}/tmp`,
    TARGET_REPO_AUTH_USERNAME: lab.chartRepository.username,
    TARGET_REPO_AUTH_PASSWORD: lab.chartRepository.password,
    TARGET_CONTAINERS_AUTH_USERNAME: lab.registry.username,
    TARGET_CONTAINERS_AUTH_PASSWORD: lab.registry.password,
  }
  const command = ['charts-syncer', 'sync', '--config', 'load-image.yaml', '--workdir', 'work']
  const sync = await timed(command, { cwd, env })
  const ids = await idsAt(lab, project, references)
  const auth = Buffer.from(`${lab.registry.username}:${lab.registry.password}`).toString('base64')
  writeFileSync(`${cwd}/auth.json`, JSON.stringify({ auths: { [lab.registry.host]: { auth } } }))
  const places = references.map((each) => `docker://${lab.registry.host}/${project}/${each}`)
  const loop = `for image in ${places.join(' ')}; do skopeo inspect --tls-verify=false --authfile auth.json "$image" > inspected || exit; done`
  const inspect = await timed(['bash', '-c', loop], { cwd, env })
  return { sync: sync.seconds, inspect: inspect.seconds, ids }
}

/** The image IDs that the registry has. */
async function idsAt(lab: Lab, project: string, references: string[]): Promise<string[]> {
  const login = Buffer.from(`${lab.registry.username}:${lab.registry.password}`).toString('base64')
  const accept = 'application/vnd.docker.distribution.manifest.v2+json'
  const headers = { authorization: `Basic ${login}`, accept }
  return Promise.all(
    references.map(async (reference) => {
      const [repository, tag] = reference.split(':')
      const url = `http://${lab.registry.host}/v2/${project}/${repository}/manifests/${tag}`
      const answer = await fetch(url, { headers })
      if (!answer.ok) throw new Error(`${reference} is not in the registry: ${answer.status}`)
      return ((await answer.json()) as { config: { digest: string } }).config.digest
    }),
  )
}
