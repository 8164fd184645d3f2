import { type Mutant } from './mutants.ts'
import { type Seen } from './runs.ts'

/** What a mutant does, compared with the original. */
export type Verdict =
  | 'same' // the same commands and the same checks
  | 'refused' // 70, with a sentence that names what is missing or comes too late
  | 'told' // another failure that was foreseen: before anything was changed, or it says what is wrong
  | { wrong: string }

const UNCHANGED = 'nothing in the cluster, in the registry or on a node was changed'

/** what a word says that it checks */
const CHECK = /^# (check|检查|lock|加锁|only|仅)/

/** the sentences of a copy that is out of order */
const REFUSALS = [
  /must come before/,
  /await is missing before/,
  /were not reached before finish\(\)/,
  /finish\(\) was not reached/,
  /is used at scripts\/\S+, (above the line that sets it|but no line above sets it)/,
]

export function judge(mutant: Mutant, seen: Seen, original: Seen): Verdict {
  const { exitCode, output, changes } = seen
  const unwanted = changes.find((line) => /^(UNLOCKED|ASKED)/.test(line))
  if (unwanted) return { wrong: unwanted }
  const unseen = unseenUpgrade(seen.log)
  if (unseen) return { wrong: `not rendered before: ${unseen}` }
  const extra = changes.length > original.changes.length
  if (extra) return { wrong: `it changed more: ${changes.join('; ')}` }
  if (/^\s+at .*:\d+:\d+/m.test(output)) return { wrong: 'a raw stack' }
  if (changes.length > 0 && output.includes(UNCHANGED))
    return { wrong: `it says that nothing was changed, after ${changes.join('; ')}` }

  if (exitCode === 0) {
    const what = differs(mutant, seen, original)
    return what ? { wrong: `exit 0, but ${what}` } : 'same'
  }
  if (original.exitCode === exitCode) return 'same'
  if (exitCode === 70) {
    if (/unexpected error|Error:/.test(output)) return { wrong: 'told as an unexpected error' }
    const refusal = REFUSALS.find((words) => words.test(output))
    if (!refusal) return { wrong: 'exit 70 without a sentence that names what is missing' }
    if (!namesIt(mutant, output)) return { wrong: 'the sentence names nothing of these lines' }
    return 'refused'
  }
  const isForeseen = exitCode === 1 || (exitCode! >= 64 && exitCode! <= 78)
  if (isForeseen && output.includes(`FAILED · 失败 (exit ${exitCode})`)) return 'told'
  return { wrong: `exit ${exitCode}` }
}

/** What is not as in the original, in a run that ended with 0. */
function differs(mutant: Mutant, seen: Seen, original: Seen): string | undefined {
  if (original.exitCode !== 0) return `the original ends with ${original.exitCode}`
  const { isOfHeading, isOfRemark, isOfIndependent } = mutant
  // ALLOWED: a heading that is moved or dropped where no command comes under a wrong step
  const part = isOfHeading ? 'commands' : 'withHeadings'
  // ALLOWED: what needs nothing of each other, in the other order
  const inOrder = (lines: string[]) => (isOfIndependent ? [...lines].sort() : lines)
  const different = difference(inOrder(seen[part]), inOrder(original[part]))
  // where nothing is run, nothing needs a check: it is refused where something is
  if (different || original.commands.length === 0) return different
  const remarks = (of: Seen) =>
    isOfRemark ? of.remarks.filter((line) => CHECK.test(line)) : of.remarks
  return difference(remarks(seen), remarks(original))
}

function difference(found: string[], wanted: string[]): string | undefined {
  const index = wanted.findIndex((line, index) => line !== found[index])
  if (index >= 0) return `not ${wanted[index]} but ${found[index]}`
  return found.length > wanted.length ? `too much: ${found[wanted.length]}` : undefined
}

/** A `helm upgrade` that helm was not asked to render with the same words before, and did. */
function unseenUpgrade(log: string[]): string | undefined {
  return log.find((line, index) => {
    if (!line.startsWith('helm upgrade ')) return false
    const words = line.split(' ').slice(2)
    return !log
      .slice(0, index)
      .some(
        (before) =>
          before.startsWith('helm template ') &&
          words.every(
            (word) =>
              /^--(install|cleanup-on-fail)$/.test(word) || before.split(' ').includes(word),
          ),
      )
  })
}

/** Does the sentence name a word, a name or a command of the lines in question? */
function namesIt({ lines, kind }: Mutant, output: string): boolean {
  const sentence = output.slice(Math.max(0, output.lastIndexOf('FAILED')))
  if (kind === 'not awaited' && lines.includes('import(')) return true
  const names = lines.match(/[A-Za-z]\w{3,}/g) ?? []
  return names.some((name) => new RegExp(`\\b${name}\\b`).test(sentence))
}
