import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { headForSyslog } from '../audit/write.ts'
import { bug, EXIT, Failure } from '../base/failure.ts'
import { writeWhole } from '../base/files.ts'
import { whileLocked } from '../base/locks.ts'
import { redact } from '../base/output.ts'
import { ROOT } from '../base/root.ts'
import { audit, print, type Run, runId, session, thisRun } from './session.ts'

/** Ends a run that did all of its work: the last record, last-success.json, syslog, the last line. */
export function endWell(run: Run) {
  const { inputs, trail } = run
  const { script, module, stateDirectory } = inputs
  audit({ event: 'end', exitCode: 0 })
  const { head } = trail!
  const time = new Date().toISOString()
  const success = { time, script, module: module.name, run: runId(run), auditHead: head }
  const path = join(stateDirectory, 'last-success.json')
  // two scripts of one module may end at the same time
  whileLocked(join(stateDirectory, 'audit.jsonl'), 'a+', () =>
    writeWhole(path, JSON.stringify({ ...lastSuccess(path), [script]: success }, null, 2) + '\n'),
  )
  toSyslog(run)
  printResults(run, 0)
  print(
    `\nDONE · 完成  ${script} --module ${module.name}  (audit head · 审计日志末条记录的哈希: ${head})\n`,
  )
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
function toSyslog({ inputs: { script, module, site }, trail }: Run) {
  if (!trail || !existsSync('/dev/log')) return
  const text = `${script} ${headForSyslog(trail, module.name, site.name)}`
  // where it fails: the head is printed too
  spawnSync('logger', ['-t', 'dce-upgrade', text], { timeout: 5000, stdio: 'ignore' })
}

/** What --json prints at the end, however it ends. */
function printResults(run: Run, exitCode: number, failure?: Failure) {
  const { script, module, flags } = run.inputs
  if (!flags.json || run.dryRun) return
  const outcome = {
    script,
    module: module.name,
    run: runId(run),
    exitCode,
    ...run.results,
    ...(failure && {
      failure: { en: failure.text('en'), zh: failure.text('zh'), step: failure.step },
    }),
  }
  process.stdout.write(redact(JSON.stringify(outcome)) + '\n')
}

/** The last thing that happens: the exit code and the last record of the audit. */
export function endOfProcess() {
  const { run, failure } = session
  if (run?.depth === 0 || (!run && !failure)) return
  const exitCode = failure?.exitCode ?? EXIT.bug
  process.exitCode = exitCode
  if (!failure) {
    process.stderr.write(
      '\nfinish() was not reached: the script, or a phase in it, ended before its end (exit 70)\n未执行到 finish()：脚本或其中某一阶段提前结束（退出码 70）\n',
    )
  }
  if (!run || run.dryRun) return
  printResults(run, exitCode, failure)
  try {
    const words = failure && redact(failure.text('en'))
    audit({ event: 'end', exitCode, failure: words, step: failure?.step })
    toSyslog(run)
    if (run.trail?.head)
      process.stderr.write(`audit head · 审计日志末条记录的哈希: ${run.trail.head}\n`)
  } catch {
    // the failure that is being reported is the one that counts
  }
}

/**
 * zx prints what ended a script with console.error (zx 8.8.5 src/cli.ts). What nobody foresaw, such as
 * a name that a copy of a script does not have, is told as a bug with its place, not as a stack.
 */
export function tellUnforeseen() {
  const print = console.error
  console.error = (...words: unknown[]) =>
    print(
      ...words.map((each) =>
        each instanceof Error && !(each instanceof Failure) ? unforeseen(each) : each,
      ),
    )
  // for example of a phase that a copy imports without await: node would print a raw stack
  process.on('unhandledRejection', (reason) => {
    if (session.run) session.run.isRefused = true
    if (session.failure) return
    const { en } = reason instanceof Failure ? reason : unforeseen(reason as Error)
    console.error(
      bug`
        await is missing before the import of a phase, or before a word: nothing waited for what failed
        导入阶段或调用语句之前缺少 await：失败时没有语句在等待`.said(en),
    )
  })
}

function unforeseen({ name, message, stack = '' }: Error): Failure {
  const places = [...stack.matchAll(/(file:\/\/\/\S+?|\/\S+?):(\d+):\d+/g)]
    .map(([, file, line]) => {
      const path = file!.startsWith('file:') ? fileURLToPath(file!) : file!
      return `${relative(ROOT, path)}:${line}`
    })
    .filter((place) => !/node_modules|^\.\./.test(place))
  const [place = 'a place that is not known'] = places
  const [, early] = /^Cannot access '(.+)' before initialization$/.exec(message) ?? []
  const [, unset = early] = /^(.+) is not defined$/.exec(message) ?? []
  const failure = unset
    ? bug`
      ${unset} is used at ${place}, ${early ? 'above the line that sets it' : 'but no line above sets it'}
      ${place} 处使用了 ${unset}，${early ? '早于设置它的语句' : '但其上没有设置它的语句'}`
    : bug`
      unexpected error at ${place}: ${name}: ${message}
      ${place} 处出现意外错误：${name}: ${message}`.said(places.slice(1, 8).join('\n'))
  return failure.next`
    in a copy of a script, compare with the original; else report this bug
    若为脚本副本，请与原脚本比较；否则请报告此缺陷`
}
