import { type LedgerRow } from '../../lib/manual/ledger.ts'

/** A heading, or the name of a tab. */
export const HEADING = /^\s*(#+ |=== ")/

/** Prose that asks for something to be done. */
const DEMAND =
  /each node|tag the images|tag image|proceed to the next step|helm update repo|parameters in (this YAML|the) file are|you need to|find a node|important to back ?up|outdated Helm version|(recommended|advisable|suggested) (to|that you) (update|override)|imageRegistry|image\.registry|container management|每个节点|需要 tag|需要通过|必填项|进行下一步|helm 版本过低|建议您覆盖/i

/** A numbered remark: behind a fence it belongs to a `# (1)` in it. */
export const isFootnote = (line: string) => /^\s+\d+\. /.test(line)

export interface Fence {
  /** the line of its ``` */
  first: number
  last: number
  indent: number
  language: string
}

/** The fences of a page. */
export function fencesOf(page: string[]): Fence[] {
  const fences: Fence[] = []
  let open: Fence | undefined
  page.forEach((line, index) => {
    const [, blanks, language] = /^(\s*)(?:```|~~~)(\w*)/.exec(line) ?? []
    if (blanks === undefined) return
    if (open) fences.push({ ...open, last: index + 1 })
    open = open
      ? undefined
      : { first: index + 1, last: page.length, indent: blanks.length, language: language! }
  })
  return fences
}

/** The lines of a page that are inside a fence. */
export function fenceLines(page: string[]): Map<number, Fence> {
  const inside = new Map<number, Fence>()
  for (const fence of fencesOf(page))
    for (let number = fence.first + 1; number < fence.last; number++) inside.set(number, fence)
  return inside
}

/** The lines of prose that need a row: what asks for something, and the remarks of a fence. */
export function demandsOf(page: string[]): Set<number> {
  const inside = fenceLines(page)
  const ends = new Map(fencesOf(page).map((fence) => [fence.last, fence]))
  const demands = new Set<number>()
  let fence: Fence | undefined
  page.forEach((line, index) => {
    const number = index + 1
    fence = ends.get(number) ?? fence
    if (inside.has(number) || HEADING.test(line) || ends.has(number) || line.trim() === '') return
    const isOfFence =
      fence !== undefined &&
      isFootnote(line) &&
      line.search(/\S/) === fence.indent &&
      page.slice(fence.first, fence.last).some((each) => /# \(\d+\)$/.test(each))
    if (!isOfFence) fence = undefined
    if (isOfFence || DEMAND.test(line)) demands.add(number)
  })
  return demands
}

/** Can a line of a page be what a row calls it? */
export function isWhatItSays(is: LedgerRow['is'], line: string, fence: Fence | undefined): boolean {
  const isRemark = line.trimStart().startsWith('#')
  const isBlank = line.trim() === ''
  if (!fence) return is === (HEADING.test(line) ? 'heading' : 'prose')
  if (fence.language === 'yaml') return is === 'file'
  if (isBlank || isRemark) return is === (isBlank ? 'blank' : 'remark')
  return is === 'output' || (is === 'command' && ['shell', 'bash'].includes(fence.language))
}
