// The first ten minutes: a real cluster on this machine, the old mspider in it, and the upgrade.
//
// Usage: npm run demo [ID]
//
// It builds what is missing, starts the lab ID (1 to 8 of a-z 0-9; demo where none is given) and leaves
// it running. Run again, it installs the old mspider afresh and upgrades it again.

import { spawn } from 'node:child_process'
import { dirname } from 'node:path'
import { argv } from 'zx'
import { registryKeys, shellIn } from './by-hand.ts'
import { loadLab, startLab, type Lab } from './lab.ts'
import { ending, endOnSignals } from './processes.ts'
import { howToUse, siteName, usageOf, writeSite } from './usage.ts'

const id = String(argv._[0] ?? 'demo')
const module = 'mspider'
const namespace = 'mspider-system'
const root = dirname(dirname(import.meta.dirname))
const begun = Date.now()
const seconds = () => `${Math.round((Date.now() - begun) / 1000)} s`
const say = (text = '') => console.log(text)

if (Object.keys(argv).length > 1 || argv._.length > 1) {
  console.log(usageOf(import.meta.filename))
  process.exitCode = argv['help'] ? 0 : 64
} else {
  endOnSignals()
  try {
    await demo()
  } catch (error) {
    // ended by a signal, or what is missing: a sentence, not a stack
    console.error(`\n${(error as Error).message}`)
    if (loadLab(id)) console.error(`lab ${id} still runs; to stop it: npm run lab down ${id}`)
    process.exitCode ||= 1
  }
}

async function demo() {
  say('A real Kubernetes with two nodes, registries and a chart repository, on this machine.')
  say('本机上的真实 Kubernetes（两个节点）、镜像仓库与 chart 仓库。')
  const running = loadLab(id)
  const lab = running ?? (await startLab(id, { keep: true }))
  say(`${running ? 'It runs already' : 'It is up'} · 已就绪 (${seconds()})`)

  await installOld(lab)
  const before = await look(lab)
  say(`\nmspider ${lab.modules[module]!.old.version} is installed · 旧版本已安装 (${seconds()})`)

  const site = writeSite(root, lab) ? [] : ['--site', lab.site]
  if (site.length > 0)
    say('site.yaml is yours and stays as it is: the lab has a site file of its own.')
  const command = ['npx', 'zx', 'scripts/upgrade.mts', '--module', module, ...site]
  say(`\n$ ${command.join(' ')}`)
  const exitCode = await run(lab, command)
  if (exitCode !== 0) throw new Error(`the upgrade ended with ${exitCode}`)

  const after = await look(lab)
  say('What changed · 变更内容')
  for (const part of ['revision', 'chart', 'images', 'values'] as const) {
    say(`  ${part}`)
    for (const line of difference(before[part], after[part])) say(`    ${line}`)
  }
  say(
    '  (the charts of the repository carry the project themselves: the registry key is the host alone)',
  )
  say('  （仓库中的 chart 已带有项目路径，因此 registry 参数只有主机名）')
  const place = site.length > 0 ? `${lab.directory}/state/lab` : `state/${siteName(lab)}`
  say(`  its records · 记录: ${place}/${module}/ (bak.yaml, backups, audit.jsonl)`)
  say(`\nall of it took · 总用时 ${seconds()}`)
  const scripts = command.slice(0, 3).join(' ').replace('upgrade', 'backup-values')
  const others = `${command.join(' ')} --dry-run\n  ${scripts} --module ${module}${site.length > 0 ? ` ${site.join(' ')}` : ''}`
  say(howToUse(lab, others))
}

function shell(lab: Lab) {
  return shellIn(lab, `${lab.directory}/demo`)({ signal: ending.signal })
}

/** mspider as it was before: its old version, with a value that its user had set. */
async function installOld(lab: Lab) {
  const sh = shell(lab)
  const { originalPackage } = lab.modules[module]!.old
  const place = `${lab.registry.host}/release.daocloud.io/${module}`
  const set = [...registryKeys(module).map((key) => `${key}=${place}`), 'replicaCount=2']
  await sh`helm uninstall ${module} -n ${namespace} --wait --ignore-not-found`
  await sh`helm install ${module} ${originalPackage} -n ${namespace} --create-namespace ${set.flatMap((each) => ['--set', each])} --wait --timeout 2m`
}

/** The release, what its pods run, and its values; each a list of lines. */
async function look(lab: Lab) {
  const sh = shell(lab)
  const { stdout: list } = await sh`helm list -n ${namespace} -o json`
  const [{ revision, chart }] = JSON.parse(list)
  const { stdout: pods } =
    await sh`kubectl get pods -n ${namespace} --field-selector=status.phase=Running -o json`
  const images: string[] = JSON.parse(pods)
    .items.filter(({ metadata }: any) => !metadata.deletionTimestamp)
    .map(({ spec }: any) => spec.containers[0].image)
  const { stdout: values } = await sh`helm get values ${module} -n ${namespace} -o yaml`
  return {
    revision: [revision as string],
    chart: [chart as string],
    images: [...new Set(images)].sort(),
    values: values.trimEnd().split('\n'),
  }
}

/** What was there before, marked -, what is there after, marked +, and what stayed. */
function difference(before: string[], after: string[]): string[] {
  const rows = Math.max(before.length, after.length)
  return Array.from({ length: rows }, (_, row) => [before[row], after[row]]).flatMap(
    ([old, now]) =>
      old === now
        ? [`  ${now}`]
        : [...(old === undefined ? [] : [`- ${old}`]), ...(now === undefined ? [] : [`+ ${now}`])],
  )
}

/** Runs a command for the person at the terminal, as an engineer of the lab's site. */
function run(lab: Lab, [program, ...args]: string[]): Promise<number | null> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, ...lab.env }
    const child = spawn(program!, args, { cwd: root, env, stdio: 'inherit', signal: ending.signal })
    child.on('error', reject)
    child.on('close', resolve)
  })
}
