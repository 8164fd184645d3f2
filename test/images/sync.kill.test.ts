import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { beforeAll, expect, onTestFinished, test, vi } from 'vitest'
import { processesOf } from '../support/interruptions.ts'
import { startProcess, stopProcess } from '../lab/lab.ts'
import { lab } from '../support/lab-site.ts'
import { makeBundle } from '../support/make-bundle.ts'
import { ROOT, scriptEnv } from '../support/run-script.ts'
import { allThere, chartThere, emptySite, nothingLeft, sync } from '../support/sync-site.ts'

const module = 'mspider'
const directory = join(lab.directory, 'sync')
const large = join(directory, 'mspider-0.20.1.bundle.tar')

beforeAll(() => {
  mkdirSync(directory, { recursive: true })
  // so large that the sync takes some seconds
  const names = ['api', 'agent', 'ui', 'store']
  const images = names.map((name) => [`mspider-${name}`, randomBytes(15_000_000).toString('hex')])
  makeBundle(large, { chart: 'mspider', version: '0.20.1', images: Object.fromEntries(images) })
})

const seed = Number(process.env['SEED'] ?? 20261121)
// KILLS=n makes it shorter while one works on the tests
const kills = Number(process.env['KILLS'] ?? 24)
const kinds = [
  'TERM to the script',
  'KILL to the script',
  'KILL to charts-syncer',
  'the registry stopped',
] as const
const moments = fc
  .sample(fc.noBias(fc.integer({ min: 0, max: 700 })), { seed, numRuns: kills })
  .map((moment, index) => [kinds[index % kinds.length]!, moment] as const)

test.each(moments)(
  'a sync that is interrupted (%s, %i ms after its begin) leaves nothing half, and a plain re-run ends in the verified state',
  async (kind, moment) => {
    const site = emptySite()
    const mark = `INTERRUPTED_RUN=${randomBytes(8).toString('hex')}`
    const env = scriptEnv({ ...lab.env, INTERRUPTED_RUN: mark.split('=')[1] })
    const args = [
      'scripts/sync-images.mts',
      '--module',
      module,
      '--site',
      site.site,
      '--bundle',
      large,
    ]
    const script = spawn(join(ROOT, 'node_modules/.bin/zx'), args, {
      cwd: ROOT,
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let output = ''
    script.stdout.on('data', (data) => (output += data))
    script.stderr.on('data', (data) => (output += data))
    const ended = new Promise<number | null>((done) => script.once('close', done))
    const syncer = () =>
      processesOf(mark).find(({ command }) => /^charts-syncer sync --config/.test(command))
    await vi.waitFor(() => expect(syncer(), output).toBeDefined(), {
      timeout: 30_000,
      interval: 5,
    })
    await new Promise((done) => setTimeout(done, moment))
    if (kind === 'TERM to the script') script.kill('SIGTERM')
    if (kind === 'KILL to the script') script.kill('SIGKILL')
    if (kind === 'KILL to charts-syncer' && syncer()) process.kill(syncer()!.pid, 'SIGKILL')
    if (kind === 'the registry stopped') await stopProcess(lab, 'registry', { atOnce: true })
    onTestFinished(() => startProcess(lab, 'registry'))
    const exitCode = await ended
    // 0 where it was quicker
    if (kind === 'KILL to the script') expect([null, 0], output).toContain(exitCode)
    else expect([0, 1, 69, 143], output).toContain(exitCode)
    await vi.waitFor(() => expect(syncer()).toBeUndefined(), { timeout: 60_000 })
    await startProcess(lab, 'registry')

    const again = await sync(site, module, large)
    expect(again.exitCode, again.output).toBe(0)
    await allThere(site, module, large)
    expect(await chartThere(site, module, '0.20.1')).toBe(true)
    nothingLeft(site.state, module)
  },
)
