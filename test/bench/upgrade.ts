// What upgrade.mts adds to the commands: mspider is upgraded by the script and by hand, in pairs.

import { copyFileSync, mkdirSync, readFileSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import { registryKeys, shellIn } from '../lab/by-hand.ts'
import { type Lab } from '../lab/lab.ts'
import { ending, until } from '../lab/processes.ts'
import { inPairs, median, root, row, scriptEnv, table, terminalEnv, timed, zx } from './pairs.ts'

const goal = 1
const module = 'mspider'
const namespace = 'mspider-system'

/**
 * @param where the machine, for the table
 * @throws Error where the two ways do not lead to the same release, or where the script itself adds a
 * second or more to the manual's commands, the checks' questions and the wait for the pods
 */
export async function benchUpgrade(lab: Lab, where: string, rounds: number) {
  const upgrades = await inPairs(rounds, {
    one: (round) => byScript(lab, directory(lab, `${round}-script`)),
    other: (round) => byHand(lab, directory(lab, `${round}-by-hand`)),
    compare(script, hand) {
      if (!isDeepStrictEqual(script.release, hand.release)) {
        const both = [script, hand].map(({ release }) => JSON.stringify(release, null, 2))
        throw new Error(`by the script and by hand, the releases differ:\n${both.join('\n')}`)
      }
      console.log(`script ${script.first.wall.toFixed(2)} s, by hand ${hand.wall.toFixed(2)} s`)
    },
  })
  const starts = await inPairs(rounds, {
    one: () => timed(['npx', 'zx', '--version'], { cwd: root, env: terminalEnv() }),
    other: () => timed([zx, '--version'], { cwd: root, env: scriptEnv() }),
  })

  const { stdout: helm } = await shell(lab)`helm version --short`
  const firsts = upgrades.map(([{ first }]) => first)
  const seconds = upgrades.map(([{ second }]) => second)
  const { old, new: next } = lab.modules[module]!
  console.log(`
${module} ${old.version} to ${next.version}, ${rounds} pairs
${where}, helm ${helm.trim()}

${table([
  ...rowsOf('upgrade.mts', firsts),
  row('by hand', upgrades, ([, { wall }]) => wall),
  row('  commands', upgrades, ([, { commands }]) => commands),
  row('  waiting for pods', upgrades, ([, { waiting }]) => waiting),
  row('  (then until Jobs are complete)', upgrades, ([, { jobs }]) => jobs),
  row('upgrade.mts / by hand', upgrades, ([{ first }, hand]) => first.wall / hand.wall, '×'),
  row(
    'upgrade.mts / by hand until Jobs',
    upgrades,
    ([{ first }, { wall, jobs }]) => first.wall / (wall + jobs),
    '×',
  ),
  ...rowsOf('upgrade.mts, nothing to do', seconds),
  row('npx zx --version', starts, ([npx]) => npx.seconds),
  row('node_modules/.bin/zx --version', starts, ([, own]) => own.seconds),
  row('npx itself', starts, ([npx, own]) => npx.seconds - own.seconds),
])}
`)
  const added = median(firsts.map(rest))
  const says = `the script itself adds ${added.toFixed(2)} s (median)`
  if (!(added < goal)) throw new Error(`${says}; the goal is less than ${goal} s`)
  console.log(`${says}: less than ${goal} s, as is the goal`)
}

/** Where the seconds of a run of the script went. */
type Split = Record<'wall' | 'commands' | 'questions' | 'waiting', number>

function rest({ wall, commands, questions, waiting }: Split): number {
  return wall - commands - questions - waiting
}

function rowsOf(label: string, runs: Split[]) {
  return [
    row(label, runs, ({ wall }) => wall),
    row("  the manual's commands", runs, ({ commands }) => commands),
    row("  the checks' questions", runs, ({ questions }) => questions),
    row('  waiting for pods and Jobs', runs, ({ waiting }) => waiting),
    row('  the rest: the script itself', runs, rest),
    row('  (the rest and the questions)', runs, (run) => rest(run) + run.questions),
  ]
}

/** The upgrade by the script, and a second run that finds nothing to do. */
async function byScript(lab: Lab, cwd: string) {
  await installOld(lab)
  const site = `${cwd}/site.yaml`
  copyFileSync(lab.site, site)
  const upgrade = async () => {
    const { seconds } = await timed(
      [zx, 'scripts/upgrade.mts', '--module', module, '--site', site],
      { cwd: root, env: { ...scriptEnv(), ...lab.env } },
    )
    return split(seconds, `${cwd}/state/lab/${module}/audit.jsonl`)
  }
  const first = await upgrade()
  const release = await look(lab)
  const second = await upgrade()
  if (!isDeepStrictEqual(await look(lab), release))
    throw new Error('the second run of the script has changed the release')
  return { first, second, release }
}

/** Splits the seconds of the newest run by what its audit has of them. */
function split(wall: number, path: string): Split {
  const lines = readFileSync(path, 'utf8').trimEnd().split('\n')
  const records = lines.map((line) => JSON.parse(line))
  const newest = records.filter(({ run }) => run === records.at(-1).run)
  const sum = (wanted: string) =>
    newest
      // how the pods are is asked while they are waited for: it is counted there
      .filter(
        ({ event, command }) => event === wanted && !command?.includes('get deployments.apps'),
      )
      .reduce((sum, { seconds }) => sum + seconds, 0)
  return { wall, commands: sum('ended'), questions: sum('question'), waiting: sum('workloads') }
}

async function byHand(lab: Lab, cwd: string) {
  await installOld(lab)
  const { stdout, seconds } = await timed(['bash', `${import.meta.dirname}/upgrade-by-hand.sh`], {
    cwd,
    env: {
      ...terminalEnv(),
      ...lab.env,
      repository: lab.chartRepository.harbor,
      imageRegistry: lab.registry.host,
      version: lab.modules[module]!.new.version,
    },
  })
  const begun = performance.now()
  await shell(lab)`kubectl wait job --all -n ${namespace} --for=condition=Complete --timeout=2m`
  const jobs = (performance.now() - begun) / 1000
  const [start, upgraded, up] = [...stdout.matchAll(/^at (.+)$/gm)].map(([, at]) => Number(at))
  return {
    wall: seconds,
    commands: upgraded! - start!,
    waiting: up! - upgraded!,
    jobs,
    release: await look(lab),
  }
}

/** A directory for one run. It is gone with the lab. */
function directory(lab: Lab, name: string): string {
  const path = `${lab.directory}/bench/${name}`
  mkdirSync(path, { recursive: true })
  return path
}

function shell(lab: Lab) {
  return shellIn(lab, `${lab.directory}/bench`)({ timeout: '3m', signal: ending.signal })
}

/** The start of both: the old version alone in its namespace, with a value that its user had set. */
async function installOld(lab: Lab) {
  const sh = shell(lab)
  const place = `${lab.registry.host}/release.daocloud.io/${module}`
  const values = [...registryKeys(module).map((key) => `${key}=${place}`), 'replicaCount=2']
  const set = values.flatMap((each) => ['--set', each])
  // with the namespace go the events of earlier rounds, which would lengthen later answers
  await sh`kubectl delete namespace ${namespace} --ignore-not-found --timeout=2m`
  await sh`helm install ${module} ${lab.modules[module]!.old.originalPackage} -n ${namespace} --create-namespace ${set} --wait --wait-for-jobs --timeout 2m`
}

/** The release, its values, and the images of its pods; it must be the new version, upgraded once. */
async function look(lab: Lab) {
  const sh = shell(lab)
  const { version } = lab.modules[module]!.new
  const { stdout: list } = await sh`helm list -n ${namespace} -o json`
  const [{ chart, revision, status }] = JSON.parse(list)
  const release = `${chart} ${revision} ${status}`
  const wanted = `${module}-${version} 2 deployed`
  if (release !== wanted) throw new Error(`the release is ${release}, and should be ${wanted}`)
  const { stdout: values } = await sh`helm get values ${module} -n ${namespace} -o json`
  let images: string[] = []
  // a pod of the old version may need a moment more to end
  await until(`the pods to run nothing but ${version}`, async () => {
    const { stdout: pods } =
      await sh`kubectl get pods -n ${namespace} --field-selector=status.phase=Running -o json`
    images = JSON.parse(pods).items.flatMap(({ spec }: any) =>
      spec.containers.map(({ image }: any) => image),
    )
    return images.every((image) => image.endsWith(`:v${version}`))
  })
  return { release, values: JSON.parse(values), images: [...new Set(images)].sort() }
}
