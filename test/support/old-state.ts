import { chmodSync, cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from './run-script.ts'

/** What real runs of 0.1 left, with its site files and descriptors: see the README.md there. */
export const oldState = join(ROOT, 'test/support/state-0.1')
const records = join(oldState, 'lab')

/** The modules that 0.1 was run on. */
export const oldModules = ['kairship', 'mspider', 'skoala', 'spidernet']

/** The audit of a module as 0.1 left it. */
export const oldTrail = (module: string) => readFileSync(join(records, module, 'audit.jsonl'))

/** The names below a directory of the site's records, and those of them that 0.1 left there. */
export function namesIn(state: string, path: string): { all: string[]; new: string[] } {
  const all = readdirSync(join(state, path)).sort()
  const old = existsSync(join(records, path)) ? readdirSync(join(records, path)) : []
  return { all, new: all.filter((name) => !old.includes(name)) }
}

/**
 * Lays down what 0.1 left, as the records of a site.
 * @param state where they belong: `…/state/lab`
 * @param uid the cluster's, so that they are of this cluster
 */
export function layDownOldState(state: string, uid?: string) {
  cpSync(records, state, { recursive: true, verbatimSymlinks: true })
  // git keeps no mode but that of programs
  const all = readdirSync(state, { recursive: true, withFileTypes: true })
  for (const entry of all) {
    if (entry.isSymbolicLink()) continue
    chmodSync(join(entry.parentPath, entry.name), entry.isDirectory() ? 0o700 : 0o600)
  }
  if (!uid) return
  const path = join(state, 'cluster.json')
  const cluster = JSON.parse(readFileSync(path, 'utf8'))
  writeFileSync(path, JSON.stringify({ ...cluster, uid }) + '\n')
}
