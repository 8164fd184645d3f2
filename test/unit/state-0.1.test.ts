import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { runsOf } from '../../lib/audit/show.ts'
import { readTrail } from '../../lib/audit/verify.ts'
import { linesOf, sha256 } from '../../lib/base/hash.ts'
import { readChecked } from '../../lib/inputs/checked-files.ts'
import { readSite } from '../../lib/inputs/site.ts'
import { type Module } from '../../lib/inputs/types.ts'
import { recordOf } from '../../lib/manual/dry-runs.ts'
import { layDownOldState, oldModules, oldState, oldTrail } from '../support/old-state.ts'
import { copyOfTheCollection, runScript } from '../support/run-script.ts'

const directory = mkdtempSync(join(tmpdir(), 'dce-upgrade-test-'))
afterAll(() => rmSync(directory, { recursive: true }))
const site = join(directory, 'site.yaml')
const state = join(directory, 'state/lab')
cpSync(join(oldState, 'site.yaml'), site)
layDownOldState(state)

const audit = (order: string, module: string, ...args: string[]) =>
  runScript('audit', [order, '--module', module, '--site', site, ...args])
const runs = (module: string) => runsOf(readTrail(oldTrail(module)).records)

describe('the audit that 0.1 wrote', () => {
  test.for(oldModules)('of %s verifies, by its own heads too', async (module) => {
    const successes = JSON.parse(readFileSync(join(state, module, 'last-success.json'), 'utf8'))
    const lines = linesOf(oldTrail(module))
    const head = sha256(lines.at(-1)!)
    const result = await audit('verify', module, '--head', head)
    expect(result).toMatchObject({ exitCode: 0, stderr: '' })
    const heads = Object.values<any>(successes).map(({ auditHead }) => auditHead)
    // the last run may have been the last that ended well
    const known = new Set([...heads, head]).size
    expect(result.stdout).toContain(
      `${lines.length} records, as they were written (held against ${known} known heads). Head: ${head}`,
    )
  })

  test('shows by its last-success.json where it was cut off, and where a line was changed', async () => {
    const path = join(state, 'mspider/audit.jsonl')
    const lines = oldTrail('mspider').toString().split('\n')
    try {
      writeFileSync(path, lines.slice(0, 40).join('\n') + '\n')
      const cut = await audit('verify', 'mspider')
      expect(cut.exitCode, cut.output).toBe(65)
      expect(cut.stderr).toContain('the end was cut off')
      writeFileSync(path, lines.join('\n').replace('"ticket":"CHG 1002"', '"ticket":"CHG 1009"'))
      const changed = await audit('verify', 'mspider')
      expect(changed.exitCode, changed.output).toBe(65)
      expect(changed.stderr).toMatch(/is not as it was written, line \d+: /)
    } finally {
      writeFileSync(path, oldTrail('mspider'))
    }
  })

  test.for(oldModules)('of %s shows each run: who, the ticket, how it ended', async (module) => {
    const shown = await audit('show', module)
    expect(shown.exitCode, shown.output).toBe(0)
    const texts = shown.stdout.split(/^(?=\S+ --module )/m)
    for (const { run, start, end } of runs(module)) {
      const text = texts.find((text) =>
        text.startsWith(`${start!['script']} --module ${module}   ${run}\n`),
      )
      expect(text).toContain('root@bastion')
      if (start!['ticket']) expect(text).toContain(`ticket ${start!['ticket']}`)
      expect(text).toContain(
        !end
          ? 'UNFINISHED: it was killed, or is at work'
          : end['exitCode'] === 0
            ? 'done (exit 0)'
            : `FAILED (exit ${end['exitCode']})`,
      )
    }
  })

  test('has runs that ended well, one that was refused, one that failed, and one that was killed', () => {
    const codes = oldModules.flatMap((module) => runs(module).map(({ end }) => end?.['exitCode']))
    expect(codes.filter((code) => code !== 0).sort()).toEqual([1, 77, undefined])
    expect(codes.length).toBeGreaterThan(8)
  })

  test.for([
    ['kairship', 0],
    ['mspider', 1],
  ] as const)(
    'puts what a run of %s executed that ended with %i beside the manual',
    async ([module, exitCode]) => {
      const { run } = runs(module).findLast(
        ({ start, end }) => start!['script'] === 'upgrade' && end?.['exitCode'] === exitCode,
      )!
      const id = ['--run', run, '--site', site]
      const trace = await runScript('trace', ['--module', module, ...id, '--format', 'md'])
      expect(trace.exitCode, trace.output).toBe(0)
      expect(trace.stdout).toContain(run)
      expect(trace.stdout).toMatch(/executed in the run[^]*exit 0, [^]*helm upgrade/)
    },
  )
})

describe('the site files and descriptors of 0.1', () => {
  /** today's scripts with the descriptors of 0.1 */
  const withOldDescriptors = () => {
    const copy = copyOfTheCollection()
    for (const name of readdirSync(join(oldState, 'modules')))
      cpSync(join(oldState, 'modules', name), join(copy, 'modules', name))
    return copy
  }

  test.for(oldModules)('give the dry runs of %s that are on record', async (module) => {
    const copy = withOldDescriptors()
    cpSync(join(oldState, 'site.example.yaml'), join(copy, 'site.yaml'))
    const scripts = { upgrade: '.repo', 'sync-images': '', 'load-images': '' }
    for (const [script, way] of Object.entries(scripts)) {
      const name = `${script}.${module}${way}`
      const result = await runScript(script, ['--module', module, '--dry-run'], { cwd: copy })
      expect(result, name).toMatchObject({ exitCode: 0, stderr: '' })
      expect(result.stdout, name).toBe(readFileSync(recordOf(name)!, 'utf8'))
    }
  })

  test('of the site that ran it are accepted, and give the same dry run as today’s descriptors', async () => {
    for (const module of oldModules)
      expect(readChecked<Module>(join(oldState, `modules/${module}.json`), 'module').name).toBe(
        module,
      )
    expect(readSite(join(oldState, 'site.yaml')).name).toBe('lab')
    const copies = [withOldDescriptors(), copyOfTheCollection()]
    const [old, today] = await Promise.all(
      copies.map((copy) => {
        cpSync(join(oldState, 'site.yaml'), join(copy, 'site.yaml'))
        return runScript('load-images', ['--module', 'kairship', '--dry-run'], { cwd: copy })
      }),
    )
    expect(old).toMatchObject({ exitCode: 0, stderr: '' })
    expect(old!.stdout).toBe(today!.stdout)
  })
})
