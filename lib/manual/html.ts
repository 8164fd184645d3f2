import { readFileSync } from 'node:fs'
import { type Block, type Language, type ManualLine, type Row, WORDS } from './trace.ts'

const CODES: Record<string, string> = { '&': 'amp', '<': 'lt', '>': 'gt', '"': 'quot', "'": '#39' }
const e = (text: string) => text.replaceAll(/[&<>"']/g, (each) => `&${CODES[each]};`)

/** As one page that needs nothing else: to be opened offline, printed, and signed. */
export function toHtml(blocks: Block[], lang: Language): string {
  const [title] = blocks.flatMap((block) =>
    block.is === 'title' ? [`${block.title}: ${block.heading}`] : [],
  )
  const sign = WORDS[lang].sign.map((name) => `<td>${tagHtml(name)}</td>`).join('')
  const style = readFileSync(new URL('page.css', import.meta.url), 'utf8')
  return `<!doctype html>
<html lang="${lang === 'zh' ? 'zh-CN' : 'en'}">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${e(title ?? '')}</title><style>${style}</style></head>
<body>${[...blocks.map(blockHtml), `<table class="sign"><tr>${sign}</tr></table>`].join('\n')}
</body></html>`
}

function blockHtml(block: Block): string {
  const small = (note?: string) => (note ? ` <small>${e(note)}</small>` : '')
  switch (block.is) {
    case 'title':
      return `<h1>${e(block.heading)}</h1><p class="note">${[block.title, ...block.notes].map(e).join('<br>')}</p>`
    case 'list':
      return `<ul class="why">${block.items.map((item) => `<li>${e(item)}</li>`).join('')}</ul>`
    case 'part':
      return `<h2>${e(block.title)}${small(block.note)}</h2>`
    case 'headings':
      return `<pre class="headings">${linesHtml(block.lines)}</pre>`
    case 'step':
      return `<h3>${e(block.title)}${small(block.note)}</h3>`
    case 'table': {
      const head = block.columns.map((name) => `<th>${e(name)}</th>`).join('')
      return `<table><thead><tr>${head}</tr></thead>${block.rows.map(rowHtml).join('\n')}</table>`
    }
    case 'executed':
      if (block.commands.length === 0) return `<div class="executed">${e(block.title)}</div>`
      return block.commands
        .map(({ time, ended, command }) => {
          const title = e(`${block.title}: ${time}, ${ended}`)
          return `<div class="executed">${title}<pre>${e(command)}</pre></div>`
        })
        .join('')
  }
}

const linesHtml = (lines: ManualLine[]) =>
  lines.map(({ number, text }) => `<div><span class="n">${number}</span>${e(text)}</div>`).join('')

const tagHtml = (text?: string, name = 'tag') =>
  text ? `<span class="${name}">${e(text)}</span>` : ''

function rowHtml({ is, place, lines, run, tag, isSame, why }: Row): string {
  const manual = lines.length > 0 ? `<pre>${linesHtml(lines)}</pre>` : tagHtml(place)
  if (is === 'heading') return `<tr class="heading"><td colspan="2">${manual}</td></tr>`
  if (is === 'aside') return `<tr class="aside"><td>${manual}</td><td>${tagHtml(tag)}</td></tr>`
  const ours = run
    .map(({ text, note }) => `<div class="run">${tagHtml(note)}<pre>${e(text)}</pre></div>`)
    .join('')
  const reasons = why
    .map(
      ({ line, kind, text }) =>
        `<li>${line ? `${line}: ` : ''}<b>${e(kind)}</b><br>${e(text)}</li>`,
    )
    .join('')
  // a long row may go on over the page
  const isLong = lines.length > 10 || run.flatMap(({ text }) => text.split('\n')).length > 10
  const right = `${ours}${tagHtml(tag, isSame ? 'same' : 'tag')}${reasons && `<ul class="why">${reasons}</ul>`}`
  return `<tr${isLong ? ' class="long"' : ''}><td>${manual}</td><td>${right}</td></tr>`
}
