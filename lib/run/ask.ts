import { AsyncLocalStorage } from 'node:async_hooks'
import { basename } from 'node:path'
import { clockOfMachine, toolsOfMachine } from '../audit/machine.ts'
import { noteQuestion } from '../audit/write.ts'
import { bug, EXIT, Failure, type FailureDetails, tail, UNCHANGED } from '../base/failure.ts'
import { redact } from '../base/output.ts'
import { type Ended, execute, unlessEndedWhileIdle } from '../base/processes.ts'
import { exitCodeFor } from '../base/tool-words.ts'
import { timeLimit } from '../inputs/flags.ts'
import { endingFailure, isPart, note, thisRun } from './session.ts'

/**
 * Records the sha256 of the tools and the state of the clock, once in a run that uses a tool. The
 * tools are large: it begins with the first question, and is awaited before the first command.
 */
export function recordMachine(): Promise<unknown> {
  const { machine, tools } = thisRun()
  machine.recorded ??= Promise.all(
    [toolsOfMachine(tools), clockOfMachine()].map((found) => found.then(note)),
  )
  // a failure shows where it is awaited
  machine.recorded.catch(() => {})
  return machine.recorded
}

/** From here on a failure says what state things are in and what to do, as `describe` finds it. */
export function onFailureDescribe(describe: () => Promise<FailureDetails>) {
  const run = thisRun()
  if (!run.dryRun) run.describeState = describe
}

/** Set while a failure is described: those questions may be asked although a signal came. */
const describing = new AsyncLocalStorage<true>()

/** After a signal nothing more is begun. @throws Failure 128+n */
export async function unlessEnded(text: string) {
  if (describing.getStore()) return
  await unlessEndedWhileIdle(thisRun().atWork)
  const interruption = endingFailure()
  if (interruption) throw await withState(interruption, text)
}

/**
 * Adds to a failure what became of things, and what to do.
 * @param text the command that failed
 */
export async function withState(failure: Failure, text = ''): Promise<Failure> {
  const run = thisRun()
  const { describeState } = run
  run.describeState = undefined // the questions of the description may fail too
  // of parts that go on side by side, nobody knows what the others change
  const unchanged = run.hasChanged || isPart() ? undefined : { state: UNCHANGED }
  const describe = () => describeState?.().catch(() => undefined)
  const found = (await describing.run(true, describe)) ?? unchanged
  const again: FailureDetails | undefined = endingFailure() && {
    next: ['run the same command again', '请重新执行同一命令'],
  }
  const command = text && { command: text }
  Object.assign(failure.details, command, { ...again, ...found, ...failure.details })
  return failure
}

/** The shell variables of ours that a command uses, with their values: without them it can't be repeated. */
export function usedVariables(
  text: string,
  variables: Record<string, string>,
): Record<string, string> {
  return Object.fromEntries(
    Object.entries(variables).filter(([name]) => new RegExp(`\\$${name}\\b`).test(text)),
  )
}

/**
 * Asks a tool something; nothing is changed by it, so it is not shown, and recorded when it ended.
 * @param variables shell variables for this question, besides those of the run
 * @returns how it ended, whatever its exit code
 * @throws Failure 128+n after a signal
 */
export async function ask(text: string, variables: Record<string, string> = {}): Promise<Ended> {
  const run = thisRun()
  if (run.dryRun) throw bug(`a dry run asks nothing: ${text}`, `试运行不应执行查询：${text}`)
  await unlessEnded(text)
  void recordMachine()
  const all = { ...run.variables, ...variables }
  const ended = await execute(text, {
    atWork: run.atWork,
    env: { ...run.env, ...all },
    cwd: run.inputs.stateDirectory,
    // who ends a script does not want to wait for its last words
    limit: Math.min(endingFailure() ? 15 : 120, timeLimit(run.inputs.flags).seconds),
  })
  if (run.trail) noteQuestion(run.trail, text, usedVariables(text, all), ended)
  await unlessEnded(text)
  return ended
}

/** Like `ask`, for a question that must be answered. @returns its stdout @throws Failure as `run` does */
export async function answer(
  text: string,
  variables: Record<string, string> = {},
): Promise<string> {
  const ended = await ask(text, variables)
  if (ended.exitCode === 0) return ended.stdout
  throw await withState(questionFailed(text, ended), text)
}

/** The failure of a question: which command, and the tool's words. */
export function questionFailed(text: string, ended: Ended): Failure {
  const code = ended.timedOut ? EXIT.unreachable : exitCodeFor(ended.stderr)
  const tool = basename(text.split(' ')[0]!)
  const [en, zh] =
    code === EXIT.unreachable
      ? ['the cluster or the repository cannot be reached', '无法访问集群或仓库']
      : code === EXIT.notAllowed
        ? ['permission denied', '没有权限']
        : [
            `${tool} could not be queried (exit code ${ended.exitCode})`,
            `${tool} 查询失败（退出码 ${ended.exitCode}）`,
          ]
  return new Failure(code, en!, zh!, {
    command: text,
    said: redact(tail(ended.stderr || ended.stdout)),
  })
}
