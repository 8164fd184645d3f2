import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { EXIT, Failure, missing } from '../base/failure.ts'
import { whileLocked } from '../base/locks.ts'
import { type FlagName, type Flags } from '../inputs/flags.ts'
import { readInputs } from '../inputs/inputs.ts'
import { type Inputs } from '../inputs/types.ts'
import { describeRun, type RecordedRun, runsOf } from './show.ts'
import { readTrail, type Tampered, type Trail } from './verify.ts'
import { syslogWords } from './write.ts'

/** What was read, and the heads that it was held against. */
interface ReadTrail extends Trail {
  path: string
  heads: string[]
}

/**
 * Reads a module's audit, and holds it against all heads that are known: --head, those in syslog, and
 * those of `last-success.json`.
 * @throws Failure 66 where there is none
 */
export async function readTrailOf(inputs: Inputs): Promise<ReadTrail> {
  const { stateDirectory, flags, module, site } = inputs
  const path = join(stateDirectory, 'audit.jsonl')
  if (!existsSync(path)) {
    throw missing`
      the audit ${path} does not exist: nothing was run for ${module.name} at ${site.name}, or it was removed
      没有审计日志 ${path}：${site.name} 的 ${module.name} 从未执行过，或日志已被删除`
  }
  // not while a script is writing a record
  const bytes = whileLocked(path, 'r', (descriptor) => readFileSync(descriptor))
  const heads = [
    ...(flags.head ? [flags.head] : []),
    ...(await headsInSyslog(syslogWords(module.name, site.name, bytes))),
    ...headsOfSuccess(join(stateDirectory, 'last-success.json')),
  ]
  return { path, heads, ...readTrail(bytes, heads) }
}

/** What the scripts have handed to syslog: the journal, or the files of rsyslog. */
async function headsInSyslog(words: string): Promise<string[]> {
  const journal = promisify(execFile)(
    'journalctl',
    ['--identifier=dce-upgrade', '--no-pager', '--output=cat'],
    { timeout: 20_000, maxBuffer: 1 << 28 },
  )
  const texts = [await journal.then(({ stdout }) => stdout).catch(() => '')]
  for (const file of ['/var/log/syslog', '/var/log/messages']) {
    try {
      texts.push(readFileSync(file, 'utf8'))
    } catch {
      // it is not there, or not for us
    }
  }
  return texts.flatMap((text) =>
    text
      .split(words)
      .slice(1)
      .flatMap((rest) => /^[0-9a-f]{64}/.exec(rest) ?? []),
  )
}

function headsOfSuccess(path: string): string[] {
  try {
    const scripts: { auditHead?: string }[] = Object.values(JSON.parse(readFileSync(path, 'utf8')))
    return scripts.flatMap(({ auditHead }) => (auditHead ? [auditHead] : []))
  } catch {
    return []
  }
}

/**
 * A recorded run of the site, out of an audit that is as it was written.
 * @param names the flags of the script
 * @throws Failure 66 no such run · 65 the audit was changed
 */
export async function recordedRun(
  scriptUrl: string,
  names: FlagName[],
  id: string,
): Promise<RecordedRun> {
  const trail = await readTrailOf(readInputs(scriptUrl, names, []))
  if (trail.tampered) throw notAsWritten(trail.path, trail.tampered)
  return pickRun(runsOf(trail.records), id)
}

function pickRun(all: RecordedRun[], id: string): RecordedRun {
  const found = all.find(({ run }) => run === id)
  if (found) return found
  const last = all.slice(-5).map(({ run }) => run)
  throw missing`
    run ${id} does not exist; the last ones are ${last.join(', ')}
    没有运行 ${id}；最近几次为 ${last.join('、')}`
}

/** Prints the runs, for people or, with --json, for machines. @throws Failure 66 no such run */
export function showRuns({ records }: Trail, { run: id, json, lang = 'en' }: Flags) {
  const all = runsOf(records)
  const runs = id ? [pickRun(all, id)] : all
  if (json) console.log(JSON.stringify(runs, null, 2))
  else console.log(runs.map((run) => describeRun(run, lang)).join('\n\n') + '\n')
}

/**
 * Says whether the trail is as it was written.
 * @throws Failure 65 naming the first line that is not
 */
export function tellVerdict(
  { path, records, head, heads, behind, tampered }: ReadTrail,
  { lang, order, json }: Flags,
) {
  if (tampered) throw notAsWritten(path, tampered)
  if (order === 'show' && json) return
  const say = (en: string, zh: string) => console.log(lang === 'zh' ? zh : en)
  const known = new Set(heads).size
  say(
    `${path}: ${records.length} records, as they were written (held against ${known} known heads). Head: ${head}`,
    `${path}：${records.length} 条记录，与写入时一致（已与 ${known} 个已知哈希比对）。末条记录的哈希：${head}`,
  )
  if (behind > 0 && known === 0)
    say(
      'No head is known: nobody can tell whether its end was cut off. Give one with --head',
      '没有已知的哈希：无法判断末尾是否被截断。请使用 --head',
    )
  else if (behind > 0)
    say(
      `${behind} records are behind the last known head: nobody can tell whether some were cut off there, or added. Give a newer one with --head`,
      `最后一个已知哈希之后还有 ${behind} 条记录：其后是否被截断或追加，无法判断。请用 --head 给出更新的哈希`,
    )
}

const notAsWritten = (path: string, { line, en, zh }: Tampered): Failure =>
  new Failure(
    EXIT.badAudit,
    `${path} is not as it was written, line ${line}: ${en}`,
    `${path} 与写入时不一致，第 ${line} 行：${zh}`,
  ).next`
    keep the file as it is; compare it with a backup of it, or with what syslog has
    请保留原文件，并与其备份或 syslog 中的记录比较`
