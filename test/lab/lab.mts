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
import { check } from './check.ts'
import { loadLab, startLab, stopLab, type Lab } from './lab.ts'
import { buildTools } from './tools.ts'

const [word = 'up', id = 'dev'] = argv._.map(String)
const lab = loadLab(id)

if (word === 'up') {
  if (lab) console.log(`lab ${id} is running already`)
  console.log(usage(lab ?? (await startLab(id, { keep: true }))))
} else if (word === 'build') {
  await buildTools()
} else if (word === 'status') {
  console.log(lab ? usage(lab) : `lab ${id} is not running`)
} else if (word === 'check') {
  if (!lab) throw new Error(`lab ${id} is not running`)
  await check(lab)
} else if (word === 'down') {
  // also removes what is left of one that was killed
  await stopLab({ id })
  console.log(lab ? `lab ${id} is stopped` : `lab ${id} was not running`)
} else {
  console.error(`up, build, status, check or down, not ${word}`)
  process.exitCode = 64
}

function usage({ directory, env, helms, chartRepository, nodes, ...lab }: Lab): string {
  const { PATH, ...others } = env
  const tools = PATH!.split(':').slice(0, 3)
  const ssh = nodes.map(
    (node) =>
      `  ${node.name}             ssh -i ${node.sshKey} -o UserKnownHostsFile=${node.knownHosts}` +
      ` -p ${node.sshPort} root@127.0.0.1`,
  )
  return `
lab ${id} runs; ${directory}/lab.json describes all of it

  site registry     ${lab.registry.host}
  vendor's registry ${lab.vendorRegistry}
  chart repository  ${chartRepository.harbor}
                    ${chartRepository.oci}
                    ${chartRepository.chartmuseum} (nothing in it)
  other helms       ${helms['3.10']}
                    ${helms['4']}
${ssh.join('\n')}

To use it:

export PATH=${tools.join(':')}:$PATH
${Object.entries(others)
  .map(([name, value]) => `export ${name}=${value}`)
  .join('\n')}
npx zx scripts/upgrade.mts --module mspider --site ${lab.site}

To stop it: npm run lab down ${id}`
}
