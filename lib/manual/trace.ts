import { ledger, range, SCRIPT_OF, stepOf, type LedgerRow, type Reason } from './ledger.ts'
import { type Module } from '../inputs/inputs.ts'
import { type RecordedRun } from '../audit/verify.ts'

export type Language = 'en' | 'zh'

/** What each reason means. */
export const REASONS: Record<Reason, [en: string, zh: string]> = {
  misprint: [
    'misprint: it is wrong, or cannot work, as printed',
    '手册笔误：照原文执行会出错，或原文有误',
  ],
  unsafe: [
    'unsafe: it can work, but also fail, give something away, lose or half-do something',
    '不安全：可能可以执行，但也可能失败、泄露或丢失数据，或只执行到一半',
  ],
  ambiguous: [
    'ambiguous: it depends on something that is not said',
    '不明确：取决于手册未说明的内容',
  ],
  unstated: ['unstated: asked for, without a command', '未给出命令：手册只提出了要求'],
  efficient: [
    'efficient: the same result with less time or room',
    '更高效：结果相同，耗时更短或占用资源更少',
  ],
  redundant: ['redundant: another command does it already', '多余：已由其他命令完成'],
  alternative: ['alternative: the other one of two ways', '备选：二选一'],
  value: [
    'value: the site’s in place of a sample or placeholder',
    '取值：以站点的值代替示例或占位符',
  ],
}

/** A line of a manual, and its number. */
export interface ManualLine {
  number: number
  text: string
}

/** A row of the trace: what the manual has, and what is run for it. */
export interface TraceRow {
  lines: string
  is: LedgerRow['is']
  /** none for what no manual has */
  manual: ManualLine[]
  run: string[]
  differs: { lines?: string; reason: string; why: string }[]
}

/** A step of a manual: its rows in the manual's order. */
export interface TraceStep {
  /** the manual's headings and tabs that it stands below, since the step before */
  headings: ManualLine[]
  title: string
  /** kairship.en.md:170-175; undefined for rows that belong to no step */
  where?: string
  script?: string
  rows: TraceRow[]
  /** what a recorded run executed in this step */
  executed: { time: string; command: string; variables: string; ended: string }[]
}

export interface Trace {
  title: string
  /** sha256: of the manual's file */
  manuals: { name: string; sha256: string; steps: TraceStep[] }[]
  /** what is run at no place of the manuals, and why */
  others: { script: string; run: string; why: string }[]
  /** the recorded run, where one was asked for */
  run?: string
  /** what it executed at no place of these manuals */
  executed: TraceStep['executed']
}

/**
 * The manuals of a module line by line, beside what is run for them.
 * @param run a recorded run, whose commands are put to the steps that they were run for
 */
export function traceOf(module: Module, lang: Language, run?: RecordedRun): Trace {
  const pick = (texts: { en: string; zh: string }) => texts[lang]
  let others = (ledger('none').commands ?? []).filter(
    ({ modules }) => !modules || modules.includes(module.name),
  )
  const manuals = module.manuals.map((name) => {
    const all = ledger(name)
    const runs = (all.rows ?? []).flatMap(({ run }) => run ?? [])
    const steps: TraceStep[] = []
    let headings: ManualLine[] = []
    for (const row of all.rows ?? []) {
      // where it stands in the manual, whichever step carries it out
      const step = stepOf(all, { ...row, step: undefined })
      if (!step && row.is === 'heading') {
        headings.push(...linesOf(row))
        continue
      }
      const where = step?.lines && `${all.manual}:${step.lines}`
      if (steps.length === 0 || steps.at(-1)!.where !== where) {
        const script = step && SCRIPT_OF[step.step]
        const options = [
          ...(step?.step === 'install' ? ['--install'] : []),
          ...(step?.via ? [`--via ${step.via}`] : []),
        ]
        const before = others.filter(
          (each) =>
            step &&
            step.step === each.step &&
            (!each.via || each.via === step.via) &&
            !runs.some((run) => run.trimEnd() === each.run.trimEnd()),
        )
        steps.push({
          headings,
          title: step ? pick(step) : pick(NO_STEP),
          where,
          script: script && [`${script}.mts`, ...options].join(' '),
          rows: before.map((each) => ({
            lines: '',
            is: 'command',
            manual: [],
            run: [each.run.trimEnd()],
            differs: [{ reason: pick(NOT_IN_THE_MANUAL), why: pick(each) }],
          })),
          executed: where && run ? executedAt(run, (places) => places.includes(where)) : [],
        })
        headings = []
      }
      steps.at(-1)!.rows.push(rowOf(row, lang))
    }
    return { name: all.manual!, sha256: all.sha256!, steps }
  })
  const shown = new Set(
    manuals.flatMap(({ steps }) => steps.flatMap(({ rows }) => rows.flatMap((row) => row.run))),
  )
  others = others.filter(({ step, run }) => !step || !shown.has(run.trimEnd()))
  const known = new Set(manuals.flatMap(({ steps }) => steps.map(({ where }) => where)))
  return {
    title: `${pick(module.title)} (${module.name})`,
    manuals,
    others: others.map((each) => ({
      script: each.script + (each.via ? ` --via ${each.via}` : ''),
      run: each.run.trimEnd(),
      why: pick(each),
    })),
    run: run && `${run.run}: ${run.start?.['script']}`,
    executed: run ? executedAt(run, (places) => !places.some((place) => known.has(place))) : [],
  }
}

const NO_STEP = { en: 'Between the steps', zh: '步骤之间' }
const NOT_IN_THE_MANUAL = { en: 'not in the manual', zh: '手册中没有' }

function linesOf({ lines, text }: LedgerRow): ManualLine[] {
  const texts = text.replace(/\n$/, '').split('\n')
  return texts.map((text, index) => ({ number: range(lines)[0] + index, text }))
}

function rowOf(row: LedgerRow, lang: Language): TraceRow {
  return {
    lines: row.lines,
    is: row.is,
    manual: linesOf(row),
    run: (row.run ?? []).map((run) => run.trimEnd()),
    differs: (row.differs ?? []).map((each) => ({
      lines: each.line,
      reason: REASONS[each.reason][lang === 'zh' ? 1 : 0].split(/[:：]/)[0]!,
      why: each[lang],
    })),
  }
}

/** The commands that a run recorded at some places of the manuals. */
function executedAt(
  { commands }: RecordedRun,
  isAt: (places: (string | undefined)[]) => boolean,
): TraceStep['executed'] {
  return commands
    .filter(({ command }) => isAt(String(command['manual']).split(', ')))
    .map(({ command, ended }) => ({
      time: command.time,
      command: command['command'],
      variables: Object.entries(command['variables'] ?? {})
        .map(([name, value]) => `${name}=${value}`)
        .join(' '),
      ended: ended ? `exit ${ended['exitCode']}, ${Number(ended['seconds']).toFixed(1)} s` : '–',
    }))
}
