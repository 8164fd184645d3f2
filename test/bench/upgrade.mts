// What upgrade.mts adds to the commands: mspider is upgraded by the script and by hand, in pairs, in a
// lab of its own.
//
// Usage: npm run bench [-- --rounds N]
//
// It ends with 1 where the two ways do not lead to the same release, or where the script itself adds
// a second or more to the manual's commands, the checks' questions and the wait for the pods.

import { copyFileSync, mkdirSync, readFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { argv } from 'zx'
import { registryKeys, shellIn } from '../lab/by-hand.ts'
import { startLab, stopLab, type Lab } from '../lab/lab.ts'
import { ending, endOnSignals, until } from '../lab/processes.ts'
import { inPairs, machine, median, table, terminalEnv, timed, type Row } from './pairs.ts'

const GOAL = 1
const module = 'mspider'
const namespace = 'mspider-system'
const root = dirname(dirname(import.meta.dirname))
const zx = `${root}/node_modules/.bin/zx`
const scriptEnv = { ...terminalEnv(), NODE_OPTIONS: '--import=tsx' }
const rounds = Number(argv['rounds'] ?? 7)

/** Where the seconds of one run of the script went. */
interface Split {
  wall: number
  commands: number
  questions: number
  waiting: number
}

const rest = ({ wall, commands, questions, waiting }: Split) =>
  wall - commands - questions - waiting

endOnSignals()
try {
  if (!Number.isInteger(rounds) || rounds < 1)
    throw new Error('--rounds takes how many pairs are measured: 1, 2, 3, …')
  console.log('The lab starts.')
  const lab = await startLab()
  try {
    await bench(lab)
  } finally {
    await stopLab(lab)
  }
} catch (error) {
  // ended by a signal, or what went wrong: a sentence, not a stack
  console.error(`\n${(error as Error).message}`)
  process.exitCode ||= 1
}

async function bench(lab: Lab) {
  let turn = 0
  const directory = () => {
    const path = `${lab.directory}/bench/${turn++}`
    mkdirSync(path, { recursive: true })
    return path
  }
  const upgrades = await inPairs(
    rounds,
    () => byScript(lab, directory()),
    () => byHand(lab, directory()),
    (script, hand) => {
      if (!isDeepStrictEqual(script.release, hand.release)) {
        const both = [script, hand].map(({ release }) => JSON.stringify(release, null, 2))
        throw new Error(`the script and the commands by hand differ:\n${both.join('\n')}`)
      }
      const { first } = script
      console.log(`script ${first.wall.toFixed(2)} s · by hand ${hand.wall.toFixed(2)} s`)
    },
  )
  const starts = await inPairs(
    rounds,
    () => timed(['npx', 'zx', '--version'], { cwd: root, env: terminalEnv() }),
    () => timed([zx, '--version'], { cwd: root, env: scriptEnv }),
  )

  const firsts = upgrades.map(([{ first }]) => first)
  const { old, new: next } = lab.modules[module]!
  const { stdout: helm } = await shell(lab)`helm version --short`
  const rows: Row[] = [
    ...rowsOf('upgrade.mts', firsts),
    { label: 'by hand', values: upgrades.map(([, hand]) => hand.wall) },
    { label: '  commands', values: upgrades.map(([, hand]) => hand.commands) },
    { label: '  waiting for pods', values: upgrades.map(([, hand]) => hand.waiting) },
    {
      label: 'upgrade.mts / by hand',
      values: upgrades.map(([{ first }, hand]) => first.wall / hand.wall),
      unit: '×',
    },
    {
      label: 'upgrade.mts − by hand',
      values: upgrades.map(([{ first }, hand]) => first.wall - hand.wall),
    },
    ...rowsOf(
      'upgrade.mts, nothing to do',
      upgrades.map(([{ second }]) => second),
    ),
    { label: 'npx zx --version', values: starts.map(([npx]) => npx.seconds) },
    { label: 'node_modules/.bin/zx --version', values: starts.map(([, own]) => own.seconds) },
    { label: 'npx itself', values: starts.map(([npx, own]) => npx.seconds - own.seconds) },
  ]
  console.log(`\n${module} ${old.version} to ${next.version}, ${rounds} pairs`)
  console.log(`${machine(`helm ${helm.trim()}`)}\n\n${table(rows)}\n`)

  const added = median(firsts.map(rest))
  const says = `the script itself adds ${added.toFixed(2)} s (median)`
  if (!(added < GOAL)) throw new Error(`${says}; the goal is less than ${GOAL} s`)
  console.log(`${says}: less than ${GOAL} s, as is the goal`)
}

function rowsOf(label: string, runs: Split[]): Row[] {
  return [
    { label, values: runs.map(({ wall }) => wall) },
    { label: "  the manual's commands", values: runs.map(({ commands }) => commands) },
    { label: "  the checks' questions", values: runs.map(({ questions }) => questions) },
    { label: '  waiting for pods', values: runs.map(({ waiting }) => waiting) },
    { label: '  the rest: the script itself', values: runs.map(rest) },
    {
      label: '  (all but commands and waiting)',
      values: runs.map(({ wall, commands, waiting }) => wall - commands - waiting),
    },
  ]
}

/** The upgrade by the script, and a second run that finds nothing to do. */
async function byScript(lab: Lab, directory: string) {
  await installOld(lab)
  const site = `${directory}/site.yaml`
  copyFileSync(lab.site, site)
  const command = [zx, 'scripts/upgrade.mts', '--module', module, '--site', site]
  const once = async () => {
    const { seconds } = await timed(command, { cwd: root, env: { ...scriptEnv, ...lab.env } })
    return { split: split(seconds, directory), release: await look(lab) }
  }
  const first = await once()
  const second = await once()
  if (!isDeepStrictEqual(first.release, second.release))
    throw new Error('the second run of the script has changed the release')
  return { first: first.split, second: second.split, release: first.release }
}

/** Where the seconds of the newest run went, as its audit has them. */
function split(wall: number, directory: string): Split {
  const text = readFileSync(`${directory}/state/lab/${module}/audit.jsonl`, 'utf8')
  const records = text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  const run = records.filter((record) => record.run === records.at(-1).run)
  const sum = (wanted: string, isMeant = (_: any) => true) =>
    run
      .filter((record) => record.event === wanted && isMeant(record))
      .reduce((seconds, record) => seconds + record.seconds, 0)
  return {
    wall,
    commands: sum('ended'),
    // the question how the pods are is asked during the wait for them, and counted there
    questions: sum('question', ({ command }) => !command.startsWith('kubectl get deployments.')),
    waiting: sum('workloads'),
  }
}

/** The manual's commands, as a careful engineer types them, and a look at each workload. */
function commands(lab: Lab): string {
  return String.raw`set -euo pipefail
export LC_ALL=C HELM_CONFIG_HOME=$PWD/config HELM_CACHE_HOME=$PWD/cache HELM_DATA_HOME=$PWD/data
echo "at $EPOCHREALTIME"
helm repo list || true
printf %s "$CHART_REPO_PASSWORD" |
  helm repo add ${module}-release ${lab.chartRepository.harbor} \
    --username "$CHART_REPO_USERNAME" --password-stdin
helm repo update ${module}-release
helm search repo ${module}-release/${module} --versions
helm get values ${module} -n ${namespace} -o yaml > bak.yaml
export imageRegistry=${lab.registry.host}
helm upgrade ${module} ${module}-release/${module} \
  -n ${namespace} \
  -f ./bak.yaml \
  --set global.imageRegistry=$imageRegistry \
  --version ${lab.modules[module]!.new.version}
echo "at $EPOCHREALTIME"
for workload in $(kubectl get deployments,statefulsets,daemonsets -n ${namespace} -o name); do
  kubectl rollout status $workload -n ${namespace} --timeout=2m
done
echo "at $EPOCHREALTIME"
`
}

async function byHand(lab: Lab, cwd: string) {
  await installOld(lab)
  const env = { ...terminalEnv(), ...lab.env }
  const { stdout, seconds } = await timed(['bash', '-c', commands(lab)], { cwd, env })
  const [begun, upgraded, up] = [...stdout.matchAll(/^at (.+)$/gm)].map(([, at]) => Number(at))
  return {
    wall: seconds,
    commands: upgraded! - begun!,
    waiting: up! - upgraded!,
    release: await look(lab),
  }
}

function shell(lab: Lab) {
  return shellIn(lab, `${lab.directory}/bench`)({ timeout: '3m', signal: ending.signal })
}

/** The start of both: the old version alone in its namespace, with a value that its user had set. */
async function installOld(lab: Lab) {
  const sh = shell(lab)
  const { originalPackage } = lab.modules[module]!.old
  const place = `${lab.registry.host}/release.daocloud.io/${module}`
  const values = [...registryKeys(module).map((key) => `${key}=${place}`), 'replicaCount=2']
  const set = values.flatMap((each) => ['--set', each])
  // with the namespace go the events of earlier rounds, which would lengthen later answers
  await sh`kubectl delete namespace ${namespace} --ignore-not-found --timeout=2m`
  await sh`helm install ${module} ${originalPackage} -n ${namespace} --create-namespace ${set} --wait --wait-for-jobs --timeout 2m`
}

/** What became of the release; throws where it is not the new version's first revision. */
async function look(lab: Lab) {
  const sh = shell(lab)
  const { version } = lab.modules[module]!.new
  const { stdout: list } = await sh`helm list -n ${namespace} -o json`
  const [{ revision, chart, status }] = JSON.parse(list)
  const found = [revision, chart, status].join(' ')
  const wanted = `2 ${module}-${version} deployed`
  if (found !== wanted) throw new Error(`the release is ${found}, and not ${wanted}`)
  const { stdout: values } = await sh`helm get values ${module} -n ${namespace} -o json`
  await sh`kubectl wait job --all -n ${namespace} --for=condition=Complete --timeout=1m`
  let images: string[] = []
  // a pod of the old version may need a moment more to end
  await until(`the pods to run ${version} only`, async () => {
    const { stdout: pods } =
      await sh`kubectl get pods -n ${namespace} --field-selector=status.phase=Running -o json`
    images = JSON.parse(pods).items.flatMap(({ spec }: any) =>
      spec.containers.map(({ image }: any) => image),
    )
    return images.every((image) => image.endsWith(`:v${version}`))
  })
  return { found, values: JSON.parse(values), images: [...new Set(images)].sort() }
}
