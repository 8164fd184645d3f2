import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { processesOf } from '../support/interruptions.ts'
import { lab } from '../support/lab-site.ts'
import {
  allOn,
  importOn,
  load,
  machine,
  newBundle,
  nothingLeft,
  siteOf,
  type Machine,
} from '../support/load-site.ts'
import { ROOT, scriptEnv } from '../support/run-script.ts'

let machines: Machine[]

beforeAll(async () => {
  machines = await Promise.all([machine(), machine()])
})

const seed = Number(process.env['SEED'] ?? 20261121)
// KILLS=n makes it shorter while one works on the tests
const kills = Number(process.env['KILLS'] ?? 20)
const kinds = [
  'TERM to the script',
  'KILL to the script',
  'KILL to an import',
  'KILL to an ssh',
] as const
const moments = fc
  .sample(fc.noBias(fc.integer({ min: 0, max: 900 })), { seed, numRuns: kills })
  .map((moment, index) => [kinds[index % kinds.length]!, moment] as const)
const exitCodes: (number | null)[] = []

test.each(moments)(
  'a load that is interrupted (%s, %i ms after the begin of an import) leaves no node that a plain re-run does not bring right, and no lease',
  async (kind, moment) => {
    const site = siteOf(machines)
    const bundle = newBundle(15_000_000)
    const mark = `LOAD_RUN=${randomBytes(8).toString('hex')}`
    const args = ['--module', 'skoala', '--site', site.site, '--bundle', bundle]
    const script = spawn(join(ROOT, 'node_modules/.bin/zx'), ['scripts/load-images.mts', ...args], {
      cwd: ROOT,
      env: scriptEnv({ ...lab.env, LOAD_RUN: mark.split('=')[1] }),
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let output = ''
    script.stdout.on('data', (data) => (output += data))
    script.stderr.on('data', (data) => (output += data))
    const ended = new Promise<number | null>((done) => script.once('close', done))
    const ofScript = () => processesOf(mark)
    await vi.waitFor(() => expect(importOn(machines[0]!), output).toBeDefined(), {
      timeout: 30_000,
      interval: 5,
    })
    await new Promise((done) => setTimeout(done, moment))
    const kill = (pid?: number) => pid !== undefined && process.kill(pid, 'SIGKILL')
    if (kind === 'TERM to the script') script.kill('SIGTERM')
    if (kind === 'KILL to the script') script.kill('SIGKILL')
    if (kind === 'KILL to an import') kill(importOn(machines[0]!))
    if (kind === 'KILL to an ssh')
      kill(ofScript().find(({ command }) => /^ssh .* image import -$/.test(command))?.pid)
    const exitCode = await ended
    exitCodes.push(exitCode)
    // 0 where it was quicker
    if (kind === 'KILL to the script') expect([null, 0], output).toContain(exitCode)
    else if (kind === 'TERM to the script') expect([143, 0], output).toContain(exitCode)
    else expect([0, 1, 69], output).toContain(exitCode)
    await vi.waitFor(
      () => {
        expect(ofScript()).toEqual([])
        for (const each of machines) expect(importOn(each)).toBeUndefined()
      },
      { timeout: 60_000 },
    )

    const again = await load(site, bundle)
    expect(again.exitCode, again.output).toBe(0)
    for (const each of machines) await allOn(each, bundle, site)
    nothingLeft(site)
  },
)

afterAll(() => {
  console.log(`exit codes of the interrupted runs: ${exitCodes.join(' ')}`)
  if (kills >= 20) expect(exitCodes.filter((code) => code !== 0).length).toBeGreaterThan(kills / 2)
})
