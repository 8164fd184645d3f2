import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { ledger } from '../../lib/manual/ledger.ts'
import { all, hasManuals, modules } from '../dry-run/gate-inputs.ts'
import { fenceLines } from '../dry-run/gate.ts'
import { ROOT, runScript } from '../support/run-script.ts'

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
      for (const row of manualsOf(module).flatMap((name) => ledger(name).rows!)) {
        for (const each of row.differs ?? []) expect(page).toContain(plain(each[lang]))
        if (format === 'terminal') continue // two columns: lines are broken into each other
        for (const run of row.run ?? []) expect(page).toContain(plain(run))
        if (format === 'md') expect(page).toContain(plain(row.text))
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

  test('as a page needs nothing but itself', async () => {
    const { stdout } = await html(module)
    expect(stdout).toMatch(/^<!doctype html>/)
    expect(stdout).toContain('state/&lt;site&gt;/&lt;module&gt;/')
    expect(stdout).not.toMatch(/<(script|link|img|iframe)\b|\b(src|href)=|@import|url\(/)
  })
})

test('a module that does not exist, a form that does not exist: 64', async () => {
  const results = [await trace('mspidr'), await trace('mspider', '--format', 'pdf')]
  for (const { exitCode, output } of results) expect(exitCode, output).toBe(64)
})
