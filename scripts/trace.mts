// The manuals of a module line by line, beside what is run for each line, and why it differs; of a
// module without a manual the commands of its dry runs. It changes nothing, and needs neither the
// manuals nor a site; with --run it shows what a recorded run of a site executed.
//   npx zx scripts/trace.mts --module kairship [--lang zh]
//   npx zx scripts/trace.mts --module kairship --format html > kairship.html
//   npx zx scripts/trace.mts --module kairship --run ID --site FILE

import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { recordedRun } from '../lib/audit/read.ts'
import { recordedDryRuns, startedDryRuns } from '../lib/manual/dry-runs.ts'
import { toHtml } from '../lib/manual/html.ts'
import { toMarkdown } from '../lib/manual/markdown.ts'
import { toTerminal } from '../lib/manual/terminal.ts'
import { traceOf } from '../lib/manual/trace.ts'
import { startReaderOfModule } from '../lib/run/start.ts'

const names = ['lang', 'format', 'run'] as const
const { module, flags } = startReaderOfModule(import.meta.url, [...names])
const { lang = 'en' } = flags
const run = flags.run ? await recordedRun(import.meta.url, [...names], flags.run) : undefined

const recorded = module.manuals.length > 0 ? recordedDryRuns(module.name) : []
const dryRuns =
  recorded.length > 0
    ? recorded
    : await startedDryRuns(module, dirname(fileURLToPath(import.meta.url)))
const trace = traceOf(module, lang, dryRuns, run)

if (flags.format === 'html') console.log(toHtml(trace, lang))
else if (flags.format === 'md') console.log(toMarkdown(trace))
else console.log(toTerminal(trace, process.stdout.columns))
