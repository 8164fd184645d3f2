// The audit of a module at a site, state/<site>/<module>/audit.jsonl: is it as it was written, and what
// was run. It changes nothing.
//   npx zx scripts/audit.mts verify --module mspider [--head SHA256]
//   npx zx scripts/audit.mts show --module mspider [--run ID] [--json] [--lang zh]

import { readTrailOf, showRuns, tellVerdict } from '../lib/audit/read.ts'
import { startReader } from '../lib/run/start.ts'

const inputs = startReader(import.meta.url, ['head', 'run', 'json', 'lang'], ['verify', 'show'])
const trail = await readTrailOf(inputs)

if (inputs.flags.order === 'show') showRuns(trail, inputs.flags)
tellVerdict(trail, inputs.flags)
