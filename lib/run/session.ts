import { AsyncLocalStorage } from 'node:async_hooks'
import { append, type Fact, noteFact, type OpenTrail } from '../audit/write.ts'
import { bug, type Failure, type FailureDetails, failures, UNCHANGED } from '../base/failure.ts'
import { redact } from '../base/output.ts'
import { type Inputs } from '../inputs/types.ts'
import { type StepName } from '../manual/ledger.ts'
import * as processes from '../base/processes.ts'

/**
 * What is true of this run; the same for the started script and for the phases that it imports. What
 * belongs to a release, a bundle or a node is kept on that; rooms that follow add fields of their own.
 */
export interface Run {
  inputs: Inputs
  dryRun: boolean
  /** prints nothing but a failure: for cron, which mails whatever a job says */
  isSilent: boolean
  /** what each line that a part prints begins with */
  label?: string
  /** time of the start, for file names: 20240919T020304Z */
  time: string
  /** the same in milliseconds since 1970 */
  startedAt: number
  env: NodeJS.ProcessEnv
  /** the shell variables of ours, which commands use as $name */
  variables: Record<string, string>
  /** descriptors of the locks, which commands inherit */
  locks: number[]
  /** scripts that were started and are not finished: the started one, and phases in it */
  depth: number
  /** the present step: its heading, where it is in the manual, and its name if it is the manual's */
  step: { title: string; lines: string; name?: StepName }
  /** the tools of this script, by their paths */
  tools: string[]
  /** settled when their hashes and the state of the clock are known: before that no command is run */
  machine: { recorded?: Promise<unknown> }
  /** tells a command from another one with the same text */
  numbers: { last: number }
  /** the commands that were run, or printed by a dry run */
  commands: string[]
  /** was a command begun that may change cluster, registry or nodes? */
  hasChanged: boolean
  /** the words that were reached, and what need be done or said once only */
  reached: Set<string>
  /** the checks that something which was done asks for, and that were not reached yet */
  owed: Set<string>
  /** the newest word of a script, until `await` takes what it gives */
  unawaited?: string
  /** a word was refused: what was not awaited does not begin any more */
  isRefused?: true
  /** none in a dry run */
  trail?: OpenTrail
  atWork: processes.AtWork
  /** what --json prints of this run */
  results: Record<string, unknown>
  /** finds out what became of things, for a failure */
  describeState?: () => Promise<FailureDetails>
}

/** The one cell of lib/: the run that this process is for, and the failure that was printed. */
export const session: { run?: Run; failure?: Failure } = {}

failures.subscribe((failure) => {
  session.failure = failure as Failure
  if (session.run && !session.run.dryRun) settle(session.failure, session.run)
})

/** Adds to a failure where it happened, and that nothing was changed, where that is so. */
export function settle(failure: Failure, { step, hasChanged }: Run) {
  if (step.title) failure.step ||= `${step.title} (${step.lines})`
  // of parts that go on side by side, nobody knows what the others change
  if (!hasChanged && !isPart()) failure.details.state ??= UNCHANGED
}

/** parts of the run that go on side by side, one for each node */
const parts = new AsyncLocalStorage<Run>()

/**
 * The run that is going on, or the part of it that asks.
 * @param word who asks, for a failure
 * @throws Failure 70 where the script has not been started
 */
export function thisRun(word = 'it'): Run {
  const run = parts.getStore() ?? session.run
  if (!run)
    throw bug`
    start(…) must come before ${word}
    ${word} 之前必须先调用 start(…)`
  return run
}

/** Is this a part of the run, beside others? */
export const isPart = () => parts.getStore() !== undefined

/**
 * Does a part of the work beside other parts: it has variables, locks, a step and a state of its own;
 * all else is the run's. What it prints begins with its label.
 */
export async function inPart<T>(label: string, work: () => Promise<T>): Promise<T> {
  const run = thisRun()
  const part: Run = Object.assign(Object.create(run) as Run, {
    label,
    variables: { ...run.variables },
    locks: [...run.locks],
    step: run.step,
    unawaited: undefined,
  })
  try {
    return await parts.run(part, work)
  } catch (failure) {
    if (failure instanceof Error && 'exitCode' in failure) settle(failure as Failure, part)
    throw failure
  }
}

/** The id of the run, by which its records are known. */
export const runId = ({ time }: Run) => `${time}-${process.pid}`

/** Is it the first time in this run? An imported phase need not repeat what its importer did. */
export function firstTime(name: string): boolean {
  const { reached } = thisRun()
  const isFirst = !reached.has(name)
  reached.add(name)
  return isFirst
}

/** Prints a line on stdout. */
export function print(text: string) {
  const { isSilent, label } = thisRun()
  if (isSilent) return
  const lines = label ? text.replace(/^(?=.)/gm, `${label}: `) : text
  process.stdout.write(redact(lines) + '\n')
}

/** A line for the person at the terminal; a dry run has none. */
export function report(text: string) {
  if (!thisRun().dryRun) print(text)
}

/**
 * Records what was found or written: it is on the disk before the next command runs, and at the end of
 * the script.
 */
export function note(fact: Fact) {
  const { trail } = thisRun()
  if (trail) noteFact(trail, fact)
}

/** Records what happens, and waits until it is on the disk. @throws Failure 73: then nothing may run */
export function audit(fact: Fact) {
  const { trail } = thisRun()
  if (trail) append(trail, fact)
}

/** The failure with which the script ends after a signal; undefined where none came. */
export const endingFailure = () => processes.endingFailure(thisRun().atWork)

/** Waits so many seconds; a signal ends the script meanwhile. */
export async function pause(seconds: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000))
  await processes.unlessEndedWhileIdle(thisRun().atWork)
}

/** Adds to what --json prints. */
export function result(fields: Record<string, unknown>) {
  Object.assign(thisRun().results, fields)
}
