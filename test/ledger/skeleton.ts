import { Document, isMap, isSeq, type YAMLMap, type YAMLSeq } from 'yaml'
import { sha256 } from '../../lib/base/hash.ts'
import {
  type Ledger,
  type LedgerRow,
  range,
  SCRIPT_OF,
  type StepName,
  stepOf,
} from '../../lib/manual/ledger.ts'
import { demandsOf, fenceLines, fencesOf, HEADING, isFootnote, type Fence } from './page.ts'

type Step = Ledger['steps'][number]
type Row = Omit<LedgerRow, 'differs' | 'run'> & { run?: string[] | 'all' }

export interface Skeleton {
  ledger: Omit<Ledger, 'rows'> & {
    englishHeadings: 'vendor' | 'ours'
    chineseHeadings: 'vendor' | 'ours'
    rows: Row[]
  }
  /** what a person has to fill in, each with its line */
  byHand: string[]
}

/** Whose words in a fence tell of which step; the first that fits. */
const STEP_OF_WORDS: [RegExp, StepName][] = [
  [/^source:|intermediateBundlesPath/m, 'load-image-yaml'],
  [/\bcharts-syncer sync\b/, 'sync-images'],
  [/\btar -?x/, 'unpack-bundle'],
  [/\bdocker load\b|\bimages? import\b/, 'load-images'],
  [/\b(docker|ctr|image) tag\b/, 'tag-images'],
  [/\brepo list\b/, 'repo-list'],
  [/\brepo add\b/, 'repo-add'],
  [/\brepo update\b/, 'repo-update'],
  [/\bsearch repo\b/, 'search-repo'],
  [/\bget values\b/, 'backup-values'],
  [/\bkubectl apply\b|\bhelm pull\b/, 'update-crds'],
  [/\bhelm upgrade --install\b|\bhelm install\b/, 'install'],
  [/\bhelm upgrade\b|\bexport imageRegistry=/, 'upgrade'],
]

const DEMANDS_TAGS = /\btag\b/
const NUMBERED = /^\s*\d+\. /

/**
 * The ledger of a page as far as a program can write it: its rows, the steps as the words of the fences
 * tell them, patterns of none.yaml.
 * @param file kairship.en.md
 * @param text the page
 * @param release the release of its module, for `helm upgrade RELEASE`
 */
export function skeletonOf(file: string, text: string, release: string, none: Ledger): Skeleton {
  const page = text.split('\n')
  const isChinese = file.endsWith('.zh.md')
  const byHand: string[] = []
  const steps = stepsOf(page, isChinese, none)
  for (const { step, lines, en, zh } of steps) {
    const [heading, other] = isChinese ? [zh, 'English'] : [en, 'Chinese']
    byHand.push(`${file}:${range(lines!)[0]}: the ${other} heading of ${step} ("${heading}")`)
  }
  const rows = rowsOf(page)
  const ledger = { manual: file, sha256: sha256(text), ...headingsOf(isChinese), steps, rows }
  guess(ledger, release, none, (line, what) => byHand.push(`${file}:${line}: ${what}`))
  return { ledger, byHand }
}

const headingsOf = (isChinese: boolean) => ({
  englishHeadings: isChinese ? ('ours' as const) : ('vendor' as const),
  chineseHeadings: isChinese ? ('vendor' as const) : ('ours' as const),
})

/** Headings, each line of the fences, and prose that asks for something. */
function rowsOf(page: string[]): Row[] {
  const inside = fenceLines(page)
  const demands = demandsOf(page)
  const rows: Row[] = []
  for (let number = 1; number <= page.length; number++) {
    const line = page[number - 1]!
    const fence = inside.get(number)
    if (fence) {
      rows.push(...rowsInFence(page, fence))
      number = fence.last
    } else if (HEADING.test(line)) {
      rows.push({ lines: String(number), is: 'heading', text: line.trim() })
    } else if (demands.has(number)) {
      let last = number
      const goesOn = isFootnote(line)
        ? () => demands.has(last + 1) && isFootnote(page[last] ?? '')
        : () => !/[.。:：;；]\s*$/.test(page[last - 1]!) && (page[last] ?? '').trim() !== ''
      while (goesOn()) last++
      // the remarks of a file belong to its tab
      const kind = isFootnote(line) && rows.at(-1)?.kind
      rows.push({ ...rowAt('prose', page, number, last), ...(kind && { kind }) })
      number = last
    }
  }
  return rows
}

function rowAt(is: Row['is'], page: string[], first: number, last: number, indent?: number): Row {
  const texts = page
    .slice(first - 1, last)
    .map((line) => (indent === undefined ? line.trim() : line.slice(indent).trimEnd()))
  const lines = first === last ? String(first) : `${first}-${last}`
  return { lines, is, text: texts.join('\n') }
}

function rowsInFence(page: string[], { first, last, indent, language }: Fence): Row[] {
  const row = (is: Row['is'], from: number, to: number) => rowAt(is, page, from, to, indent)
  if (language === 'yaml') {
    const file = row('file', first + 1, last - 1)
    return [{ ...file, kind: /kind: LOCAL/.test(file.text) ? 'LOCAL' : 'HARBOR' }]
  }
  if (!['shell', 'bash'].includes(language)) return [row('output', first + 1, last - 1)]
  const textAt = (number: number) =>
    number < last ? page[number - 1]!.slice(indent).trimEnd() : ''
  const hasPrompt = page.slice(first, last - 1).some((line) => /^\s*[~$] /.test(line))
  const rows: Row[] = []
  for (let number = first + 1; number < last; number++) {
    const text = textAt(number)
    const from = number
    const isOther = (each: string) => each === '' || /^(#|[~$] )/.test(each)
    if (text === '' || text.startsWith('#')) rows.push(row(text ? 'remark' : 'blank', from, from))
    else if (hasPrompt && !isOther(text)) {
      while (number + 1 < last && !isOther(textAt(number + 1))) number++
      rows.push(row('output', from, number))
    } else {
      // where a backslash is missing, what begins with - still belongs to it
      while (
        number + 1 < last &&
        (textAt(number).endsWith('\\') || /^\s*-/.test(textAt(number + 1)))
      )
        number++
      rows.push(row('command', from, number))
    }
  }
  return rows
}

/** The steps: a fence whose words tell of one, from the item or heading above it to its last fence. */
function stepsOf(page: string[], isChinese: boolean, none: Ledger): Step[] {
  const inside = fenceLines(page)
  const demands = demandsOf(page)
  const steps: (Step & { lines: string })[] = []
  const add = (step: StepName, via: Step['via'], title: string, lines: string) => {
    const ours = none.steps.find((each) => each.step === step)!
    const heading = title
      .replace(/^\s*(\d+\.|#+) /, '')
      .replaceAll(/`|__/g, '')
      .replace(/[\s.。:：]+$/, '')
    const [en, zh] = isChinese ? [ours.en, heading] : [heading, ours.zh]
    steps.push({ step, ...(via && { via }), en, zh, lines })
  }
  for (const fence of fencesOf(page)) {
    const text = page.slice(fence.first, fence.last - 1).join('\n')
    const [, step] = STEP_OF_WORDS.find(([words]) => words.test(text)) ?? []
    const before = steps.at(-1)
    const end = before ? range(before.lines)[1] : 0
    // remarks of the fence belong to the step
    let last = fence.last
    for (let at = last + 1; at <= page.length; at++) {
      if (demands.has(at) && isFootnote(page[at - 1]!)) last = at
      else if (page[at - 1]!.trim() !== '') break
    }
    const isRunnable = ['shell', 'bash', 'yaml'].includes(fence.language)
    const via = step && viaOf(step, page, fence.first)
    if (before && (!step || !isRunnable || (step === before.step && via === before.via))) {
      before.lines = `${range(before.lines)[0]}-${last}`
      continue
    }
    if (!step) continue
    const above = Array.from({ length: fence.first - 1 - end }, (_, at) => fence.first - 1 - at)
    const isProse = (at: number) => !inside.has(at) && /^\s*[^\s`=!]/.test(page[at - 1]!)
    const begins = (at: number) =>
      isProse(at) && (NUMBERED.test(page[at - 1]!) || /^\s*#+ /.test(page[at - 1]!))
    const first = above.find(begins) ?? above.findLast(isProse) ?? fence.first
    add(step, via, page[first - 1]!, `${first}-${last}`)
  }
  const tags = [...demands].find(
    (at) => DEMANDS_TAGS.test(page[at - 1]!) && !isFootnote(page[at - 1]!),
  )
  if (tags && !steps.some(({ step }) => step === 'tag-images')) {
    let first = tags
    while (first > 1 && tags - first < 4 && !/^\s*!!! /.test(page[first - 1]!)) first--
    if (!/^\s*!!! /.test(page[first - 1]!)) first = tags
    const ours = none.steps.find(({ step }) => step === 'tag-images')!
    const { en, zh } = ours
    steps.push({ step: 'tag-images', prose: true, en, zh, lines: `${first}-${tags}` })
    steps.sort((one, other) => range(one.lines)[0] - range(other.lines)[0])
  }
  return steps
}

/** The way of a step of the section "Upgrading": that of the tab it is in, else via helm repo. */
function viaOf(step: StepName, page: string[], line: number): Step['via'] {
  if (SCRIPT_OF[step].endsWith('-images')) return undefined
  const tab = page.slice(0, line).findLast((each) => /^\s*(===|#+) /.test(each)) ?? ''
  return /chart (package|pack)|chart 包/i.test(tab) ? 'package' : 'repo'
}

/** Fills in what the words of a row tell: its patterns, and the step where it is another one. */
function guess(
  ledger: Skeleton['ledger'],
  release: string,
  none: Ledger,
  tell: (line: number, what: string) => void,
) {
  const patternsOf = (step: StepName) =>
    (none.steps.find((each) => each.step === step)!.run ?? []).map((each) =>
      each.replaceAll('{release}', release),
    )
  for (const step of ledger.steps) {
    const rows = ledger.rows.filter((row) => stepOf(ledger, row) === step)
    const doing = rows.filter(({ is }) => is === 'command' || is === 'file')
    const patterns = patternsOf(step.step)
    const left = new Set(patterns)
    for (const row of doing) {
      const rivals = doing.filter(({ kind }) => kind === row.kind)
      const [word] = wordsOf(row.text)
      const own = patterns.filter((pattern) => wordsOf(pattern)[0] === word)
      if (rivals.length === 1) row.run = patterns.join().includes(release) ? patterns : 'all'
      else if (own.length > 0) row.run = own
      for (const each of row.run === 'all' ? patterns : (row.run ?? [])) left.delete(each)
    }
    if (step.step === 'tag-images') {
      const row = rows.findLast(({ text }) => DEMANDS_TAGS.test(text))
      if (row) row.run = 'all'
      left.clear()
    }
    for (const pattern of left)
      tell(range(step.lines!)[0], `the row of ${step.step} that runs: ${pattern}`)
  }
  for (const row of ledger.rows) {
    const [line] = range(row.lines)
    if (row.is === 'command' && !row.run) tell(line, 'what is run for it, or why nothing')
    if ((row.is === 'command' || row.is === 'file') && !stepOf(ledger, row))
      tell(line, 'the step that carries it out')
    if (row.is === 'command' || row.is === 'file')
      tell(line, `why it differs, if it does: ${row.text.split('\n')[0]}`)
    if (row.is === 'prose')
      tell(line, `the step that does it, or the reason: ${row.text.split('\n')[0]}`)
  }
}

/** Without a prompt. */
const wordsOf = (text: string) => text.replace(/^[~$] /, '').split(/[\s=]+/)

/** As a file: short lists and headings on one line. */
export function toYaml({ ledger }: Skeleton): string {
  const document = new Document(ledger)
  const rows = document.get('rows') as YAMLSeq<YAMLMap>
  for (const row of rows.items) {
    if (!isMap(row)) continue
    const run = row.get('run')
    if (isSeq(run)) run.flow = true
    if (['heading', 'blank'].includes(String(row.get('is')))) row.flow = true
  }
  return document.toString({ lineWidth: 0 })
}
