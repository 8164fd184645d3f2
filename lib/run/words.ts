import { AsyncLocalStorage } from 'node:async_hooks'
import { basename } from 'node:path'
import { audit, auditQuestion } from '../audit/write.ts'
import { EXIT, Failure, tail, type FailureDetails, UNCHANGED } from '../base/failure.ts'
import { timeLimit } from '../inputs/flags.ts'
import { type Release } from '../inputs/inputs.ts'
import { heading, type StepName } from '../manual/ledger.ts'
import { print, redact } from '../base/output.ts'
import {
  endingFailure,
  execute,
  exitCodeFor,
  unlessEndedWhileIdle,
  type Ended,
} from '../base/processes.ts'
import { firstTime, isPart, nextNumber, recordMachine, thisRun } from './session.ts'
import { command, quote, type Command } from '../base/shell.ts'

/** The manual's heading, where it stands in the manual, and where we differ. */
export function step(name: StepName) {
  const { inputs, dryRun } = thisRun()
  const { title, lines, differs } = heading(inputs.module, inputs.flags.via, name)
  printHeading(title, lines)
  if (dryRun)
    differs.forEach(({ where, en, zh }) =>
      print(`# differs from ${where}: ${en}\n# 与 ${where} 不同：${zh}`),
    )
}

/** A heading of ours, for what the manual does not have. */
export function ownStep(en: string, zh: string) {
  printHeading(`${en} · ${zh}`, 'not in the manual · 手册中没有')
}

function printHeading(title: string, lines: string) {
  const run = thisRun()
  run.step = `${title} (${lines})`
  run.stepLines = lines
  const text = `# ${title} (${lines})`
  print('\n' + (process.stdout.isTTY && !run.dryRun ? `\x1b[1m${text}\x1b[0m` : text))
}

/** A remark: a comment in the dry run, a line in a real run; of parts that go on side by side, the first makes it. */
export function say(en: string, zh: string) {
  if (!isPart() || firstTime(en)) print(`# ${en}\n# ${zh}`)
}

/** A line for the person at the terminal; a dry run has none. */
export function report(text: string) {
  if (!thisRun().dryRun) print(text)
}

/**
 * Something that is not a command of the manual: reading a file, checking a state. A dry run says what
 * a real run would do there, and does nothing.
 * @param en what it does, in English
 * @param zh the same in Chinese
 * @returns what `work` returns; undefined in a dry run
 */
export async function check<T>(
  en: string,
  zh: string,
  work: () => Promise<T>,
): Promise<T | undefined> {
  say(en, zh)
  return thisRun().dryRun ? undefined : await work()
}

/**
 * A value that commands use as `$name`. A dry run writes a placeholder, as the manual does.
 * @param placeholder for example {last_deployed_revision}
 * @param find finds it in a real run
 */
export async function setVariable(
  name: string,
  placeholder: string,
  find: () => Promise<string>,
): Promise<string> {
  const { dryRun, variables } = thisRun()
  const value = dryRun ? placeholder : await find()
  if (!dryRun && !/^[^\s{}*?'"$`\\]+$/.test(value)) {
    throw new Failure(
      EXIT.configuration,
      `${name} has the value ${JSON.stringify(value)}, which a shell would change`,
      `${name} 的值 ${JSON.stringify(value)} 会被 shell 改写`,
    )
  }
  if (variables[name] !== value) exportVariable(name, value)
  return value
}

/** The placeholder of a dry run: {name}, with the release where the module has several. */
export function placeholderFor(name: string, { release }: Release): string {
  return thisRun().inputs.releases.length > 1 ? `{${name}_of_${release}}` : `{${name}}`
}

/** `export NAME=value`, as the manual does it; commands use `$NAME`. */
export function exportVariable(name: string, value: string) {
  const { dryRun, variables } = thisRun()
  print(`${dryRun ? '' : '$ '}export ${name}=${quote(value)}`)
  variables[name] = value
}

/** `$time`: when this run was started, for the names of what it writes. */
export async function setTime() {
  await setVariable('time', '{time_of_this_run}', async () => thisRun().time)
}

/**
 * Runs a command: prints it, records it, runs it in the module's directory, records how it ended. A
 * dry run only prints it.
 * @returns its stdout; '' in a dry run
 * @throws Failure when it fails: 1, or 69, 73, 77, 78 where its words say why; 128+n after a signal
 */
export async function run(
  first: TemplateStringsArray | Command,
  ...values: Parameters<typeof command> extends [unknown, ...infer V] ? V : never
): Promise<string> {
  const { text } = 'raw' in first ? command(first, ...values) : first
  const { dryRun, env, variables, inputs, stepLines, locks } = thisRun()
  await unlessEnded(text)
  // of parts that go on side by side, the first prints all of it
  const isKnown = isPart() && !firstTime(`command: ${text}`)
  print(dryRun ? text : isKnown ? `$ ${text.split('\n')[0]} … (as above · 同上)` : `$ ${text}`)
  if (dryRun) return ''
  await recordMachine()
  await unlessEnded(text)
  const number = nextNumber()
  const about = {
    number,
    script: inputs.script,
    step: thisRun().step,
    manual: stepLines,
    command: text,
    variables: usedVariables(text, variables),
  }
  audit({ event: 'command', ...about })
  thisRun().commandsRun++
  const limit = timeLimit(inputs.flags)
  const cwd = inputs.stateDirectory
  const lines = linePrinter()
  const ended = await execute(text, {
    env: { ...env, ...variables },
    cwd,
    limit: limit.seconds,
    descriptors: locks,
    onOutput: lines.write,
  })
  lines.end()
  const { exitCode, signal, seconds: duration, timedOut, stdout, stderr } = ended
  audit({ event: 'ended', number, command: text, exitCode, signal, seconds: duration, timedOut })
  const interruption = endingFailure()
  if (interruption) throw await withState(interruption, text)
  if (exitCode === 0 && !timedOut) return stdout
  // flock(1) was told to end with 75 where somebody else holds the lock; it says nothing
  const isLocked = exitCode === EXIT.tryLater && /\bflock -n -E 75 /.test(text)
  const code = timedOut
    ? EXIT.commandFailed
    : isLocked
      ? EXIT.tryLater
      : exitCodeFor(`${stderr}\n${stdout}`)
  throw await withState(
    new Failure(
      code,
      timedOut
        ? `the command did not end within ${limit.text} (--timeout)`
        : isLocked
          ? 'somebody else is at work there: it is locked'
          : `the command failed with exit code ${exitCode}`,
      timedOut
        ? `命令未在 ${limit.text} 内结束（--timeout）`
        : isLocked
          ? '其他人正在操作，已被锁定'
          : `命令失败，退出码 ${exitCode}`,
      { said: redact(tail(stderr || stdout)), ...(isLogin(code, text) && { next: LOGIN_AGAIN }) },
    ),
    text,
  )
}

/** Did the chart repository refuse the login? */
const isLogin = (code: number, text: string) =>
  code === EXIT.notAllowed && /\bhelm (repo|pull|show|search)\b/.test(text)

const LOGIN_AGAIN: [en: string, zh: string] = [
  'the chart repository refused CHART_REPO_USERNAME and CHART_REPO_PASSWORD; set them anew:\nexport CHART_REPO_USERNAME=…; read -rs CHART_REPO_PASSWORD && export CHART_REPO_PASSWORD',
  'chart 仓库拒绝了该用户名或密码，请按上面的命令重新设置',
]

/** The shell variables of ours that a command uses, with their values: without them it can't be repeated. */
function usedVariables(text: string, variables: Record<string, string>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(variables).filter(([name]) => new RegExp(`\\$${name}\\b`).test(text)),
  )
}

/** Prints a command's output line by line, so that a secret that comes in two pieces is found. */
function linePrinter() {
  const rest = { stdout: '', stderr: '' }
  return {
    write(text: string, from: 'stdout' | 'stderr') {
      const lines = (rest[from] + text).split('\n')
      rest[from] = lines.pop()!
      lines.forEach(print)
    },
    end: () => Object.values(rest).filter(Boolean).forEach(print),
  }
}

/** From here on a failure says what state things are in and what to do, as `describe` finds it. */
export function onFailureDescribe(describe: () => Promise<Partial<FailureDetails>>) {
  const run = thisRun()
  run.describeState = describe
  run.describeFailure = (failure) => withState(failure, '')
}

/** Set while a failure is described: those questions may be asked although a signal came. */
const describing = new AsyncLocalStorage<true>()

/** After a signal nothing more is begun. @throws Failure 128+n */
async function unlessEnded(text: string) {
  if (describing.getStore()) return
  await unlessEndedWhileIdle()
  const interruption = endingFailure()
  if (interruption) throw await withState(interruption, text)
}

/** Adds to a failure what became of the releases, and what to do. */
export async function withState(failure: Failure, text: string): Promise<Failure> {
  const run = thisRun()
  const { describeState } = run
  run.describeState = undefined // the questions of the description may fail too
  const unchanged: Partial<FailureDetails> | undefined =
    run.commandsRun > 0 ? undefined : { state: UNCHANGED }
  const describe = () => describeState?.().catch(() => undefined)
  const found = (await describing.run(true, describe)) ?? unchanged
  const again: Partial<FailureDetails> | undefined = endingFailure() && {
    next: ['run the same command again', '请重新执行同一命令'],
  }
  const command = text && { command: text }
  Object.assign(failure.details, command, { ...again, ...found, ...failure.details })
  return failure
}

/**
 * Asks a tool something; nothing is changed by it, so it is not shown, and recorded when it ended.
 * @param variables shell variables for this question, besides those of the run
 * @returns how it ended, whatever its exit code
 * @throws Failure 128+n after a signal
 */
export async function ask(text: string, variables: Record<string, string> = {}): Promise<Ended> {
  const run = thisRun()
  await unlessEnded(text)
  void recordMachine()
  const all = { ...run.variables, ...variables }
  const ended = await execute(text, {
    env: { ...run.env, ...all },
    cwd: run.inputs.stateDirectory,
    // who ends a script does not want to wait for its last words
    limit: Math.min(endingFailure() ? 15 : 120, timeLimit(run.inputs.flags).seconds),
  })
  auditQuestion(text, usedVariables(text, all), ended)
  await unlessEnded(text)
  return ended
}

/** Like `ask`, for a question that must be answered. @throws Failure as `run` does */
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
  const [en, zh] =
    code === EXIT.unreachable
      ? ['the cluster or the repository cannot be reached', '无法访问集群或仓库']
      : code === EXIT.notAllowed
        ? ['the answer is: not allowed', '没有权限']
        : [
            `a question to ${basename(text.split(' ')[0]!)} failed with exit code ${ended.exitCode}`,
            `查询失败，退出码 ${ended.exitCode}`,
          ]
  return new Failure(code, en!, zh!, {
    command: text,
    said: redact(tail(ended.stderr || ended.stdout)),
  })
}
