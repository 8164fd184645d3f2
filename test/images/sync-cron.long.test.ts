import { spawn } from 'node:child_process'
import { readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { describe, expect, test, vi } from 'vitest'
import { auditOf, lab, runInLab } from '../support/lab-site.ts'
import {
  allThere,
  bundleOf,
  emptySite,
  markedRun,
  nothingLeft,
  registry,
  sync,
  type Site,
} from '../support/sync-site.ts'
import {
  copyOfTheCollection,
  ROOT,
  runProgram,
  scriptEnv,
  temporaryDirectory,
} from '../support/run-script.ts'

describe('from cron', () => {
  const directory = () => {
    const path = temporaryDirectory()
    for (const module of ['skoala', 'mspider']) {
      symlinkSync(bundleOf(module), join(path, basename(bundleOf(module))))
    }
    return path
  }
  const all = ({ site }: Site, bundles: string, ...more: string[]) =>
    runInLab('sync-images', ['--all', '--site', site, '--bundle', bundles, ...more])

  test('--all --quiet says nothing when all is well, and last-success.json has every module', async () => {
    const site = emptySite()
    const bundles = directory()
    const result = await all(site, bundles, '--quiet')
    expect(result).toMatchObject({ exitCode: 0, output: '' })
    for (const module of ['skoala', 'mspider']) {
      await allThere(site, module, bundleOf(module))
      const success = JSON.parse(
        readFileSync(join(site.state, module, 'last-success.json'), 'utf8'),
      )
      expect(success['sync-images']).toMatchObject({ module })
    }
  })

  test('one module’s failure does not stop the others; one summary says what is wrong, with the exit code', async () => {
    const site = emptySite()
    const bundles = directory()
    writeFileSync(join(bundles, 'kairship-0.21.0.bundle.tar'), 'nothing')
    const result = await all(site, bundles, '--quiet')
    expect(result.exitCode, result.output).toBe(65)
    expect(result.stdout).toBe('')
    expect(result.stderr).toMatch(/FAILED · 失败 \(exit 65\)\n.*kairship-0\.21\.0/)
    expect(result.stderr).toMatch(/1 of 3 modules failed .*: kairship \(exit 65\)/)
    expect(result.stderr.split('\n').length).toBeLessThan(20)
    for (const module of ['skoala', 'mspider']) await allThere(site, module, bundleOf(module))
  })
})

describe('the lines of the README that run it at night', () => {
  const readme = readFileSync(join(ROOT, 'README.md'), 'utf8')
  const fences = (language: string) =>
    [...readme.matchAll(new RegExp(`\`\`\`${language}\\n([^]*?)\`\`\``, 'g'))].map(
      ([, text]) => text!,
    )

  /** An installation as the README has it, in a directory of its own, and its environment file. */
  function installation(site: Site) {
    const bundles = temporaryDirectory()
    symlinkSync(bundleOf('skoala'), join(bundles, basename(bundleOf('skoala'))))
    const copy = copyOfTheCollection()
    const text = readFileSync(site.site, 'utf8')
    writeFileSync(join(copy, 'site.yaml'), text)
    const variables: Record<string, string> = {
      PATH: `${dirname(process.execPath)}:${lab.env['PATH']}`,
      REGISTRY_USERNAME: registry.username,
      REGISTRY_PASSWORD: registry.password,
      CHART_REPO_USERNAME: lab.chartRepository.username,
      CHART_REPO_PASSWORD: lab.chartRepository.password,
    }
    // the README's own file, with the lab's values
    const file = fences('sh')[0]!.replace(
      /^(\w+)=.*$/gm,
      (_, name) => `${name}='${variables[name]}'`,
    )
    const environmentFile = join(temporaryDirectory(), 'dce-upgrade.env')
    writeFileSync(environmentFile, file, { mode: 0o600 })
    const here = (line: string) =>
      line
        .replaceAll('/etc/dce-upgrade.env', environmentFile)
        .replaceAll('/opt/dce-upgrade', copy)
        .replaceAll('/data/bundles', bundles)
    return { copy, here, variables }
  }

  test('the crontab line brings the bundles in, in cron’s environment, and says nothing', async () => {
    const site = emptySite()
    const { here } = installation(site)
    const line = fences('crontab')[0]!
      .replace(/^(\S+\s+){5}/, '')
      .trim()
    expect(line).not.toContain('%')
    const env = {
      PATH: '/usr/bin:/bin',
      HOME: temporaryDirectory(),
      SHELL: '/bin/sh',
      LOGNAME: 'root',
    }
    const result = await runProgram('/bin/sh', ['-c', here(line)], { cwd: '/', env })
    expect(result).toMatchObject({ exitCode: 0, output: '' })
    await allThere(site, 'skoala', bundleOf('skoala'))
  })

  test('the systemd units are valid, and what the service starts brings the bundles in', async () => {
    const site = emptySite()
    const { copy, here, variables } = installation(site)
    const units = temporaryDirectory()
    const [service, timer] = fences('systemd') as [string, string]
    writeFileSync(join(units, 'dce-upgrade-sync.service'), here(service))
    writeFileSync(join(units, 'dce-upgrade-sync.timer'), timer)
    const files = ['service', 'timer'].map((kind) => join(units, `dce-upgrade-sync.${kind}`))
    const verified = await runProgram('systemd-analyze', ['verify', '--man=no', ...files])
    expect(verified).toMatchObject({ exitCode: 0, output: '' })
    const [, start] = /^ExecStart=(.*)$/m.exec(here(service))!
    const env = { ...variables, HOME: temporaryDirectory() }
    const [program, ...args] = start!.split(' ')
    const result = await runProgram(program!, args, { cwd: copy, env })
    expect(result).toMatchObject({ exitCode: 0, output: '' })
    await allThere(site, 'skoala', bundleOf('skoala'))
  })
})

describe('what would go unseen is seen', () => {
  const module = 'skoala'
  const bundle = bundleOf(module)

  test('--all names what no module claims, and a directory that is not there: 66', async () => {
    const directory = temporaryDirectory()
    symlinkSync(bundle, join(directory, basename(bundle)))
    writeFileSync(join(directory, 'kangaroo-1.0.0.bundle.tar'), '')
    const site = emptySite()
    const all = (path: string) =>
      runInLab('sync-images', ['--all', '--quiet', '--site', site.site, '--bundle', path])
    const result = await all(directory)
    expect(result.stderr).toMatch(/not taken[^\n]*: kangaroo-1\.0\.0\.bundle\.tar\n/)
    expect(result).toMatchObject({ exitCode: 0, stdout: '' })
    const missing = await all('/nowhere')
    expect(missing.stderr).toContain('the directory /nowhere does not exist: is it mounted?')
    expect(missing.exitCode).toBe(66)
    expect((await runInLab('sync-images', ['--all', '--help'])).exitCode).toBe(0)
  })

  test('TERM to npx ends a run with --all: nothing is left at work, and no further module begins', async () => {
    const directory = temporaryDirectory()
    for (const each of ['kairship', 'skoala'])
      symlinkSync(bundleOf(each), join(directory, basename(bundleOf(each))))
    const site = emptySite()
    const { env: mark, processes, stopped } = markedRun()
    const env = scriptEnv({ ...lab.env, ...mark })
    const args = [
      'zx',
      'scripts/sync-images.mts',
      '--all',
      '--site',
      site.site,
      '--bundle',
      directory,
    ]
    const npx = spawn('npx', args, { cwd: ROOT, env, stdio: 'ignore' })
    const goOn = await stopped()
    npx.kill('SIGTERM')
    await new Promise((done) => setTimeout(done, 1500))
    goOn()
    await vi.waitFor(() => expect(processes()).toEqual([]), { timeout: 60_000, interval: 100 })
    expect(auditOf(site.state, 'skoala')).toEqual([])
    nothingLeft(site.state, 'kairship')
  })

  test('two at once for one path of the registry: the second is told who is at work, 75', async () => {
    const site = emptySite()
    const { env, stopped } = markedRun()
    const first = sync(site, module, bundle, [], env)
    const goOn = await stopped()
    const second = await sync(site, module, bundle).finally(goOn)
    expect(second.output).toMatch(/registry path \S+ is locked by script sync-images, pid/)
    expect(second.exitCode).toBe(75)
    expect((await first).exitCode).toBe(0)
    await allThere(site, module, bundle)
  })

  test('two sites that share one state directory do not take each other’s working files: 75', async () => {
    const site = emptySite()
    const second = join(dirname(site.site), 'second.yaml')
    const text = readFileSync(site.site, 'utf8')
    writeFileSync(second, text.replaceAll(site.project, `${site.project}-second`))
    const { env, stopped } = markedRun()
    const first = sync(site, module, bundle, [], env)
    const goOn = await stopped()
    const other = await sync({ ...site, site: second }, module, bundle).finally(goOn)
    expect(other.output).toMatch(/working files in \S+ is locked/)
    expect(other.exitCode).toBe(75)
    expect((await first).exitCode).toBe(0)
  })
})
