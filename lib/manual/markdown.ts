import { type Block, type ManualLine, type Row } from './trace.ts'

/** As Markdown. */
export const toMarkdown = (blocks: Block[]): string => blocks.flatMap(linesOf).join('\n').trim()

const fence = (text: string) => ['', '```', text, '```']

function linesOf(block: Block): string[] {
  switch (block.is) {
    case 'title':
      return [`# ${block.heading}: ${block.title}`, ...block.notes.flatMap((note) => ['', note])]
    case 'list':
      return ['', ...block.items.map((item) => `- ${item}`)]
    case 'part':
      return ['', `## ${block.title}`, ...(block.note ? ['', block.note] : [])]
    case 'headings':
      return headings(block.lines)
    case 'step':
      return ['', `### ${block.title}${block.note ? ` (${block.note})` : ''}`]
    case 'table':
      return block.rows.flatMap((row) => rowLines(row, block.columns))
    case 'executed':
      return [
        '',
        `**${block.title}**`,
        ...block.commands.flatMap(({ time, ended, command }) => [
          '',
          `${time}, ${ended}`,
          ...fence(command),
        ]),
      ]
  }
}

const headings = (lines: ManualLine[]) =>
  lines.flatMap(({ number, text }) => ['', `**${number}** \`${text}\``])

function rowLines(row: Row, [manual, ours]: readonly [string, string]): string[] {
  const { is, place, lines, run, tag, why } = row
  if (is === 'heading') return headings(lines)
  if (is === 'aside' && !tag) return [] // a blank line
  const note = tag ? ` (${tag})` : ''
  const left =
    lines.length > 0
      ? [
          '',
          `**${manual}, ${place}**${is === 'aside' ? note : ''}`,
          ...fence(lines.map(({ text }) => text).join('\n')),
        ]
      : []
  if (is === 'aside') return left
  return [
    ...left,
    '',
    `**${ours}**${lines.length === 0 && place ? `, \`${place}\`` : note}`,
    ...run.flatMap(({ text, note }) => [...(note ? ['', `(${note})`] : []), ...fence(text)]),
    ...(why.length > 0 ? [''] : []),
    ...why.map(({ line, kind, text }) => `- ${line ? `${line}: ` : ''}*${kind}*: ${text}`),
  ]
}
