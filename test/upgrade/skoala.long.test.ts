import { spawn } from 'node:child_process'
import { readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import {
  auditOf,
  changedChart,
  byHand,
  installOld,
  lab,
  labSite,
  releaseOf,
  runInLab,
} from '../support/lab-site.ts'
import {
  isUpgraded,
  oldPodsComeBack,
  testUpgrade,
  testSyncedUpgrade,
  testLoadedUpgrade,
} from '../support/lab-upgrades.ts'
import { namesIn } from '../support/old-state.ts'
import {
  copyOfTheCollection,
  ROOT,
  runProgram,
  runScript,
  scriptEnv,
  temporaryDirectory,
} from '../support/run-script.ts'

test('skoala goes from old to new from an OCI repository, to the newest version, without a password on the disk', async () => {
  await installOld('skoala')
  const { site, state } = labSite({
    chartRepository: { kind: 'OCI', url: lab.chartRepository.oci, login: true, plainHttp: true },
  })
  const login = {
    CHART_REPO_USERNAME: lab.registry.username,
    CHART_REPO_PASSWORD: lab.registry.password,
  }
  const result = await runInLab('upgrade', ['--module', 'skoala', '--site', site], login)
  expect(result.exitCode, result.output).toBe(0)
  await isUpgraded('skoala', lab.registry.host)
  expect(result.stdout).toContain(`export version=${lab.modules['skoala']!.new.version}`)
  const found = await runProgram('grep', ['-r', '-l', lab.registry.password, state])
  expect(found.stdout).toBe('')
})

test('a hook that fails is told apart, and the printed command brings the old pods back', async () => {
  await installOld('skoala')
  const chart = await changedChart('skoala', ({ init }) => (init.command = ['/app', 'fail']))
  const args = [
    '--module',
    'skoala',
    '--site',
    labSite().site,
    '--via',
    'package',
    '--chart',
    chart,
  ]
  const result = await runInLab('upgrade', args)
  expect(result.exitCode, result.output).toBe(1)
  expect(result.stderr).toMatch(/pre-upgrade hooks failed/)
  expect(result.stderr).toMatch(
    /Job\/skoala-system\/skoala-init: failed: BackoffLimitExceeded[\s\S]*exit code 3/,
  )
  expect(result.stderr).toContain('release skoala is at revision 2, skoala-0.14.0, failed')
  await oldPodsComeBack('skoala', result.stderr)
})

/** The processes whose command line has all of these words. */
const processesWith = (...words: string[]): number[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
        return words.every((word) => line.includes(word))
      } catch {
        return false
      }
    })
    .map(Number)

/** An upgrade that was started by npx and is in the midst of `helm upgrade`, whose hook never ends. */
async function upgradeAtWork() {
  await installOld('skoala')
  const chart = await changedChart('skoala', ({ init }) => {
    init.command = ['/app', 'wait']
  })
  const { site, state } = labSite()
  const args = ['--module', 'skoala', '--site', site, '--via', 'package', '--chart', chart]
  const env = scriptEnv(lab.env)
  const npx = spawn('npx', ['zx', 'scripts/upgrade.mts', ...args], {
    cwd: ROOT,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  npx.stdout.on('data', (data) => (output += data))
  npx.stderr.on('data', (data) => (output += data))
  const ended = new Promise<void>((resolve) => npx.once('close', () => resolve()))
  const helm = () =>
    processesWith('helm', 'upgrade', 'skoala', chart).filter(
      (pid) => readFileSync(`/proc/${pid}/comm`, 'utf8').trim() === 'helm',
    )
  onTestFinished(() =>
    [npx.pid!, ...helm()]
      .filter((pid) => !gone(pid))
      .forEach((pid) => process.kill(pid, 'SIGKILL')),
  )
  await vi.waitFor(() => expect(helm(), output).toHaveLength(1), { timeout: 60_000, interval: 100 })
  await vi.waitFor(
    async () => expect(await releaseOf('skoala')).toMatchObject({ status: 'pending-upgrade' }),
    { timeout: 20_000 },
  )
  const [script] = processesWith('.bin/zx', 'scripts/upgrade.mts', site)
  const lastEnd = () => auditOf(state, 'skoala').findLast(({ event }) => event === 'end')
  return { npx, script: script!, helm, site, state, ended, lastEnd, output: () => output }
}

/** It has ended, even where nobody has asked for its exit code yet. */
const gone = (pid: number) => {
  try {
    return / Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return true
  }
}

test.each<[string, (run: Awaited<ReturnType<typeof upgradeAtWork>>) => void, number]>([
  ['TERM to npx, which tells the script nothing', ({ npx }) => npx.kill('SIGTERM'), 129],
  ['TERM to the script', ({ script }) => process.kill(script, 'SIGTERM'), 143],
  ['INT to the script, as Ctrl-C does', ({ script }) => process.kill(script, 'SIGINT'), 130],
  [
    'HUP to the script, as a lost terminal does',
    ({ script }) => process.kill(script, 'SIGHUP'),
    129,
  ],
])(
  '%s: helm marks its release failed, nothing is left running, and the next run goes on',
  async (_, signal, exitCode) => {
    const run = await upgradeAtWork()
    signal(run)
    await run.ended
    await vi.waitFor(() => expect(gone(run.script)).toBe(true), { timeout: 40_000 })
    expect(run.helm()).toEqual([])
    expect(run.lastEnd()).toMatchObject({ exitCode })
    expect(await releaseOf('skoala')).toMatchObject({ status: 'failed', revision: '2' })
    const again = await runInLab('upgrade', ['--module', 'skoala', '--site', run.site])
    expect(again.exitCode, again.output).toBe(0)
    expect(await releaseOf('skoala')).toMatchObject({
      chart: `skoala-${lab.modules['skoala']!.new.version}`,
      status: 'deployed',
    })
  },
)

test('TERM to npx before the script has begun: the script ends with 129 before it does anything, and says so in the audit', async () => {
  const { site, state } = labSite()
  const output = join(temporaryDirectory(), 'output')
  // bash, in the place of npx, ends at once
  const line = `node_modules/.bin/zx scripts/upgrade.mts --module skoala --site ${site} > ${output} 2>&1 &`
  const env = scriptEnv({ ...lab.env, npm_command: 'exec' })
  await runProgram('bash', ['-c', line], { env })
  await vi.waitFor(
    () => {
      const said = readFileSync(output, 'utf8')
      expect(said).toMatch(
        /INTERRUPTED · 已中断 \(exit 129\)\n.*the npx that started this script is gone[\s\S]*audit head/,
      )
    },
    { timeout: 20_000 },
  )
  // the refusal is on record, and that is all
  expect(namesIn(state, 'skoala').new).toEqual([])
  expect(auditOf(state, 'skoala').map(({ event }) => event)).toEqual(['start', 'end'])
})

test('KILL to the script: the lock stays as long as its helm works, then the printed cure and a re-run end well', async () => {
  const run = await upgradeAtWork()
  process.kill(run.script, 'SIGKILL')
  await run.ended
  const [helm] = run.helm()
  const second = await runInLab('upgrade', ['--module', 'skoala', '--site', run.site])
  expect(second.output).toMatch(/is locked by script upgrade/)
  expect(second.exitCode).toBe(75)
  process.kill(helm!, 'SIGKILL')
  await vi.waitFor(() => expect(gone(helm!)).toBe(true))

  const third = await runInLab('upgrade', ['--module', 'skoala', '--site', run.site])
  expect(third.exitCode, third.output).toBe(75)
  const cure = /^ *(helm rollback skoala 1 .*)$/m.exec(third.output)![1]!
  await byHand('bash', '-c', cure)
  const again = await runInLab('upgrade', ['--module', 'skoala', '--site', run.site])
  expect(again.exitCode, again.output).toBe(0)
})

testUpgrade('skoala', 'repo')
testUpgrade('skoala', 'package')

test('a backup of another module of the site does not wait for an upgrade, nor does its upgrade', async () => {
  const run = await upgradeAtWork()
  // the same chart as mspider, as a module of its own: other tests are at work on mspider
  const copy = copyOfTheCollection()
  const other = readFileSync(join(copy, 'modules/mspider.json'), 'utf8')
    .replace('"name": "mspider"', '"name": "other"')
    .replace('"release": "mspider"', '"release": "other"')
    .replace('"namespace": "mspider-system"', '"namespace": "other-system"')
  writeFileSync(join(copy, 'modules/other.json'), other)
  const { originalPackage } = lab.modules['mspider']!.old
  const where = ['-n', 'other-system', '--create-namespace']
  const place = `${lab.registry.host}/release.daocloud.io/mspider`
  const set = ['--set', `global.imageRegistry=${place}`]
  await byHand('helm', 'install', 'other', originalPackage, ...where, ...set)
  onTestFinished(
    async () => void (await byHand('helm', 'uninstall', 'other', ...where.slice(0, 2))),
  )
  for (const script of ['backup-values', 'upgrade']) {
    const args = ['--module', 'other', '--site', run.site]
    const result = await runScript(script, args, { cwd: copy, env: lab.env })
    expect(result.exitCode, result.output).toBe(0)
  }
  expect(await releaseOf('skoala')).toMatchObject({ status: 'pending-upgrade' })
  process.kill(run.script, 'SIGTERM')
  await run.ended
  await vi.waitFor(() => expect(gone(run.script)).toBe(true), { timeout: 40_000 })
})

testSyncedUpgrade('skoala', 'HARBOR')

testLoadedUpgrade('skoala')
