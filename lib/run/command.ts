import { bug, EXIT, Failure, tail } from '../base/failure.ts'
import { redact } from '../base/output.ts'
import { execute } from '../base/processes.ts'
import { command, type Command, type ShellLines } from '../base/shell.ts'
import { exitCodeFor } from '../base/tool-words.ts'
import { timeLimit } from '../inputs/flags.ts'
import { stepsFor } from '../manual/ledger.ts'
import { recordMachine, unlessEnded, usedVariables, withState } from './ask.ts'
import { mustComeFirst, word } from './order.ts'
import { audit, endingFailure, firstTime, isPart, print, session, thisRun } from './session.ts'

/**
 * Runs a command that may change cluster, registry or nodes: prints it, records it, runs it in the
 * module's directory, records how it ended. A dry run only prints it.
 * @returns its stdout; '' in a dry run
 * @throws Failure when it fails: 1, or 69, 73, 77, 78 where its words say why; 128+n after a signal
 */
export const run = word(
  'run',
  async (first: TemplateStringsArray | Command, ...values: (string | number | ShellLines)[]) =>
    runCommand('raw' in first ? command(first, ...values) : first, true),
)

/** The same for a command that only reads, or writes in the module's own directory. */
export const prepare = word(
  'prepare',
  async (first: TemplateStringsArray | Command, ...values: (string | number | ShellLines)[]) =>
    runCommand('raw' in first ? command(first, ...values) : first, false),
)

/** The words that must have been reached before a command: a copy that has not is refused. */
const WORDS_BEFORE: [command: RegExp, words: string[]][] = [
  [/cat > load-image\.yaml\b/, ['lockRepository', 'placeBundle']],
  [/\bcharts-syncer sync\b/, ['lockRepository', 'isInPlace', 'checkBundleContent', 'placeBundle']],
  [/\b(image import|docker load)\b/, ['findNodes', 'checkBundleContent']],
  [/\bimages-for-node\b/, ['setSource', 'cutImages']],
  [/^\s*helm (get values|upgrade|install|rollback|uninstall)\b/m, ['checkCluster', 'lockReleases']],
  [
    /^\s*kubectl (annotate|apply|cordon|create|delete|drain|edit|label|patch|replace|rollout (restart|undo|pause|resume)|scale|set|taint)\b(?!.* --dry-run)/m,
    ['checkCluster', 'lockReleases'],
  ],
  [/^\s*helm upgrade\b/m, ['checkReleases', 'checkImages', 'isDeployed']],
]

/** The words that set a `$name`, for a copy that uses it above them; other names are bash's own affair. */
const SET_BY: Record<string, string> = {
  node: 'onEachNode(…)',
  source: 'setSource(…)',
  revision: 'setLastDeployedRevision(…)',
  time: 'makeBackupDirectory(…)',
  version: 'setVersion(…)',
  imageRegistry: 'setImageRegistry(…)',
}

/** Commands that no copy runs but under the manual's own step. */
const ONLY_THERE = /^\s*helm upgrade\b|\bcharts-syncer sync\b|\bimages-for-node\b/m

/** @throws Failure 70 where a word that must come first, the command's step, or one that sets a `$name`, was not reached */
function refuseOutOfOrder(text: string) {
  const { inputs, reached, step, variables } = thisRun()
  const called = text.split('\n')[0]!
  // what was rendered and looked at is what is run
  if (/^helm upgrade\b/.test(text) && !reached.has(text))
    throw mustComeFirst('checkImages(release, command) of this very command', called)
  for (const [pattern, words] of WORDS_BEFORE) {
    const found = text.split('\n').find((line) => pattern.test(line))
    const absent = found && words.find((each) => !reached.has(each))
    if (absent) throw mustComeFirst(`${absent}(…)`, found.trim())
  }
  const way = { via: inputs.flags.via, kind: inputs.site.chartRepository.kind }
  const steps = stepsFor(inputs.module, way, text)
  // a copy may run a command of its own that looks like one of the manual's, under a heading of its own
  const isElsewhere = step.name ? !steps.includes(step.name) : !step.title || ONLY_THERE.test(text)
  if (steps.length > 0 && isElsewhere) throw mustComeFirst(`step('${steps[0]}')`, called)
  for (const [name, word] of Object.entries(SET_BY)) {
    if (name in variables || !new RegExp(`\\$${name}\\b`).test(text)) continue
    throw bug`
      $${name} is not set: ${word} must come before ${called}
      $${name} 未设置：${word} 必须位于该命令之前：${called}`
  }
}

async function runCommand({ text }: Command, mayChange: boolean): Promise<string> {
  const { dryRun, env, variables, inputs, step, locks, numbers, commands, atWork } = thisRun()
  refuseOutOfOrder(text)
  await unlessEnded(text)
  // of parts that go on side by side, the first prints all of it
  const isKnown = isPart() && !firstTime(`command: ${text}`)
  print(dryRun ? text : isKnown ? `$ ${text.split('\n')[0]} … (as above · 同上)` : `$ ${text}`)
  if (dryRun) {
    commands.push(text)
    return ''
  }
  await recordMachine()
  await unlessEnded(text)
  const number = ++numbers.last
  audit({
    event: 'command',
    number,
    script: inputs.script,
    step: step.title && `${step.title} (${step.lines})`,
    manual: step.lines,
    command: text,
    mayChange,
    variables: usedVariables(text, variables),
  })
  session.run!.hasChanged ||= mayChange
  const limit = timeLimit(inputs.flags)
  const lines = linePrinter()
  const ended = await execute(text, {
    atWork,
    env: { ...env, ...variables },
    cwd: inputs.stateDirectory,
    limit: limit.seconds,
    descriptors: locks,
    onOutput: lines.write,
  })
  lines.end()
  const { exitCode, signal, seconds, timedOut, stdout, stderr } = ended
  audit({ event: 'ended', number, command: text, exitCode, signal, seconds, timedOut })
  const interruption = endingFailure()
  if (interruption) throw await withState(interruption, text)
  commands.push(text)
  if (exitCode === 0 && !timedOut) return stdout
  // flock(1) was told to end with 75 where somebody else holds the lock; it says nothing
  const isLocked = exitCode === EXIT.tryLater && /\bflock -n -E 75 /.test(text)
  const code = timedOut
    ? EXIT.commandFailed
    : isLocked
      ? EXIT.tryLater
      : exitCodeFor(`${stderr}\n${stdout}`)
  const [en, zh] = timedOut
    ? [
        `the command did not end within ${limit.text} (--timeout)`,
        `命令未在 ${limit.text} 内结束（--timeout）`,
      ]
    : isLocked
      ? ['somebody else is at work there: it is locked', '其他人正在操作，已被锁定']
      : [`the command failed with exit code ${exitCode}`, `命令失败，退出码 ${exitCode}`]
  const failure = new Failure(code, en!, zh!).said(redact(tail(stderr || stdout)))
  if (isLogin(code, text)) failure.next(...LOGIN_AGAIN)
  throw await withState(failure, text)
}

/** Did the chart repository refuse the login? */
const isLogin = (code: number, text: string) =>
  code === EXIT.notAllowed && /\bhelm (repo|pull|show|search)\b/.test(text)

const LOGIN_AGAIN: [en: string, zh: string] = [
  'the chart repository refused CHART_REPO_USERNAME and CHART_REPO_PASSWORD; set them anew:\nexport CHART_REPO_USERNAME=…; read -rs CHART_REPO_PASSWORD && export CHART_REPO_PASSWORD',
  'chart 仓库拒绝了该用户名或密码，请按上面的命令重新设置',
]

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
