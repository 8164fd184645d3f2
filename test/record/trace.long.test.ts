import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { recordedDryRuns } from '../../lib/manual/dry-runs.ts'
import { ledger } from '../../lib/manual/ledger.ts'
import { commandsFor } from '../../lib/manual/trace.ts'
import { all, hasManuals, modules } from '../dry-run/gate-inputs.ts'
import { fenceLines } from '../ledger/page.ts'
import { copyOfTheCollection, ROOT, runScript } from '../support/run-script.ts'

const manualsOf = (module: string): string[] =>
  JSON.parse(readFileSync(join(ROOT, `modules/${module}.json`), 'utf8')).manuals
// a password of the environment must come into no page
const env = {
  CHART_REPO_PASSWORD: 'canary-of-the-chart-repository',
  REGISTRY_PASSWORD: 'canary-of-the-registry',
}
const trace = (module: string, ...args: string[]) =>
  runScript('trace', ['--module', module, ...args], { env })

const pages = new Map<string, ReturnType<typeof trace>>()
function html(module: string) {
  const page = pages.get(module) ?? trace(module, '--format', 'html')
  pages.set(module, page)
  return page
}

/** What stands on a page: lines are broken, and what HTML needs is escaped. */
const plain = (text: string) => text.replaceAll(/&quot;|&#39;|&lt;|&gt;|&amp;|["'<>&│≠\s]/g, '')

describe.each(modules)('the trace of %s', (module) => {
  test.each([
    ['html', 'en'],
    ['html', 'zh'],
    ['md', 'en'],
    ['terminal', 'zh'],
  ] as const)(
    'shows every row with what is run and why it differs: %s, %s',
    async (format, lang) => {
      const { exitCode, stdout, output } = await trace(module, '--format', format, '--lang', lang)
      expect(exitCode, output).toBe(0)
      expect(output).not.toContain('canary')
      const page = plain(stdout)
      for (const of of manualsOf(module).map(ledger)) {
        for (const row of of.rows!) {
          for (const each of row.differs ?? []) expect(page).toContain(plain(each[lang]))
          if (format === 'terminal') continue // two columns: lines are broken into each other
          const commands = commandsFor(recordedDryRuns(module), of, row)
          expect(commands.length, row.lines).toBeGreaterThanOrEqual(row.run?.length ?? 0)
          for (const { text } of commands) expect(page).toContain(plain(text))
          if (format === 'md') expect(page).toContain(plain(row.text))
        }
      }
    },
  )

  test.runIf(hasManuals)(
    'has each line of each fence of its manuals, with its number',
    async () => {
      const { stdout } = await html(module)
      for (const name of manualsOf(module)) {
        const page = stdout.slice(stdout.indexOf(`<h2>${name}.md <small>`))
        for (const number of fenceLines(all.manuals.get(name)!).keys())
          expect(page, `${name}.md:${number}`).toContain(`<span class="n">${number}</span>`)
      }
    },
  )

  test('counts the lines that are the same, and those with a reason of each kind', async () => {
    const { stdout } = await html(module)
    for (const name of manualsOf(module)) {
      const [, all, same, kinds] =
        new RegExp(`${name}.md: of (\\d+) lines [a-z ]+ (\\d+) are the same[^:]*: ([^<]+)`).exec(
          stdout,
        ) ?? []
      expect(Number(same), name).toBeGreaterThan(3)
      expect(Number(all), name).toBeGreaterThan(Number(same))
      expect(kinds, name).toMatch(/unsafe [1-9]/)
      expect(kinds, name).toMatch(/misprint [1-9]/)
    }
  })

  test('cites no line that it does not show', async () => {
    const { stdout } = await html(module)
    for (const of of manualsOf(module).map(ledger)) {
      const start = stdout.indexOf(`<h2>${of.manual} <small>`)
      const page = stdout.slice(start, stdout.indexOf('<h2>', start + 1))
      for (const [, first, last = first] of page.matchAll(/<li>(\d+)(?:-(\d+))?: /g))
        for (const number of [first, last])
          expect(page).toContain(`<span class="n">${number}</span>`)
    }
  })

  test('as a page needs nothing but itself', async () => {
    const { stdout } = await html(module)
    expect(stdout).toMatch(/^<!doctype html>/)
    expect(stdout).toContain('state/&lt;site&gt;/&lt;module&gt;/')
    expect(stdout).not.toMatch(/<(script|link|img|iframe)\b|\b(src|href)=|@import|url\(/)
  })
})

test('of a module without a manual: every command of its dry runs, and that none is on record', async () => {
  const directory = copyOfTheCollection()
  const descriptor = JSON.parse(readFileSync(join(ROOT, 'modules/kairship.json'), 'utf8'))
  writeFileSync(
    join(directory, 'modules/other.json'),
    JSON.stringify({ ...descriptor, name: 'other', manuals: [] }),
  )
  const args = ['--module', 'other', '--format', 'md']
  const { exitCode, stdout, output } = await runScript('trace', args, { cwd: directory, env })
  expect(exitCode, output).toBe(0)
  expect(stdout).toContain('There is not a manual of this module on record')
  const page = plain(stdout)
  for (const run of recordedDryRuns('kairship').filter(({ kind }) => kind === 'HARBOR'))
    for (const text of run.sections.flatMap(({ commands }) => commands))
      expect(page).toContain(plain(text))
  expect(existsSync(join(directory, 'state'))).toBe(false)
})

test('a module that does not exist, a form that does not exist: 64', async () => {
  const results = [await trace('mspidr'), await trace('mspider', '--format', 'pdf')]
  for (const { exitCode, output } of results) expect(exitCode, output).toBe(64)
})
