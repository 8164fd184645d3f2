import { visible } from '../base/output.ts'
import { type Block, type Executed, type ManualLine, type Row } from './trace.ts'

/** For the terminal: two columns, the reasons below. */
export function toTerminal(blocks: Block[], columns = 120): string {
  const half = Math.floor((columns - 3) / 2)
  return visible(blocks.flatMap((block) => linesOf(block, half)).join('\n'))
}

function linesOf(block: Block, half: number): string[] {
  switch (block.is) {
    case 'title':
      return [`${block.heading}: ${block.title}`, ...block.notes]
    case 'list':
      return ['', ...block.items.map((item) => `- ${item}`)]
    case 'part':
      return ['', `=== ${block.title} ===`, ...(block.note ? [block.note] : [])]
    case 'headings':
      return ['', ...block.lines.map(numbered)]
    case 'step':
      return ['', `## ${block.title}${block.note ? ` (${block.note})` : ''}`]
    case 'table':
      return block.rows.flatMap((row) => rowLines(row, half))
    case 'executed':
      return [`      ${block.title}`, ...block.commands.flatMap(executed)]
  }
}

const numbered = ({ number, text }: ManualLine) => `${String(number).padStart(4)}  ${text}`

const executed = ({ time, ended, command }: Executed) => [
  `      ${time}  ${ended}`,
  ...command.split('\n').map((line) => `        ${line}`),
]

function rowLines({ is, place, lines, run, tag, why }: Row, half: number): string[] {
  if (is === 'heading') return lines.map(numbered)
  if (is === 'aside' && !tag) return [] // a blank line
  const left = lines.flatMap((line) => wrap(numbered(line), half, 6))
  if (lines.length === 0 && place) left.push(`      ${place}`)
  const right = run.flatMap(({ text, note }) => [
    ...(note ? [`(${note})`] : []),
    ...text.split('\n').flatMap((line) => wrap(line, half, 2)),
  ])
  if (tag && run.length === 0) right.push(`(${tag})`)
  const count = Math.max(left.length, right.length)
  return [
    ...Array.from({ length: count }, (_, at) =>
      `${pad(left[at] ?? '', half)} │ ${right[at] ?? ''}`.trimEnd(),
    ),
    ...why.flatMap(({ line, kind, text }) => [
      `      ≠ ${line ? `${line}: ` : ''}${kind}`,
      `        ${text}`,
    ]),
  ]
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
