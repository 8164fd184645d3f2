// The manuals of a module line by line, beside what is run for each line, and why it differs. It
// changes nothing, and needs neither the manuals nor a site; with --run it shows what a recorded run
// of a site executed.
//   npx zx scripts/trace.mts --module kairship [--lang zh]
//   npx zx scripts/trace.mts --module kairship --format html > kairship.html
//   npx zx scripts/trace.mts --module kairship --run ID --site FILE

import { recordedRun } from '../lib/audit/read.ts'
import { startReaderOfModule } from '../lib/run/session.ts'
import { toHtml, toMarkdown, toTerminal } from '../lib/manual/trace-formats.ts'
import { traceOf } from '../lib/manual/trace.ts'

const names = ['lang', 'format', 'run'] as const
const { module, flags } = startReaderOfModule(import.meta.url, [...names])
const run = flags.run ? await recordedRun(import.meta.url, [...names], flags.run) : undefined
const trace = traceOf(module, flags.lang, run)

if (flags.format === 'html') console.log(toHtml(trace, flags.lang))
else if (flags.format === 'md') console.log(toMarkdown(trace, flags.lang))
else console.log(toTerminal(trace, flags.lang, process.stdout.columns))
