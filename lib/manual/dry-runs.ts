import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { bug } from '../base/failure.ts'
import { ROOT } from '../base/root.ts'
import { moduleNames } from '../inputs/checked-files.ts'
import { type Module } from '../inputs/types.ts'
import { ledger, type Way } from './ledger.ts'

/** What a script prints with --dry-run for site.example.yaml, and for which way. */
export interface DryRun extends Way {
  script: string
  sections: Section[]
}

/** A heading of a dry run, and the commands below it. */
export interface Section {
  /** without the places in the manuals */
  title: string
  /** kairship.en.md:30-75, of each manual that has the step; of another heading a remark */
  places: string[]
  commands: string[]
}

const way = { via: 'repo', kind: 'HARBOR' } as const

/** The dry runs that the trace of a module takes its commands from, by the names of their files. */
const RUNS: Record<string, Omit<DryRun, 'sections'>> = {
  'sync-images.MODULE': { ...way, script: 'sync-images' },
  'sync-images.MODULE.local': { ...way, script: 'sync-images', kind: 'LOCAL' },
  'load-images.MODULE': { ...way, script: 'load-images' },
  'upgrade.MODULE.repo': { ...way, script: 'upgrade' },
  'upgrade.MODULE.package': { ...way, script: 'upgrade', via: 'package' },
  'upgrade.MODULE.repo.install': { ...way, script: 'upgrade' },
}

/** Where the dry run of a name is kept, `upgrade.mspider.repo`; undefined where no trace needs it. */
export function recordOf(name: string): string | undefined {
  const [, module = ''] = name.split('.')
  const isOne = moduleNames().includes(module) && name.replace(`.${module}`, '.MODULE') in RUNS
  return isOne ? join(ROOT, 'modules/manuals/dry-runs', `${name}.sh`) : undefined
}

/** The dry runs of a module that are kept beside the ledgers; [] of a module that has none there. */
export const recordedDryRuns = (module: string): DryRun[] =>
  Object.entries(RUNS).flatMap(([name, run]) => {
    const path = recordOf(name.replace('MODULE', module))
    return path && existsSync(path)
      ? [{ ...run, sections: sectionsOf(readFileSync(path, 'utf8')) }]
      : []
  })

/**
 * The commands of a dry run, below the headings that they are run under; what is above the first
 * heading sets the environment up, and is left out. A heading is a remark behind a blank line, with
 * its places in parentheses: `# Update kairship CRDs · … (kairship.en.md:170-175)`.
 */
export function sectionsOf(text: string): Section[] {
  const lines = text.split('\n')
  const sections: Section[] = []
  for (let at = lines.indexOf('') + 1 || lines.length; at < lines.length; at++) {
    const line = lines[at]!
    const [, title, places] = (lines[at - 1] === '' && /^# (.*) \(([^()]*)\)$/.exec(line)) || []
    if (title) sections.push({ title, places: places!.split(', '), commands: [] })
    if (line.trim() === '' || line.startsWith('#')) continue
    const last = endOfCommand(lines, at)
    const command = lines.slice(at, last + 1).join('\n')
    if (sections.length === 0) sections.push({ title: '', places: [], commands: [] })
    sections.at(-1)!.commands.push(command)
    at = last
  }
  return sections
}

/**
 * The line on which the command that begins on a line ends: it goes on over a backslash, a pipe, && or
 * ||, open quotes and parentheses, if … fi, do … done, and the lines of a heredoc, which may begin
 * with #.
 */
function endOfCommand(lines: string[], first: number): number {
  let shell = ''
  for (let at = first; at < lines.length; at++) {
    const line = lines[at]!
    shell += `${line}\n`
    const [, delimiter] = /<<-?\s*['"]?(\w+)['"]?/.exec(line) ?? []
    if (delimiter) {
      const end = lines.indexOf(delimiter, at + 1)
      at = end < 0 ? lines.length : end
    }
    if (!/(\\|\||&&)$/.test(line) && isClosed(shell)) return at
  }
  return lines.length - 1
}

const wordOfShell = (word: string) => new RegExp(`(^|[;&|\\n])\\s*${word}\\b`, 'g')
const PAIRS = [
  [/\(/g, /\)/g],
  [wordOfShell('if'), wordOfShell('fi')],
  [wordOfShell('do'), wordOfShell('done')],
] as const

/** Is no quote, parenthesis, if or do of a piece of shell left open? */
function isClosed(shell: string): boolean {
  const bare = shell.replaceAll(/\\[^]|'[^']*'|"(?:\\[^]|[^"\\])*"/g, ' ')
  const count = (what: RegExp) => (bare.match(what) ?? []).length
  return !/['"]/.test(bare) && PAIRS.every(([open, close]) => count(open) <= count(close))
}

/**
 * Starts the scripts with --dry-run for site.example.yaml: for a module whose dry runs are not on
 * record.
 * @param scripts the directory of the scripts
 * @throws Failure 70 a dry run did not end with 0
 */
export async function startedDryRuns(
  { name, releases }: Module,
  scripts: string,
): Promise<DryRun[]> {
  const started = async (script: string, via: Way['via'], ...args: string[]): Promise<DryRun> => {
    const path = join(scripts, `${script}.mts`)
    const words = ['--module', name, '--site', 'site.example.yaml', '--dry-run', ...args]
    return { ...way, script, via, sections: sectionsOf(await outputOf(path, words)) }
  }
  return Promise.all([
    started('sync-images', 'repo'),
    started('load-images', 'repo'),
    started('upgrade', 'repo'),
    // a chart package is of one release
    ...releases.map(({ release, chart }) => {
      const args = ['--release', release, '--via', 'package', '--chart', `original-chart/${chart}`]
      return started('upgrade', 'package', ...args)
    }),
  ])
}

async function outputOf(script: string, words: string[]): Promise<string> {
  const command = [...process.execArgv, process.argv[1]!, script, ...words]
  try {
    return (await promisify(execFile)(process.execPath, command, { cwd: ROOT })).stdout
  } catch (error) {
    const { code, stderr } = error as { code?: unknown; stderr?: string }
    throw bug`
      the dry run of ${script} ended with ${code}
      ${script} 的试运行以 ${code} 结束`.said(stderr)
  }
}

/** The sections of a dry run that are of a step of a ledger: those whose heading has its place. */
export const sectionsFor = (sections: Section[], manual: string | null, lines?: string) =>
  sections.filter(({ places }) => places.includes(`${manual}:${lines}`))

/** The step of none.yaml whose heading a section has. */
export const stepOfSection = ({ title }: Section) =>
  ledger('none').steps.find(({ en, zh }) => [`${en} · ${zh}`, en, zh].includes(title))
