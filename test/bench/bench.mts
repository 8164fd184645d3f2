// The scripts beside what one would type, in pairs, in a lab of its own.
//
// Usage: npm run bench [-- [upgrade] [sync] [load] --rounds N]     (all where none is named)
//
// It ends with 1 where the two ways do not lead to the same, or where a goal is missed.

import { argv } from 'zx'
import { startLab, stopLab } from '../lab/lab.ts'
import { ending, endOnSignals } from '../lab/processes.ts'
import { machine } from './pairs.ts'
import { benchLoad } from './load.ts'
import { benchSync } from './sync.ts'
import { benchUpgrade } from './upgrade.ts'

const all = { upgrade: benchUpgrade, sync: benchSync, load: benchLoad }
const rounds = Number(argv['rounds'] ?? 7)
const names = argv._.length > 0 ? argv._ : Object.keys(all)

endOnSignals()
try {
  if (!Number.isInteger(rounds) || rounds < 1)
    throw new Error('--rounds takes the number of measured pairs: 1, 2, 3 …')
  for (const name of names) {
    if (!(name in all)) throw new Error(`${name}: known are ${Object.keys(all).join(', ')}`)
  }
  // before the lab, whose load is no sign of others' work
  const where = machine()
  console.log(`On ${where}; a pair takes about half a minute`)
  const lab = await startLab()
  try {
    for (const name of names) await all[name as keyof typeof all](lab, where, rounds)
  } finally {
    await stopLab(lab)
  }
} catch (error) {
  // ended by a signal, or what went wrong: a sentence, not a stack
  const reason = ending.signal.aborted ? ending.signal.reason : error
  console.error(`\n${reason.message}`)
  process.exitCode ||= 1
}
