// Writes the skeleton of a ledger for a manual's page that has none: modules/manuals/PAGE.yaml, with
// the page's headings, every line of its fences, the prose that asks for something, its sha256, and
// guesses of the steps and commands. It says what is left to fill in by hand. A file that exists is
// left as it is.
//
// Usage: npm run ledger -- PAGE.md --module NAME

import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { format, resolveConfig } from 'prettier'
import { ROOT } from '../../lib/base/root.ts'
import { moduleNames } from '../../lib/inputs/checked-files.ts'
import { readModule } from '../../lib/inputs/module.ts'
import { ledger } from '../../lib/manual/ledger.ts'
import { usageOf } from '../lab/usage.ts'
import { skeletonOf, toYaml } from './skeleton.ts'

/** @throws Error with what is wrong with the words */
function readWords(): { help: true } | { help?: false; page: string; module: string } {
  const { values, positionals } = parseArgs({
    options: { module: { type: 'string' }, help: { type: 'boolean', short: 'h' } },
    // zx hands on its own words too: the script comes last of them
    args: process.argv.slice(process.argv.findIndex((word) => word.endsWith('ledger.mts')) + 1),
    allowPositionals: true,
  })
  if (values.help) return { help: true }
  const [page, ...others] = positionals
  if (!page || others.length > 0) throw new Error('name one page, PAGE.md')
  if (!page.endsWith('.md')) throw new Error(`${page} is not a page: its name ends with .md`)
  if (!values.module) throw new Error('--module NAME is missing')
  if (!moduleNames().includes(values.module))
    throw new Error(`${values.module} is not a module. Known: ${moduleNames().join(', ')}`)
  return { page, module: values.module }
}

/** @returns the exit code: 0, 64 wrong usage, 66 the page does not exist, 73 there is a ledger already */
async function main(): Promise<number> {
  let words: ReturnType<typeof readWords>
  try {
    words = readWords()
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${usageOf(import.meta.filename)}`)
    return 64
  }
  if (words.help) {
    console.log(usageOf(import.meta.filename))
    return 0
  }
  const { page, module: name } = words
  if (!existsSync(page)) {
    console.error(`the page ${page} does not exist`)
    return 66
  }
  const file = basename(page)
  const target = join(ROOT, 'modules/manuals', file.replace(/\.md$/, '.yaml'))
  if (existsSync(target)) {
    console.error(`${target} exists; it is left as it is`)
    return 73
  }
  const { module } = readModule(name)
  const text = readFileSync(page, 'utf8')
  const skeleton = skeletonOf(file, text, module.releases[0]!.release, ledger('none'))
  const style = { ...(await resolveConfig(target)), filepath: target }
  writeFileSync(target, await format(toYaml(skeleton), style), { flag: 'wx' })
  const { rows, steps } = skeleton.ledger
  console.log(`${target}: ${rows.length} rows, ${steps.length} steps

Left to do by hand (reasons are in modules/manuals/reasons.yaml):
${skeleton.byHand.map((each) => `  ${each}`).join('\n')}

Then:
  put "${file.replace(/\.md$/, '')}" into "manuals" of modules/${name}.json
  npx vitest -u test/dry-run/dry-run.test.ts    the dry runs have the headings now
  npx vitest test/dry-run/gate.test.ts          names what is not right yet`)
  return 0
}

process.exitCode = await main()
