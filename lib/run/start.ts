import { accessSync, constants } from 'node:fs'
import { hostname } from 'node:os'
import { basename, delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { filesThatRun, whoRuns } from '../audit/machine.ts'
import { openTrail } from '../audit/write.ts'
import { bug, EXIT, Failure, misconfigured } from '../base/failure.ts'
import { writeWhole } from '../base/files.ts'
import { isOrphanOfNpx, unlessEndedWhileIdle, watchSignals } from '../base/processes.ts'
import { parseFlags } from '../inputs/command-line.ts'
import { type FlagName } from '../inputs/flags.ts'
import { readInputs } from '../inputs/inputs.ts'
import { readModule } from '../inputs/module.ts'
import { type Inputs } from '../inputs/types.ts'
import { withState } from './ask.ts'
import { contextFile, environment, headerOf } from './environment.ts'
import { refuseUnawaited } from './order.ts'
import { endOfProcess, endWell, tellUnforeseen } from './outcome.ts'
import { audit, print, type Run, runId, session, thisRun } from './session.ts'

tellUnforeseen()
process.on('exit', endOfProcess)

/** What a script needs to know. */
export type Started = Pick<Inputs, 'module' | 'releases' | 'site' | 'flags'>

/**
 * Begins a script: reads flags, descriptor and site file (once, for the script that was started; an
 * imported phase gets the same), opens the audit and goes to the module's directory.
 * @param scriptUrl `import.meta.url`
 * @param names the flags that the script takes besides --module, --site, --timeout, --ticket, --lang, --dry-run
 * @param tools the programs that it needs on PATH; where that depends on the inputs, as they say
 * @throws Failure 64 wrong usage · 73 nothing can be written · 78 wrong site file or descriptor, or a tool is missing
 */
export function start(
  scriptUrl: string,
  names: FlagName[],
  tools: string[] | ((inputs: Inputs) => string[]),
): Started {
  if (session.run) {
    refuseUnawaited('start(…)')
    session.run.depth++
    return session.run.inputs
  }
  // the reader of a pipe may end first (`… | tee log`, Ctrl-C): the work goes on, and is recorded
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
  const inputs = readOrHelp(scriptUrl, () => readInputs(scriptUrl, names))
  const { flags } = inputs
  const dryRun = flags['dry-run']
  const run: Run = (session.run = {
    inputs,
    dryRun,
    isSilent: !dryRun && (flags.quiet || flags.json),
    time: new Date().toISOString().replace(/[-:]|\.\d+/g, ''),
    startedAt: Date.now(),
    env: environment(inputs),
    variables: {},
    locks: [],
    depth: 1,
    step: { title: '', lines: '' },
    tools: [],
    machine: {},
    numbers: { last: 0 },
    commands: [],
    hasChanged: false,
    reached: new Set(),
    owed: new Set(),
    atWork: { groups: new Set() },
    results: {},
  })
  const programs = typeof tools === 'function' ? tools(inputs) : tools
  if (dryRun) print(headerOf(inputs, programs))
  else begin(run, programs)
  return inputs
}

/**
 * Begins a script that changes nothing and leaves no record.
 * @param scriptUrl `import.meta.url`
 * @param names the flags that it takes besides --module and --site
 * @param orders the words of which one comes first; [] where it has none
 * @throws Failure 64 wrong usage · 78 wrong site file or descriptor
 */
export function startReader(scriptUrl: string, names: FlagName[], orders: string[]): Inputs {
  return readOrHelp(scriptUrl, () => readInputs(scriptUrl, names, orders))
}

/** Names --help where the command line is wrong. */
function readOrHelp<T>(scriptUrl: string, read: () => T): T {
  try {
    return read()
  } catch (failure) {
    const help = `npx zx scripts/${basename(fileURLToPath(scriptUrl))} --help`
    if (failure instanceof Failure && failure.exitCode === EXIT.usage)
      failure.details.next ??= [`${help}  shows every flag`, `${help}  查看所有参数`]
    throw failure
  }
}

/**
 * The same for a script that needs no site.
 * @throws Failure 64 wrong usage · 78 wrong descriptor
 */
export function startReaderOfModule(
  scriptUrl: string,
  names: FlagName[],
): Pick<Inputs, 'module' | 'flags'> {
  return readOrHelp(scriptUrl, () => {
    const flags = parseFlags(fileURLToPath(scriptUrl), names, [])
    return { flags, module: readModule(flags.module).module }
  })
}

/**
 * Ends a script that did all of its work; without it the exit code is 70. In an imported phase it
 * ends the phase only.
 * @throws Failure 70 naming the checks that were not reached
 */
export async function finish() {
  const run = thisRun('finish()')
  refuseUnawaited('finish()')
  await unlessEndedWhileIdle(run.atWork)
  if (run.depth === 1) {
    if (run.owed.size > 0) {
      const failure = bug`
        what was done was not checked; these were not reached before finish():
        以下检查在 finish() 之前未执行，无法确认结果：`.items([...run.owed])
      throw run.dryRun ? failure : await withState(failure)
    }
    if (!run.dryRun) endWell(run)
  }
  run.depth--
}

/** A real run: tools, directory, audit. */
function begin(run: Run, tools: string[]) {
  const { inputs, env } = run
  const { script, module, site, flags, stateDirectory } = inputs
  process.umask(0o077)
  writeWhole(join(stateDirectory, '.helm/context.yaml'), contextFile(site))
  run.trail = openTrail(join(stateDirectory, 'audit.jsonl'), runId(run))
  audit({
    event: 'start',
    script,
    module: module.name,
    arguments: { ...flags },
    ticket: flags.ticket,
    who: whoRuns(),
    host: hostname(),
    files: filesThatRun(inputs),
  })
  const missing = tools.filter((tool) => !onPath(tool, env['PATH']!))
  if (missing.length > 0) {
    throw misconfigured`
      not found on PATH: ${missing.join(', ')} (PATH=${process.env['PATH']})
      PATH 中找不到：${missing.join('、')}（PATH=${process.env['PATH']}）`.next`
      install it, or put its directory on PATH (cron knows /usr/bin:/bin only)
      请安装，或将其所在目录加入 PATH（cron 默认只有 /usr/bin:/bin）`
  }
  if (isOrphanOfNpx()) {
    throw new Failure(
      128 + 1,
      'ended: the npx that started this script is gone',
      '启动本脚本的 npx 已退出，脚本随之终止',
    ).next`
      run the same command again
      请重新执行同一命令`
  }
  run.tools = tools.map((tool) => onPath(tool, env['PATH']!)!)
  watchSignals(run.atWork, (failure) => withState(failure))
  print(
    `${script} --module ${module.name}${inputs.takesVia ? ` --via ${flags.via}` : ''} --site ${flags.site}  (${module.title.en} · ${module.title.zh})\n`,
  )
}

/** Where the program is that the shell would run. */
function onPath(tool: string, path: string): string | undefined {
  const isProgram = (file: string) => {
    try {
      accessSync(file, constants.X_OK)
      return true
    } catch {
      return false
    }
  }
  return path
    .split(delimiter)
    .map((directory) => join(directory, tool))
    .find(isProgram)
}
