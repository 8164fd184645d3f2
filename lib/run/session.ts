import { AsyncLocalStorage } from 'node:async_hooks'
import { execFile, spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync, readFileSync, readdirSync } from 'node:fs'
import { homedir, hostname, userInfo } from 'node:os'
import { delimiter, dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { audit, auditHead, headForSyslog, note, openAudit, sha256 } from '../audit/write.ts'
import { ROOT } from '../inputs/checked-files.ts'
import { EXIT, Failure, type FailureDetails, UNCHANGED } from '../base/failure.ts'
import { writeWhole } from '../base/files.ts'
import { parseFlags, type FlagName } from '../inputs/flags.ts'
import { readInputs, readModule, type Inputs } from '../inputs/inputs.ts'
import { whileLocked } from '../base/locks.ts'
import { beSilent, labelled, print, redact } from '../base/output.ts'
import { isOrphanOfNpx, unlessEndedWhileIdle, watchSignals } from '../base/processes.ts'
import { quote } from '../base/shell.ts'

/** What is true of this run; the same for the started script and for the phases that it imports. */
interface Run {
  inputs: Inputs
  dryRun: boolean
  /** time of the start, for file names: 20240919T020304Z */
  time: string
  env: NodeJS.ProcessEnv
  /** the shell variables of ours, which commands use as $name */
  variables: Record<string, string>
  /** descriptors of the locks, which commands inherit */
  locks: number[]
  /** scripts that were started and are not finished: the started one, and phases in it */
  depth: number
  /** the heading of the present step */
  step: string
  /** where it stands in the manual */
  stepLines: string
  /** the tools of this script, by their paths */
  tools: string[]
  /** settled when their hashes and the state of the clock are known: before that no command is run */
  machineRecorded?: Promise<unknown>
  /** how many commands were run: as long as it is none, nothing was changed */
  commandsRun: number
  /** when it was started, in milliseconds */
  startedAt: number
  /** checks that are made once in a run, whichever phase comes first */
  made: Set<string>
  /** adds the state of things to a failure */
  describeFailure?: (failure: Failure) => Promise<Failure>
  /** what --json prints of this run */
  results: Record<string, unknown>
  /** finds out what became of the releases, for a failure */
  describeState?: () => Promise<Partial<FailureDetails>>
}

let current: Run | undefined

/** parts of the run that go on side by side, one for each node */
const parts = new AsyncLocalStorage<Run>()

/** The run that is going on, or the part of it that asks. */
export function thisRun(): Run {
  const run = parts.getStore() ?? current
  if (!run) throw new Error('start() has not been called')
  return run
}

/** Tells a command of this run from another one with the same text. */
export const nextNumber = () => ++numbers
let numbers = 0

/** Is this a part of the run, beside others? */
export const isPart = () => parts.getStore() !== undefined

/**
 * Does a part of the work beside other parts: it has variables, locks, a step and a state of its own;
 * all else is the run's. What it prints begins with its label.
 */
export function inPart<T>(label: string, work: () => Promise<T>): Promise<T> {
  const run = thisRun()
  const own = { variables: { ...run.variables }, locks: [...run.locks], step: run.step }
  const part: Run = Object.assign(Object.create(run), { ...own, commandsRun: 0 })
  return labelled(label, () => parts.run(part, work))
}

const runId = ({ time }: Run) => `${time}-${process.pid}`

/** Is it the first time in this run? An imported phase need not repeat what its importer did. */
export function firstTime(name: string): boolean {
  const { made } = thisRun()
  const first = !made.has(name)
  made.add(name)
  return first
}

/** What a script needs to know. */
export type Started = Pick<Inputs, 'module' | 'releases' | 'site' | 'flags'>

/**
 * Begins a script: reads flags, descriptor and site file (once, for the script that was started; an
 * imported phase gets the same), opens the audit and goes to the module's directory.
 * @param scriptUrl `import.meta.url`
 * @param names the flags that the script takes besides --module, --site, --timeout, --ticket, --dry-run
 * @param tools the programs that it needs on PATH; where that depends on the inputs, as they say
 * @throws Failure 64 wrong usage · 73 nothing can be written · 78 wrong site file or descriptor, or a tool is missing
 */
export async function start(
  scriptUrl: string,
  names: FlagName[],
  tools: string[] | ((inputs: Inputs) => string[]),
): Promise<Started> {
  if (current) {
    current.depth++
    return current.inputs
  }
  process.on('exit', endOfProcess)
  // the reader of a pipe may end first (`… | tee log`, Ctrl-C): the work goes on, and is recorded
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
  const inputs = readInputs(scriptUrl, names)
  Failure.stepOf = () => thisRun().step
  const time = new Date().toISOString().replace(/[-:]|\.\d+/g, '')
  current = {
    inputs,
    dryRun: inputs.flags['dry-run'],
    time,
    env: environment(inputs),
    variables: {},
    locks: [],
    depth: 1,
    step: '',
    stepLines: '',
    commandsRun: 0,
    startedAt: Date.now(),
    made: new Set(),
    tools: [],
    results: {},
  }
  if (!current.dryRun && (inputs.flags.quiet || inputs.flags.json)) beSilent()
  if (current.dryRun) printHeader(current)
  else begin(current, typeof tools === 'function' ? tools(inputs) : tools)
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
  exitAsFailed()
  return readInputs(scriptUrl, names, orders)
}

/** The exit code of a script without a record: that of the failure that was printed. */
function exitAsFailed() {
  process.on('exit', () => {
    if (Failure.last) process.exitCode = Failure.last.exitCode
  })
}

/**
 * The same for a script that needs no site.
 * @throws Failure 64 wrong usage · 78 wrong descriptor
 */
export function startReaderOfModule(
  scriptUrl: string,
  names: FlagName[],
): Pick<Inputs, 'module' | 'flags'> {
  exitAsFailed()
  const flags = parseFlags(fileURLToPath(scriptUrl), names, [])
  return { flags, module: readModule(flags.module).module }
}

/**
 * Ends a script that did all of its work; without it the exit code is 70. In an imported phase it
 * ends the phase only.
 */
export async function finish() {
  const run = thisRun()
  await unlessEndedWhileIdle()
  if (run.depth === 1 && !run.dryRun) {
    const { inputs } = run
    const { script, module, stateDirectory } = inputs
    const path = join(stateDirectory, 'last-success.json')
    const time = new Date().toISOString()
    audit({ event: 'end', exitCode: 0 })
    const success = { time, script, module: module.name, run: runId(run), auditHead: auditHead() }
    // two scripts of one module may end at the same time
    whileLocked(join(stateDirectory, 'audit.jsonl'), 'a+', () =>
      writeWhole(path, JSON.stringify({ ...lastSuccess(path), [script]: success }, null, 2) + '\n'),
    )
    toSyslog(inputs)
    printResults(0)
    print(
      `\nDONE · 完成  ${script} --module ${module.name}  (audit head · 审计日志末条记录的哈希: ${auditHead()})\n`,
    )
  }
  run.depth--
}

/** When a script last ended well for this module, in milliseconds since 1970; 0 where it never did. */
export function lastTimeDone(): number {
  const { stateDirectory, script } = thisRun().inputs
  const success = lastSuccess(join(stateDirectory, 'last-success.json'))[script]
  return Date.parse((success as { time?: string } | undefined)?.time ?? '') || 0
}

function lastSuccess(path: string): Record<string, unknown> {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    return {}
  }
}

/** Hands the head of the audit to syslog, where it is out of reach for who changes the file. */
function toSyslog({ script, module, site }: Inputs) {
  if (!existsSync('/dev/log')) return
  const text = `${script} ${headForSyslog(module.name, site.name)}`
  // where it fails: the head is printed too
  spawnSync('logger', ['-t', 'dce-upgrade', text], { timeout: 5000, stdio: 'ignore' })
}

/** Adds to what --json prints. */
export function result(fields: Record<string, unknown>) {
  Object.assign(thisRun().results, fields)
}

/** What --json prints at the end, however it ends. */
function printResults(exitCode: number, failure?: Failure) {
  if (!current?.inputs.flags.json || current.dryRun) return
  const { script, module } = current.inputs
  const { en, zh, step } = failure ?? {}
  const outcome = {
    script,
    module: module.name,
    run: runId(current),
    exitCode,
    ...current.results,
    ...(failure && { failure: { en, zh, step } }),
  }
  process.stdout.write(redact(JSON.stringify(outcome)) + '\n')
}

/** The last thing that happens: the exit code and the last record of the audit. */
function endOfProcess() {
  if (current?.depth === 0 || (!current && !Failure.last && !process.exitCode)) return
  const failure = Failure.last
  const exitCode = failure?.exitCode ?? EXIT.defect
  process.exitCode = exitCode
  if (!failure) {
    process.stderr.write(
      '\nthe script ended before its end; this is a defect (exit 70) · 脚本未执行完毕即退出，属于脚本缺陷\n',
    )
  }
  if (current?.dryRun) return
  printResults(exitCode, failure)
  try {
    audit({ event: 'end', exitCode, failure: failure && redact(failure.en), step: failure?.step })
    if (!current) return
    toSyslog(current.inputs)
    process.stderr.write(`audit head · 审计日志末条记录的哈希: ${auditHead()}\n`)
  } catch {
    // the failure that is being reported is the one that counts
  }
}

/**
 * The environment of every command: the site's cluster, a helm configuration of the module's own, and
 * none of the operator's settings that would lead helm elsewhere.
 */
function environment({ site, sitePath, stateDirectory }: Inputs): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = { ...process.env, LC_ALL: 'C' }
  for (const name of [
    'HELM_KUBECONTEXT',
    'HELM_KUBEAPISERVER',
    'HELM_KUBETOKEN',
    'HELM_KUBECAFILE',
    'HELM_KUBEASUSER',
    'HELM_KUBEASGROUPS',
    'HELM_NAMESPACE',
    'HELM_KUBEINSECURE_SKIP_TLS_VERIFY',
    'HELM_KUBETLS_SERVER_NAME',
    'HELM_DEBUG',
    'BASH_ENV',
    'NODE_OPTIONS',
  ]) {
    delete env[name]
  }
  return {
    ...env,
    KUBECONFIG: [
      join(stateDirectory, '.helm/context.yaml'),
      kubeconfigPath(site.kubeconfig, sitePath),
    ].join(delimiter),
    HELM_REPOSITORY_CONFIG: join(stateDirectory, '.helm/repositories.yaml'),
    HELM_REPOSITORY_CACHE: join(stateDirectory, '.helm/cache'),
    HELM_REGISTRY_CONFIG: join(stateDirectory, '.helm/registry.json'),
    // lib/bin/docker-credential-chart-repo gives helm the login of an OCI repository
    PATH: `${process.env['PATH']}${delimiter}${join(ROOT, 'lib/bin')}`,
  }
}

/** The kubeconfig that the site file names: absolute, ~/…, or relative to the site file. */
export function kubeconfigPath(kubeconfig: string, sitePath: string): string {
  return resolve(dirname(sitePath), kubeconfig.replace(/^~(?=\/)/, homedir()))
}

function printHeader({ inputs }: Run) {
  const { script, module, site, flags, sitePath, stateDirectory } = inputs
  const directory = quote(relative(process.cwd(), stateDirectory))
  const kubeconfig = /^[~/]/.test(site.kubeconfig)
    ? site.kubeconfig
    : relative(stateDirectory, kubeconfigPath(site.kubeconfig, sitePath))
  // lib/bin/docker-credential-chart-repo gives helm the login from the environment
  const isOci = site.chartRepository.kind === 'OCI' && site.chartRepository.login
  const root = join(relative(process.cwd(), ROOT), 'lib/bin')
  const oci = isOci ? `export PATH=$PATH:$PWD/${quote(root)}\n` : ''
  const registry = isOci
    ? `echo ${quote(credentialHelpers(site.chartRepository.url!))} > .helm/registry.json\n`
    : ''
  print(`#!/usr/bin/env bash
# ${script}: ${module.title.en} · ${module.title.zh} (${module.name})${inputs.takesVia ? `, via ${flags.via}` : ''}
# A dry run: nothing was run. What only a real run can know is written {like_this}.
# 试运行（dry run）：未执行任何命令。只有实际执行时才能得知的值写作 {like_this}。
set -euo pipefail
umask 077
${oci}mkdir -p ${directory}/.helm && cd ${directory}
# the context ${site.context}, whatever else the terminal uses; a helm configuration of its own
# 固定使用 context ${site.context}；使用独立的 helm 配置
printf 'apiVersion: v1\\nkind: Config\\ncurrent-context: %s\\n' ${quote(site.context)} > .helm/context.yaml
export KUBECONFIG=$PWD/.helm/context.yaml:${kubeconfig}
export HELM_REPOSITORY_CONFIG=$PWD/.helm/repositories.yaml
export HELM_REPOSITORY_CACHE=$PWD/.helm/cache
export HELM_REGISTRY_CONFIG=$PWD/.helm/registry.json
${registry}`)
}

/** helm's registry configuration that asks lib/bin/docker-credential-chart-repo for the login of a repository. */
export function credentialHelpers(url: string): string {
  const host = url.replace(/^oci:\/\//, '').split('/')[0]!
  return JSON.stringify({ credHelpers: { [host]: 'chart-repo' } })
}

/** A real run: tools, directory, audit. */
function begin(run: Run, tools: string[]) {
  const { inputs, env } = run
  const { script, module, site, flags, stateDirectory } = inputs
  process.umask(0o077)
  const context = `apiVersion: v1\nkind: Config\ncurrent-context: ${JSON.stringify(site.context)}\n`
  writeWhole(join(stateDirectory, '.helm/context.yaml'), context)
  openAudit(join(stateDirectory, 'audit.jsonl'), runId(run))
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
    throw new Failure(
      EXIT.configuration,
      `not found on PATH: ${missing.join(', ')} (PATH=${process.env['PATH']})`,
      `PATH 中找不到：${missing.join('、')}（PATH=${process.env['PATH']}）`,
      {
        next: [
          'install it, or put its directory on PATH (cron knows /usr/bin:/bin only)',
          '请安装，或将其所在目录加入 PATH（cron 默认只有 /usr/bin:/bin）',
        ],
      },
    )
  }
  if (isOrphanOfNpx()) {
    throw new Failure(
      128 + 1,
      'ended: the npx that started this script is gone',
      '启动本脚本的 npx 已退出，脚本随之终止',
      { state: UNCHANGED, next: ['run the same command again', '请重新执行同一命令'] },
    )
  }
  run.tools = tools.map((tool) => onPath(tool, env['PATH']!)!)
  watchSignals((failure) =>
    run.describeFailure ? run.describeFailure(failure) : Promise.resolve(failure),
  )
  print(
    `${script} --module ${module.name}${inputs.takesVia ? ` --via ${flags.via}` : ''} --site ${flags.site}  (${module.title.en} · ${module.title.zh})\n`,
  )
}

/**
 * Records the sha256 of the tools and the state of the clock, once in a run that uses a tool. The
 * tools are large: it begins with the first question, and is awaited before the first command.
 */
export function recordMachine(): Promise<unknown> {
  const run = current!
  run.machineRecorded ??= Promise.all([hashTools(run.tools), askClock()])
  // a failure shows where it is awaited
  run.machineRecorded.catch(() => {})
  return run.machineRecorded
}

async function hashTools(paths: string[]) {
  const { stdout } = await promisify(execFile)('sha256sum', paths)
  const lines = stdout.trimEnd().split('\n')
  // hash, two characters, path
  note({
    event: 'tools',
    sha256: Object.fromEntries(lines.map((line) => [line.slice(66), line.slice(0, 64)])),
  })
}

/** Notes whether the clock, and so each time in the audit, is synchronized: yes, no, or unknown without systemd. */
async function askClock() {
  const options = { timeout: 5000, env: { ...process.env, LC_ALL: 'C' } }
  const asked = promisify(execFile)('timedatectl', ['status'], options)
  const { stdout } = await asked.catch(() => ({ stdout: '' }))
  // systemd 219 calls it NTP synchronized, later ones System clock synchronized
  const [, synchronized = 'unknown'] = /synchronized: (yes|no)/.exec(stdout) ?? []
  note({ event: 'clock', synchronized })
}

/** Where the program stands that the shell would run. */
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

function whoRuns() {
  const { SUDO_USER: sudoUser, SSH_CONNECTION: sshConnection } = process.env
  let loginUid: string | undefined
  try {
    loginUid = readFileSync('/proc/self/loginuid', 'utf8')
  } catch {
    // not every kernel keeps it
  }
  return { user: userInfo().username, uid: userInfo().uid, sudoUser, sshConnection, loginUid }
}

/**
 * The sha256 of all that decides what is run, since an engineer may have adapted a copy: the scripts
 * beside the started one, every file below lib/, schemas, ledgers, the descriptor and the site file.
 */
function filesThatRun({ scriptPath, modulePath, sitePath }: Inputs): Record<string, string> {
  const ours = ['lib', 'modules/schemas', 'modules/manuals'].map((part) => join(ROOT, part))
  const code = [
    ...filesIn(dirname(scriptPath), false).filter((file) => /\.m?[jt]s$/.test(file)),
    ...ours.flatMap((directory) => filesIn(directory, true)),
  ]
  return Object.fromEntries(
    [...code, modulePath, sitePath].map((path) => [
      relative(ROOT, path),
      sha256(readFileSync(path)),
    ]),
  )
}

function filesIn(directory: string, recursive: boolean): string[] {
  const entries = readdirSync(directory, { recursive, withFileTypes: true })
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
}
