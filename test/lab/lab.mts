// A lab to try the scripts in: a real cluster, registry and chart repository, on this machine.
//
// Usage: npm run lab [up | build | status | check | down] [ID]
//
//   up      builds what is missing, starts the lab and leaves it running (the default)
//   build   only builds what is missing
//   status  says whether it runs and how to use it
//   check   installs and upgrades charts in it with plain helm, and removes them again
//   down    ends it and removes all that belongs to it
//
// ID tells labs on one machine apart; it is dev where none is given.

import { argv } from 'zx'
import { dirname } from 'node:path'
import { check } from './check.ts'
import { loadLab, startLab, stopLab } from './lab.ts'
import { endOnSignals } from './processes.ts'
import { buildTools } from './tools.ts'
import { howToUse, removeSite } from './usage.ts'

const [word = 'up', id = 'dev'] = argv._.map(String)
const lab = loadLab(id)
const root = dirname(dirname(import.meta.dirname))

endOnSignals()

if (word === 'up') {
  if (lab) console.log(`lab ${id} is running already`)
  console.log(howToUse(lab ?? (await startLab(id, { keep: true }))))
} else if (word === 'build') {
  await buildTools()
} else if (word === 'status') {
  console.log(lab ? howToUse(lab) : `lab ${id} is not running`)
} else if (word === 'check') {
  if (!lab) throw new Error(`lab ${id} is not running`)
  await check(lab)
} else if (word === 'down') {
  // also removes what is left of one that was killed
  await stopLab({ id })
  removeSite(root)
  console.log(lab ? `lab ${id} is stopped` : `lab ${id} was not running`)
} else {
  console.error(`up, build, status, check or down, not ${word}`)
  process.exitCode = 64
}
