import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { lab, labSite, runInLab } from '../support/lab-site.ts'
import { runProgram, scriptEnv, temporaryDirectory } from '../support/run-script.ts'

test.each(['journald', 'rsyslog'])(
  'what was cut off the end of an audit, or put in its place, shows by the heads that %s has',
  async (syslog) => {
    const directory = temporaryDirectory()
    const site = join(directory, 'site.yaml')
    const example = readFileSync('site.example.yaml', 'utf8')
    writeFileSync(site, example.replace('~/.kube/config', './no-kubeconfig'))
    const trail = join(directory, 'state/example/mspider/audit.jsonl')
    const backup = `node_modules/.bin/zx scripts/backup-values.mts --module mspider --site ${site} > /dev/null 2>&1`
    const verify = `node_modules/.bin/zx scripts/audit.mts verify --module mspider --site ${site} 2>&1 || echo exit $?`
    const line = `
      ${backup}
      ${backup}
      # the daemon writes what it was told in its own time
      for _ in $(seq 50); do
        [ $( (journalctl --identifier=dce-upgrade --output=cat; cat /var/log/syslog) 2>/dev/null | grep -c ' head ') = 2 ] && break
        sleep 0.2
      done
      echo UNTOUCHED; ${verify}
      cp ${trail} ${trail}.kept
      head -n 3 ${trail}.kept > ${trail}
      echo CUT; ${verify}
      # a later run goes on where it was cut
      ${backup}
      echo WRITTEN ON; ${verify}
      # the first run alone, as if there had been no other one
      head -n 2 ${trail}.kept > ${trail}
      echo SHORT; ${verify}`
    const args = ['--mount', 'bash', 'test/support/with-syslog.sh', syslog, directory, line]
    const { output, exitCode } = await runProgram('unshare', args, { env: scriptEnv() })
    expect(exitCode, output).toBe(0)
    const said = (name: string) => output.split(`${name}\n`)[1]?.split(/\n(?=[A-Z ]+\n)/)[0]
    expect(said('UNTOUCHED'), output).toMatch(
      /4 records, as they were written \(held against 2 known/,
    )
    for (const name of ['CUT', 'WRITTEN ON', 'SHORT']) {
      expect(said(name), output).toMatch(/audit\.jsonl is not as it was written, line \d: /)
      expect(said(name), output).toMatch(/exit 65/)
    }
    expect(said('CUT')).toMatch(/line 4: /)
    expect(said('SHORT')).toMatch(/line 3: /)
  },
)

test('a run says whether its times are those of a clock that was synchronized', async () => {
  const { site } = labSite()
  const args = ['--module', 'mspider', '--site', site]
  // timedatectl asks systemd, which is not at work here
  const standIn = join(temporaryDirectory(), 'stand-in')
  mkdirSync(standIn)
  for (const [words, said] of [
    ['System clock synchronized: yes', 'yes'],
    ['NTP synchronized: no', 'no'],
    ['System has not been booted with systemd', 'unknown'],
  ]) {
    const text = `#!/bin/sh\necho "      Local time: Sat"\necho "${words}"\n`
    writeFileSync(join(standIn, 'timedatectl'), text, { mode: 0o755 })
    const env = { PATH: `${standIn}:${lab.env['PATH']}` }
    // it needs no release: other suites work on them
    const result = await runInLab('helm-repo', args, env)
    expect(result.exitCode, result.output).toBe(0)
    const shown = await runInLab('audit', ['show', ...args])
    const clocks = [...shown.stdout.matchAll(/\(clock synchronized: (\w+)\)$/gm)]
    expect(clocks.at(-1)?.[1], shown.output).toBe(said)
  }
})
