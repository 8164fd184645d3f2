import escapeHtml from 'escape-html'
import { visible } from '../audit/verify.ts'
import { REASONS, type Language, type ManualLine, type Trace, type TraceRow } from './trace.ts'

const WORDS = {
  en: {
    heading: 'The commands of the manual, line by line, beside what is run',
    manual: 'the manual',
    run: 'what we run',
    same: 'as the manual has it',
    nothing: 'no command of its own',
    output: 'sample output',
    file: 'content of a file',
    remark: 'a remark',
    executed: 'executed in the run',
    notExecuted: 'not executed in this run',
    elsewhere: 'executed in the run, at no place of these manuals',
    others: 'Commands that no manual has',
    reasons: 'The reasons',
    values:
      'Shown are the headings of the manual, every line of its code fences, and the text that asks for something. Hosts and names are those of site.example.yaml; {like_this} on the right is known in a run only. Commands are run in state/<site>/<module>/ beside the site file, with the kubeconfig and context of the site file and a helm configuration of their own; where one fails, also within a pipe, the script ends there (set -euo pipefail). $CHART_REPO_* and $REGISTRY_* are the logins, from the environment. The images come first, by sync-images or load-images; upgrade runs helm-repo (via repo), backup-values and update-crds (where the module has CRDs) by itself, in this order. Checks (files read back, the cluster, registry and nodes asked before and after) and files that the scripts write themselves are no commands and not listed; the output of a dry run names each at its place.',
    sign: ['Checked by', 'Date', 'Signature'],
  },
  zh: {
    heading: '手册命令逐行对照',
    manual: '手册',
    run: '将执行的命令',
    same: '与手册一致',
    nothing: '没有单独的命令',
    output: '示例输出',
    file: '文件内容',
    remark: '注释',
    executed: '该次运行中执行的命令',
    notExecuted: '该次运行中未执行',
    elsewhere: '该次运行中执行、但不属于上述手册任何步骤的命令',
    others: '手册中没有的命令',
    reasons: '差异原因',
    values:
      '本页列出手册的标题、代码块中的每一行，以及正文中提出要求的内容。主机和名称取自 site.example.yaml；右侧形如 {like_this} 的占位符，其值在运行时才能确定。命令在站点配置旁的 state/<站点>/<模块>/ 中执行，使用站点配置中的 kubeconfig 和 context，以及独立的 helm 配置；任一命令（包括管道中的命令）失败，脚本即在此处终止（set -euo pipefail）。$CHART_REPO_* 和 $REGISTRY_* 为登录信息，取自环境变量。先用 sync-images 或 load-images 准备镜像；upgrade 会自行依次执行 helm-repo（via repo）、backup-values 和 update-crds（模块有 CRD 时）。检查（读回文件，执行前后查询集群、镜像仓库和节点）以及脚本自行写入的文件不是命令，未在此列出；试运行（dry run）的输出会在相应位置逐一列出。',
    sign: ['核对人', '日期', '签名'],
  },
} as const

/** Is there nothing to put beside it: an output, a remark, an empty line? */
const isAside = ({ is }: TraceRow) => is === 'output' || is === 'remark' || is === 'blank'

const numbered = ({ number, text }: ManualLine) => `${String(number).padStart(4)}  ${text}`

const isSame = ({ run, manual, differs }: TraceRow) =>
  differs.length === 0 && run.join('\n') === manual.map(({ text }) => text).join('\n')

/** For the terminal: two columns, the reasons below. */
export function toTerminal(trace: Trace, lang: Language, columns = 120): string {
  const words = WORDS[lang]
  const half = Math.floor((columns - 3) / 2)
  const executed = (commands: Trace['executed'], indent: string) =>
    commands.flatMap(({ time, command, variables, ended }) => [
      `${indent}${time}  ${ended}`,
      ...`${command}\n${variables}`
        .trimEnd()
        .split('\n')
        .map((line) => `${indent}  ${line}`),
    ])
  const out = [`${words.heading}: ${trace.title}`, words.values]
  if (trace.run) out.push(`${words.executed} ${trace.run}`)
  for (const { name, sha256, steps } of trace.manuals) {
    out.push('', `=== ${name} ===`, `sha256 ${sha256}`)
    for (const step of steps) {
      if (step.headings.length > 0) out.push('', ...step.headings.map(numbered))
      out.push('', `## ${step.title}${step.where ? ` (${step.where}, ${step.script})` : ''}`)
      for (const row of step.rows) {
        if (row.is === 'blank') continue
        if (row.is === 'heading') {
          out.push(...row.manual.map(numbered))
          continue
        }
        const left = row.manual.flatMap((line) => wrap(numbered(line), half, 6))
        const right = isAside(row)
          ? [`(${words[row.is as 'output' | 'remark']})`]
          : row.run.flatMap((run) => run.split('\n').flatMap((line) => wrap(line, half, 2)))
        if (right.length === 0) right.push(`(${row.is === 'file' ? words.file : words.nothing})`)
        for (let at = 0; at < Math.max(left.length, right.length); at++)
          out.push(`${pad(left[at] ?? '', half)} │ ${right[at] ?? ''}`.trimEnd())
        for (const { lines, reason, why } of row.differs)
          out.push(`      ≠ ${lines ? `${lines}: ` : ''}${reason}`, `        ${why}`)
      }
      if (trace.run && step.where) {
        out.push(`      ${step.executed.length > 0 ? words.executed : words.notExecuted}`)
        out.push(...executed(step.executed, '      '))
      }
    }
  }
  if (trace.executed.length > 0) {
    out.push('', `=== ${words.elsewhere} ===`, ...executed(trace.executed, ''))
  }
  if (trace.others.length > 0) {
    out.push('', `=== ${words.others} ===`)
    for (const { script, run, why } of trace.others)
      out.push('', `${script}: ${why}`, ...run.split('\n').map((line) => `  ${line}`))
  }
  return visible(out.join('\n'))
}

/** Chinese characters take two columns. */
const widthOf = (text: string) =>
  [...text].reduce((sum, each) => sum + (/[\u1100-\u115f\u2e80-\uffe6]/.test(each) ? 2 : 1), 0)
const pad = (text: string, width: number) => text + ' '.repeat(Math.max(0, width - widthOf(text)))

function wrap(text: string, width: number, indent: number): string[] {
  const lines: string[] = []
  let line = ''
  for (const character of text) {
    if (widthOf(line + character) > width) {
      lines.push(line)
      line = ' '.repeat(indent)
    }
    line += character
  }
  return [...lines, line]
}

/** As Markdown. */
export function toMarkdown(trace: Trace, lang: Language): string {
  const words = WORDS[lang]
  const fence = (text: string) => ['```', text, '```']
  const executed = (commands: Trace['executed']) =>
    commands.flatMap(({ time, command, variables, ended }) => [
      '',
      `${time}, ${ended}`,
      '',
      ...fence(`${command}\n${variables}`.trimEnd()),
    ])
  const headingOf = (line: ManualLine) => `**${line.number}** \`${line.text}\``
  const out = [`# ${words.heading}: ${trace.title}`, '', words.values]
  for (const { name, sha256, steps } of trace.manuals) {
    out.push('', `## ${name}`, '', `sha256 ${sha256}`)
    for (const step of steps) {
      for (const line of step.headings) out.push('', headingOf(line))
      out.push('', `### ${step.title}${step.where ? ` (${step.where}, \`${step.script}\`)` : ''}`)
      for (const row of step.rows) {
        if (row.is === 'blank') continue
        if (row.is === 'heading') {
          for (const line of row.manual) out.push('', headingOf(line))
          continue
        }
        if (row.manual.length > 0) {
          out.push(
            '',
            `**${words.manual}, ${row.lines}**${isAside(row) ? ` (${words[row.is as 'output' | 'remark']})` : ''}`,
            '',
            ...fence(row.manual.map(({ text }) => text).join('\n')),
          )
        }
        if (isAside(row)) continue
        out.push('', `**${words.run}**${isSame(row) ? ` (${words.same})` : ''}`, '')
        out.push(
          ...(row.run.length > 0
            ? fence(row.run.join('\n'))
            : [`(${row.is === 'file' ? words.file : words.nothing})`]),
        )
        if (row.differs.length > 0) out.push('')
        for (const { lines, reason, why } of row.differs)
          out.push(`- ${lines ? `${lines}: ` : ''}*${reason}*: ${why}`)
      }
      if (trace.run && step.where) {
        out.push(
          '',
          `**${step.executed.length > 0 ? `${words.executed} ${trace.run}` : words.notExecuted}**`,
        )
        out.push(...executed(step.executed))
      }
    }
  }
  if (trace.executed.length > 0) {
    out.push('', `## ${words.elsewhere}`, ...executed(trace.executed))
  }
  if (trace.others.length > 0) {
    out.push('', `## ${words.others}`)
    for (const { script, run, why } of trace.others)
      out.push('', `\`${script}\`: ${why}`, '', ...fence(run))
  }
  out.push(
    '',
    `## ${words.reasons}`,
    '',
    ...Object.values(REASONS).map((text) => `- ${text[lang === 'zh' ? 1 : 0]}`),
  )
  return out.join('\n')
}

const STYLE = `
:root { color-scheme: light; --line: #d0d4da; --muted: #6a7280; --accent: #0b5cad }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; color: #1c2024; margin: 0 auto; padding: 24px; max-width: 1400px }
h1 { font-size: 24px; margin: 0 0 4px } h2 { font-size: 19px; margin: 36px 0 8px; border-bottom: 2px solid #1c2024 }
h3 { font-size: 15px; margin: 24px 0 6px } h2 small { font-size: 11px; overflow-wrap: anywhere } h2 small, h3 small { font-weight: normal; color: var(--muted) }
p.note { color: var(--muted); margin: 0 0 12px }
table { width: 100%; border-collapse: collapse; table-layout: fixed }
th { text-align: left; font-size: 12px; color: var(--muted); font-weight: normal; padding: 2px 8px }
td { vertical-align: top; border-top: 1px solid var(--line); padding: 6px 8px }
th:first-child { width: 44% }
td + td { border-left: 1px solid var(--line) }
pre { font: 12.5px/1.45 ui-monospace, "DejaVu Sans Mono", "Noto Sans Mono CJK SC", monospace; margin: 0; white-space: pre-wrap; overflow-wrap: anywhere }
.headings { margin-top: 28px } .headings, .heading pre { font-weight: 600 } .heading td { background: #f7f8fa }
.headings + h3 { margin-top: 8px }
td:first-child pre div { padding-left: 3.4em; text-indent: -3.4em }
pre .n { color: var(--muted); user-select: none; display: inline-block; width: 3.4em; text-indent: 0 }
.aside { color: var(--muted); background: #f7f8fa } .aside pre { color: var(--muted) }
.tag { font-size: 12px; color: var(--muted) } .same { font-size: 12px; color: #18794e }
ul.why { margin: 6px 0 0; padding-left: 18px; font-size: 13px } ul.why b { color: var(--accent); font-weight: 600 }
.run + .run { margin-top: 6px; padding-top: 6px; border-top: 1px dotted var(--line) }
.executed { background: #f3f8f4; border: 1px solid #cfe3d4; padding: 6px 8px; margin: 6px 0; font-size: 13px }
.sign td { height: 52px; width: 33% } .sign { margin-top: 40px }
@media print {
  @page { size: A4; margin: 14mm 12mm }
  body { font-size: 11px; padding: 0; max-width: none } pre { font-size: 8.8px } h1 { font-size: 18px } h2 { font-size: 15px } h3 { font-size: 12px }
  ul.why, .executed { font-size: 9.8px } h2, h3, .headings, .heading, thead { break-after: avoid } thead { display: table-header-group } tr:not(.long), .executed, .sign { break-inside: avoid }
}
@media (max-width: 800px) { body { padding: 12px } pre { font-size: 11px } }`

/** As one page that needs nothing else: to be opened offline, printed, and signed. */
export function toHtml(trace: Trace, lang: Language): string {
  const words = WORDS[lang]
  const e = escapeHtml
  const linesHtml = (lines: ManualLine[]) =>
    lines
      .map(({ number, text }) => `<div><span class="n">${number}</span>${e(text)}</div>`)
      .join('')
  const rowHtml = (row: TraceRow): string => {
    const lines = linesHtml(row.manual)
    if (row.is === 'heading')
      return `<tr class="heading"><td colspan="2"><pre>${lines}</pre></td></tr>`
    if (isAside(row)) {
      const name = row.is === 'blank' ? '' : words[row.is as 'output' | 'remark']
      return `<tr class="aside"><td><pre>${lines}</pre></td><td><span class="tag">${name}</span></td></tr>`
    }
    const run = row.run.map((each) => `<div class="run"><pre>${e(each)}</pre></div>`).join('')
    const none = `<span class="tag">${row.is === 'file' ? words.file : words.nothing}</span>`
    const same = isSame(row) ? `<span class="same">${words.same}</span>` : ''
    const why = row.differs
      .map(
        ({ lines, reason, why }) =>
          `<li>${lines ? `${lines}: ` : ''}<b>${e(reason)}</b><br>${e(why)}</li>`,
      )
      .join('')
    // a long row may go on over the page
    const isLong = row.manual.length > 10 || row.run.join('\n').split('\n').length > 10
    return `<tr${isLong ? ' class="long"' : ''}><td><pre>${lines}</pre></td><td>${run || none}${same}${why && `<ul class="why">${why}</ul>`}</td></tr>`
  }
  const executed = (commands: Trace['executed']) =>
    commands
      .map(
        ({ time, command, variables, ended }) =>
          `<div class="executed">${words.executed}: ${e(time)}, ${e(ended)}<pre>${e(`${command}\n${variables}`.trimEnd())}</pre></div>`,
      )
      .join('')
  const executedHtml = (step: Trace['manuals'][number]['steps'][number]): string => {
    if (!trace.run || !step.where) return ''
    if (step.executed.length === 0) return `<div class="executed">${words.notExecuted}</div>`
    return executed(step.executed)
  }
  const head = `<thead><tr><th>${words.manual}</th><th>${words.run}</th></tr></thead>`
  const manuals = trace.manuals
    .map(
      ({ name, sha256, steps }) =>
        `<h2>${e(name)} <small>sha256 ${sha256}</small></h2>` +
        steps
          .map(
            (step) =>
              (step.headings.length > 0
                ? `<pre class="headings">${linesHtml(step.headings)}</pre>`
                : '') +
              `<h3>${e(step.title)}${step.where ? ` <small>${e(step.where)}, ${e(step.script ?? '')}</small>` : ''}</h3>` +
              `<table>${head}${step.rows.map(rowHtml).join('\n')}</table>${executedHtml(step)}`,
          )
          .join('\n'),
    )
    .join('\n')
  const elsewhere =
    trace.executed.length === 0 ? '' : `<h2>${words.elsewhere}</h2>${executed(trace.executed)}`
  const others =
    trace.others.length === 0
      ? ''
      : `<h2>${words.others}</h2><table>${trace.others
          .map(
            ({ script, run, why }) =>
              `<tr><td>${e(why)}<br><span class="tag">${e(script)}</span></td><td><pre>${e(run)}</pre></td></tr>`,
          )
          .join('\n')}</table>`
  const reasons = Object.values(REASONS)
    .map((text) => `<li>${e(text[lang === 'zh' ? 1 : 0])}</li>`)
    .join('')
  const sign = `<table class="sign"><tr>${words.sign.map((name) => `<td><span class="tag">${name}</span></td>`).join('')}</tr></table>`
  return `<!doctype html>
<html lang="${lang === 'zh' ? 'zh-CN' : 'en'}">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${e(trace.title)}: ${words.heading}</title><style>${STYLE}</style></head>
<body><h1>${words.heading}</h1><p class="note">${e(trace.title)}${trace.run ? ` · ${words.executed} ${e(trace.run)}` : ''}<br>${e(words.values)}</p>
<ul class="why">${reasons}</ul>
${manuals}
${elsewhere}
${others}
${sign}
</body></html>`
}
