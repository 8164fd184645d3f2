import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv } from 'ajv'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { ROOT } from '../support/run-script.ts'

const ledgers = readdirSync(join(ROOT, 'modules/manuals')).filter((file) => file !== 'none.yaml')
const manuals = process.env['MANUALS'] ?? join(ROOT, '../shared/manuals')

const read = (file: string) => parse(readFileSync(join(ROOT, 'modules/manuals', file), 'utf8'))
const plain = (text: string) => text.replace(/[`_.。]/g, '').trim()

test.each(['module', 'site', 'manual'])('the schema of a %s is one', (kind) => {
  const path = join(ROOT, `modules/schemas/${kind}.schema.json`)
  const schema = JSON.parse(readFileSync(path, 'utf8'))
  // the scripts leave this out, since it takes a while
  expect(() => new Ajv({ strict: false }).compile(schema)).not.toThrow()
})

describe.each(ledgers)('the ledger %s', (file) => {
  const { manual, steps } = read(file)

  test('belongs to a module', () => {
    const modules = readdirSync(join(ROOT, 'modules')).filter((name) => name.endsWith('.json'))
    const named = modules.flatMap(
      (name) => JSON.parse(readFileSync(join(ROOT, 'modules', name), 'utf8')).manuals,
    )
    expect(named).toContain(file.replace(/\.yaml$/, ''))
  })

  // MANUALS names the directory with the vendor's manuals
  test.runIf(existsSync(join(manuals, manual)))(
    'names headings and lines as the manual has them',
    () => {
      const lines = readFileSync(join(manuals, manual), 'utf8').split('\n')
      const language = manual.endsWith('.zh.md') ? 'zh' : 'en'
      for (const step of steps) {
        const [first, last] = step.lines.split('-').map(Number)
        if (step.prose) {
          expect(lines.slice(first - 1, last).join('\n'), `${manual}:${step.lines}`).toMatch(
            /\btag\b/,
          )
          continue
        }
        expect(plain(lines[first - 1]!), `${manual}:${first}`).toContain(plain(step[language]))
        expect(lines[last - 1], `${manual}:${last} ends a fence or its remark`).toMatch(
          /```|^\s+\d\. |helm update repo/,
        )
        for (const { line } of step.differs ?? []) {
          for (const number of line.split('-').map(Number)) expect(lines[number - 1]).not.toBe('')
        }
      }
    },
  )
})
