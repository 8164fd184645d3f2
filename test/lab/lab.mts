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
// ID (1 to 8 of a-z 0-9) tells labs on one machine apart. Where none is given, up means dev; status,
// check and down mean the one that runs.

import { argv } from 'zx'
import { dirname } from 'node:path'
import { check } from './check.ts'
import { loadLab, runningLabs, startLab, stopLab } from './lab.ts'
import { endOnSignals } from './processes.ts'
import { buildTools } from './tools.ts'
import { howToUse, removeSite, usageOf } from './usage.ts'

const words = ['up', 'build', 'status', 'check', 'down']
const [word = 'up', given, ...rest] = argv._.map(String)
const flags = Object.keys(argv).filter((name) => name !== '_')
const root = dirname(dirname(import.meta.dirname))

endOnSignals()

if (argv['help'] || flags.length > 0 || rest.length > 0 || !words.includes(word)) {
  console.log(usageOf(import.meta.filename))
  process.exitCode = argv['help'] ? 0 : 64
} else if (word === 'build') {
  await buildTools()
} else if (word === 'up') {
  const id = given ?? 'dev'
  const lab = loadLab(id)
  if (lab) console.log(`lab ${id} is running already`)
  console.log(howToUse(lab ?? (await startLab(id, { keep: true }))))
} else {
  const running = runningLabs()
  const id = given ?? (running.length === 1 ? running[0]! : undefined)
  const lab = id === undefined ? undefined : loadLab(id)
  if (!id || (!lab && word !== 'down')) {
    const list = running.length > 0 ? `there are: ${running.join(', ')}` : 'there is none'
    console.log(given ? `lab ${given} is not running; ${list}` : `which lab? ${list}`)
    process.exitCode = word === 'check' || running.length > 1 ? 64 : 0
  } else if (word === 'status') {
    console.log(howToUse(lab!))
  } else if (word === 'check') {
    await check(lab!)
  } else {
    // also removes what is left of one that was killed
    await stopLab({ id })
    for (const path of removeSite(root, id)) console.log(`removed ${path}`)
    console.log(lab ? `lab ${id} is stopped` : `lab ${id} was not running`)
  }
}
