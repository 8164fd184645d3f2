import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { copyOfTheCollection, ROOT, runScript, temporaryDirectory } from '../support/run-script.ts'

const example = ['--site', 'site.example.yaml']

describe('wrong usage is refused with 64 and a sentence that helps', () => {
  test.each([
    [
      'an unknown module: the known ones are listed',
      ['--module', 'mspidr'],
      /no module "mspidr".*kairship, mspider, skoala, spidernet.*Did you mean mspider/,
    ],
    ['no module at all: an example is given', [], /--module is missing, for example: npx zx/],
    [
      'a misspelt flag: the near one is named',
      ['--moduel', 'mspider'],
      /--moduel is not a flag of upgrade\. Did you mean --module/,
    ],
    [
      'a flag of another tool',
      ['--module', 'mspider', '--set', 'a=b'],
      /--set is not a flag of upgrade/,
    ],
    ['a word behind no flag', ['--module', 'mspider', 'now'], /unexpected argument "now"/],
    [
      'a flag without its value',
      ['--module', 'mspider', '--version'],
      /--version needs a value: VERSION/,
    ],
    [
      'a flag that is given twice',
      ['--module', 'mspider', '--module', 'skoala'],
      /--module is given twice/,
    ],
    ['a switch with a value', ['--module', 'mspider', '--dry-run=no'], /--dry-run takes no value/],
    ['a negated switch', ['--module', 'mspider', '--no-dry-run'], /--no-dry-run is not a flag/],
    [
      'a way that does not exist',
      ['--module', 'mspider', '--via', 'ftp'],
      /--via "ftp" must be repo\|package/,
    ],
    [
      'a placeholder of the manual',
      ['--module', 'mspider', '--version', '{version}'],
      /must be VERSION, without \{ \} or blanks/,
    ],
    [
      'a value with a blank',
      ['--module', 'mspider', '--version', '0.20 .1'],
      /must be VERSION, without \{ \} or blanks/,
    ],
    [
      'a duration without a unit',
      ['--module', 'mspider', '--timeout', '90'],
      /--timeout "90" must be a number with s, m or h, such as 90s, 10m, 1h/,
    ],
    [
      'more than a day, which no timer can count',
      ['--module', 'mspider', '--timeout', '600h'],
      /--timeout 600h is more than a day/,
    ],
    [
      'a chart with the repository path',
      ['--module', 'mspider', '--chart', 'x.tgz'],
      /--chart goes with --via package/,
    ],
    [
      'the package path without a chart',
      ['--module', 'mspider', '--via', 'package'],
      /needs --chart PATH/,
    ],
    [
      'an installation without values',
      ['--module', 'mspider', '--install'],
      /--install needs --values/,
    ],
    [
      'values without an installation',
      ['--module', 'mspider', '--values', 'v.yaml'],
      /--values goes with --install/,
    ],
    [
      'a release of another module',
      ['--module', 'mspider', '--release', 'skoala'],
      /no such release\. It has: mspider/,
    ],
  ])('%s', async (_, args, sentence) => {
    const result = await runScript('upgrade', [...args, ...example])
    expect(result.output).toMatch(sentence)
    expect(result).toMatchObject({ exitCode: 64, stdout: '' })
  })

  test('--version 1.10 stays 1.10', async () => {
    const args = ['--module', 'mspider', '--version', '1.10', ...example, '--dry-run']
    expect((await runScript('upgrade', args)).stdout).toContain('export version=1.10\n')
  })

  test('--help tells every flag, the modules and the exit codes, in English and Chinese', async () => {
    const result = await runScript('upgrade', ['--help'])
    expect(result.exitCode).toBe(0)
    for (const word of [
      '--via repo|package',
      '--allow-downgrade',
      '模块',
      'spidernet',
      '75',
      '128+n',
      'CHART_REPO_PASSWORD',
    ]) {
      expect(result.stdout).toContain(word)
    }
  })
})

describe('a wrong site file is refused with 78, its path and a sentence', () => {
  const good = readFileSync(join(ROOT, 'site.example.yaml'), 'utf8')
  test.each([
    [
      'a misspelt field',
      good.replace('project:', 'projekt:'),
      /"projekt" is not known here. Did you mean project\?/,
    ],
    ['a missing field', good.replace(/^context:.*$/m, ''), /must have required property 'context'/],
    [
      'an unknown kind',
      good.replace('kind: HARBOR', 'kind: HABOR'),
      /\/chartRepository\/kind: "HABOR" must be one of HARBOR, CHARTMUSEUM, OCI, LOCAL/,
    ],
    [
      'a placeholder of the manual',
      good.replace('http://10.16.10.111/', 'http://{harbor_url}/'),
      /\/chartRepository\/url: "http:\/\/\{harbor_url\}\S* must not contain \{ \} or blanks/,
    ],
    [
      'a placeholder with a blank',
      good.replace('http://10.16.10.111/', 'http://{harbor url}/'),
      /\/chartRepository\/url.*(blanks|look right)/,
    ],
    [
      'a registry with a scheme',
      good.replace('containerRegistry: 10', 'containerRegistry: http://10'),
      /\/containerRegistry: "http:.*host\[:port\]/,
    ],
    [
      'a password in a URL',
      good.replace('http://10', 'http://admin:Harbor12345@10'),
      /\/chartRepository\/url/,
    ],
    [
      'an OCI repository with a http URL',
      good.replace('kind: HARBOR', 'kind: OCI'),
      /must begin with oci:\/\/ for OCI/,
    ],
    ['no YAML', 'a: [', /site\.yaml/],
    ['an empty file', '', /must be object/],
  ])('%s', async (_, text, sentence) => {
    const site = join(temporaryDirectory(), 'site.yaml')
    writeFileSync(site, text)
    const result = await runScript('upgrade', ['--module', 'mspider', '--site', site])
    expect(result.output).toMatch(sentence)
    expect(result).toMatchObject({ exitCode: 78, stdout: '' })
    expect(existsSync(join(site, '../state'))).toBe(false)
  })

  test('a site file that does not exist', async () => {
    const result = await runScript('upgrade', ['--module', 'mspider', '--site', 'nowhere.yaml'])
    expect(result.output).toMatch(
      /nowhere\.yaml does not exist[\s\S]*cp site\.example\.yaml site\.yaml/,
    )
    expect(result.exitCode).toBe(78)
  })

  test('a registry value for a key that the module does not have', async () => {
    const site = join(temporaryDirectory(), 'site.yaml')
    writeFileSync(site, `${good}\nregistryValues: {skoala: {repo: {global.imageRegisty: 'x'}}}\n`)
    const result = await runScript('upgrade', ['--module', 'skoala', '--site', site, '--dry-run'])
    expect(result.output).toMatch(
      /global\.imageRegisty: skoala has no such key\. It has: global\.imageRegistry/,
    )
    expect(result.exitCode).toBe(78)
  })

  test('a kind: LOCAL site has no repository to upgrade from', async () => {
    const site = join(temporaryDirectory(), 'site.yaml')
    writeFileSync(site, good.replace(/kind: HARBOR[^]*?login: true.*$/m, 'kind: LOCAL'))
    const result = await runScript('upgrade', ['--module', 'skoala', '--site', site])
    expect(result.output).toMatch(/kind: LOCAL[\s\S]*--via package/)
    expect(result.exitCode).toBe(78)
  })
})

test.each(['helm', 'kubectl'])('without %s on PATH nothing is run: 78', async (tool) => {
  const directory = temporaryDirectory()
  const site = join(directory, 'site.yaml')
  writeFileSync(site, readFileSync(join(ROOT, 'site.example.yaml')))
  const other = tool === 'helm' ? 'kubectl' : 'helm'
  writeFileSync(join(directory, other), '#!/bin/sh\nexit 1\n', { mode: 0o755 })
  const node = process.execPath.replace(/\/node$/, '')
  const nodeOnly = join(directory, 'bin')
  const { mkdirSync, symlinkSync } = await import('node:fs')
  mkdirSync(nodeOnly)
  for (const program of ['sh', 'bash', 'env', 'tar', 'flock'])
    symlinkSync(`/usr/bin/${program}`, join(nodeOnly, program))
  symlinkSync(join(node, 'node'), join(nodeOnly, 'node'))
  const env = { PATH: `${directory}:${nodeOnly}` }
  const result = await runScript('upgrade', ['--module', 'mspider', '--site', site], { env })
  expect(result.output).toMatch(new RegExp(`not found on PATH: ${tool} `))
  expect(result.exitCode).toBe(78)
  // the refusal is in the audit, and no command
  const audit = readFileSync(join(directory, 'state/example/mspider/audit.jsonl'), 'utf8')
  const events = audit
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line).event)
  expect(events).toEqual(['start', 'end'])
})

describe('a module is added with a descriptor alone', () => {
  const insight = {
    $schema: './schemas/module.schema.json',
    name: 'insight',
    title: { en: 'Insight', zh: '可观测性' },
    manuals: [],
    bundle: { directory: 'insight-offline', file: 'insight.bundle.tar' },
    containerRepository: '{project}/insight',
    releases: ['insight', 'insight-agent'].map((release) => ({
      release,
      namespace: 'insight-system',
      repository: 'addon',
      chart: release,
      backup: `${release}-bak.yaml`,
      ...(release === 'insight-agent' && {
        crds: { directories: ['charts/kube-prometheus-stack/crds'], mayBeMissing: true },
      }),
      registryKeys: {
        repo: {
          'global.imageRegistry': '{containerRegistry}',
          'ui.image.registry': '{containerRegistry}/{project}',
        },
        package: { 'global.imageRegistry': '{containerRegistry}/{containerRepository}' },
      },
    })),
  }
  const dryRun = ['--module', 'insight', ...example, '--dry-run']

  test('two releases, a repository of another name, CRDs elsewhere, keys of different form', async () => {
    const copy = copyOfTheCollection()
    writeFileSync(join(copy, 'modules/insight.json'), JSON.stringify(insight))
    const result = await runScript('upgrade', dryRun, { cwd: copy })
    expect(result).toMatchObject({ exitCode: 0, stderr: '' })
    await expect(result.stdout).toMatchFileSnapshot(
      '../dry-run/golden/upgrade.insight-two-releases.repo.sh',
    )
  })

  test('its chart package is for one release, which is named', async () => {
    const copy = copyOfTheCollection()
    writeFileSync(join(copy, 'modules/insight.json'), JSON.stringify(insight))
    const args = [...dryRun, '--via', 'package', '--chart', 'insight-agent-0.1.0.tgz']
    expect(await runScript('upgrade', args, { cwd: copy })).toMatchObject({ exitCode: 64 })
    const result = await runScript('upgrade', [...args, '--release', 'insight-agent'], {
      cwd: copy,
    })
    expect(result.exitCode, result.output).toBe(0)
    expect(result.stdout).toContain('-f ./insight-agent-bak.yaml')
    expect(result.stdout).not.toContain('-f ./insight-bak.yaml')
  })

  test.each([
    [
      'an unknown key',
      { ...insight, crd: true },
      /modules\/insight\.json \/: "crd" is not known here/,
    ],
    [
      'a key inside',
      { ...insight, releases: [{ ...insight.releases[0], namespce: 'x' }] },
      /\/releases\/0: "namespce" is not known here\. Did you mean namespace\?/,
    ],
    [
      'an unknown placeholder',
      { ...insight, containerRepository: '{projekt}/insight' },
      /\/containerRepository: "\{projekt\}\/insight" does not look right/,
    ],
    ['another name than the file has', { ...insight, name: 'insigt' }, /\/name: must be "insight"/],
    [
      'two releases with one backup',
      { ...insight, releases: insight.releases.map((each) => ({ ...each, backup: 'bak.yaml' })) },
      /each release needs a backup of its own/,
    ],
  ])('%s in a descriptor is refused with its path: 78', async (_, descriptor, sentence) => {
    const copy = copyOfTheCollection()
    writeFileSync(join(copy, 'modules/insight.json'), JSON.stringify(descriptor))
    const result = await runScript('upgrade', dryRun, { cwd: copy })
    expect(result.output).toMatch(sentence)
    expect(result.exitCode).toBe(78)
  })
})
