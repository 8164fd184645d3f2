import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { writeWhole } from '../base/files.ts'
import { lines, quote } from '../base/shell.ts'
import { run } from '../run/command.ts'
import { report, thisRun } from '../run/session.ts'
import { type NodeContent } from './content.ts'
import { type Node } from './nodes.ts'
import { alone } from './ssh.ts'

/** A file of a node's in this module's directory. */
export const workFile = ({ name }: Node, ending: 'tar' | 'parts' | 'imports') =>
  join(thisRun().inputs.stateDirectory, 'load', `${name}.${ending}`)

/** Removes what `images-for-node` reads. */
export function removeArchive(node: Node) {
  for (const ending of ['tar', 'parts'] as const) rmSync(workFile(node, ending), { force: true })
}

/** When imports began that have not ended well, in seconds since 1970 on the node's clock. */
export function importsOf(node: Node): number[] {
  const file = workFile(node, 'imports')
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : []
}

export function setImports(node: Node, begins: number[]) {
  if (begins.length > 0) writeWhole(workFile(node, 'imports'), JSON.stringify(begins))
  else rmSync(workFile(node, 'imports'), { force: true })
}

/** Removes the leases of imports that were interrupted: ctr makes one when it begins. */
export async function removeLeases(node: Node, { leases }: NodeContent) {
  const begins = importsOf(node)
  const ours = leases.filter(({ created }) =>
    begins.some((begin) => created >= begin - 2 && created <= begin + 15),
  )
  if (ours.length > 0) {
    report('  an import was interrupted here; removing its leases · 上次导入被中断，清理其 lease')
    await run`
${alone(node)} ctr -n k8s.io leases rm --sync ${lines(ours.map(({ id }) => quote(id)).join(' '))}`
  }
  setImports(node, [])
  removeArchive(node)
}
