import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { lab } from '../support/lab-site.ts'
import { makeBundle } from '../support/make-bundle.ts'
import {
  allThere,
  authorization,
  bundleOf,
  chartThere,
  emptySite,
  idAt,
  imagesOf,
  manifest,
  nothingLeft,
  ranChartsSyncer,
  registry,
  standIn,
  sync,
  toRegistry,
  type Site,
} from '../support/sync-site.ts'
import { runProgram, temporaryDirectory } from '../support/run-script.ts'

test.each(['skoala', 'kairship', 'mspider', 'spidernet'])(
  '%s comes to the registry and to each kind of chart repository, and a second run does nothing',
  async (module) => {
    for (const kind of ['HARBOR', 'CHARTMUSEUM', 'OCI', 'LOCAL']) {
      const site = emptySite(kind)
      const bundle = bundleOf(module)
      const first = await sync(site, module, dirname(bundle))
      expect(first.exitCode, first.output).toBe(0)
      await allThere(site, module, bundle)
      expect(await chartThere(site, module, lab.modules[module]!.new.version)).toBe(true)
      nothingLeft(site.state, module)
      const again = await sync(site, module, dirname(bundle), ['--json'])
      expect(again.exitCode, again.output).toBe(0)
      expect(JSON.parse(again.stdout)).toMatchObject({
        exitCode: 0,
        bundles: [{ chart: module, pushed: 0, missing: [], different: [], chartInPlace: true }],
      })
      expect(ranChartsSyncer(site.state, module)).toBe(1)
    }
  },
)

describe('after something went wrong, a plain re-run ends in the verified state', () => {
  const module = 'mspider'
  const bundle = bundleOf(module)

  test.each(['HARBOR', 'LOCAL'])(
    'images that are gone from the registry while the chart is there are pushed again (%s)',
    async (kind) => {
      const site = emptySite(kind)
      expect((await sync(site, module, bundle)).exitCode).toBe(0)
      const images = Object.keys(await imagesOf(bundle))
      for (const gone of [images.slice(0, 1), images]) {
        for (const image of gone) {
          const [name, tag] = image.split(':') as [string, string]
          const path = `${site.project}/${module}/${name}`
          const digest = (await manifest('GET', path, tag)).headers.get('docker-content-digest')!
          expect((await manifest('DELETE', path, digest)).status).toBe(202)
          expect(await idAt(path, tag)).toBeUndefined()
        }
        const again = await sync(site, module, bundle)
        expect(again.exitCode, again.output).toBe(0)
        await allThere(site, module, bundle)
      }
      nothingLeft(site.state, module)
    },
  )

  test('another image under a name of the bundle is named and kept, and replaced only with --replace-tags', async () => {
    const site = emptySite()
    expect((await sync(site, module, bundle)).exitCode).toBe(0)
    const [one, other] = Object.entries(await imagesOf(bundle)) as [
      [string, string],
      [string, string],
    ]
    const [name, tag] = one[0].split(':') as [string, string]
    const path = `${site.project}/${module}/${name}`
    const otherPath = `${site.project}/${module}/${other[0].split(':')[0]}`
    const body = await (await manifest('GET', otherPath, tag)).text()
    const { config, layers } = JSON.parse(body)
    for (const { digest } of [config, ...layers]) {
      const mount = `http://${registry.host}/v2/${path}/blobs/uploads/?mount=${digest}&from=${otherPath}`
      await fetch(mount, { method: 'POST', headers: { authorization } })
    }
    expect((await manifest('PUT', path, tag, body)).status).toBe(201)
    expect(await idAt(path, tag)).toBe(other[1])

    const refused = await sync(site, module, bundle)
    expect(refused.output).toMatch(/a different image already has this name:[\s\S]*--replace-tags/)
    expect(refused.stderr).toContain(`${path}:${tag}  is ${other[1]}, in the bundle ${one[1]}`)
    expect(refused.exitCode).toBe(78)
    expect(await idAt(path, tag)).toBe(other[1])

    const replaced = await sync(site, module, bundle, ['--replace-tags'])
    expect(replaced.exitCode, replaced.output).toBe(0)
    await allThere(site, module, bundle)
  })
})

describe('what can be wrong with a site has its own sentence and exit code, and nothing is pushed', () => {
  const bundle = bundleOf('skoala')

  async function isRefused(site: Site, exitCode: number, sentence: RegExp, env = {}) {
    const result = await sync(site, 'skoala', bundle, [], env)
    expect(result.stderr).toMatch(sentence)
    expect(result.exitCode, result.output).toBe(exitCode)
    expect(ranChartsSyncer(site.state, 'skoala')).toBe(0)
    return result
  }

  test('a password that the registry does not accept: 77', () =>
    isRefused(emptySite(), 77, /refuses REGISTRY_USERNAME and REGISTRY_PASSWORD \(401\)/, {
      REGISTRY_PASSWORD: 'wrong-one',
    }))

  test('a password that the chart repository does not accept: 77', () =>
    isRefused(emptySite(), 77, /refuses CHART_REPO_USERNAME and CHART_REPO_PASSWORD \(401\)/, {
      CHART_REPO_PASSWORD: 'wrong-one',
    }))

  test('no password in the environment: 78, with what to set', () =>
    isRefused(emptySite(), 78, /not set: REGISTRY_PASSWORD[\s\S]*read -rs REGISTRY_PASSWORD/, {
      REGISTRY_PASSWORD: '',
    }))

  test('a registry that is down: 69', () =>
    isRefused(
      emptySite('HARBOR', { containerRegistry: '127.0.0.1:1' }),
      69,
      /127\.0\.0\.1:1 cannot be reached: .*ECONNREFUSED/,
    ))

  test('a registry whose certificate is not trusted: 78; with its CA in the site file the bundle comes in', async () => {
    const directory = temporaryDirectory()
    const [key, cert] = [join(directory, 'key'), join(directory, 'ca.crt')]
    const subject = ['-subj', '/CN=lab', '-addext', 'subjectAltName=IP:127.0.0.1']
    await runProgram('openssl', [
      'req',
      '-x509',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-days',
      '2',
      '-keyout',
      key,
      '-out',
      cert,
      ...subject,
    ])
    // TLS in front of the lab's registry
    const host = await standIn(
      (request, response) => toRegistry(request, response, { 'x-forwarded-proto': 'https' }),
      { key: readFileSync(key), cert: readFileSync(cert) },
    )
    const site = emptySite('HARBOR', { containerRegistry: host })
    await isRefused(site, 78, /the certificate of \S+ is not trusted[\s\S]*containerRegistryCaFile/)
    const trusted = emptySite('HARBOR', { containerRegistry: host, containerRegistryCaFile: cert })
    const result = await sync(trusted, 'skoala', bundle)
    expect(result.exitCode, result.output).toBe(0)
    await allThere(trusted, 'skoala', bundle)
  })

  test('a project that the registry does not have: 78', async () => {
    const host = await standIn((_, response) =>
      response
        .writeHead(404, { 'content-type': 'application/json' })
        .end('{"errors":[{"code":"NOT_FOUND","message":"project release.daocloud.io not found"}]}'),
    )
    await isRefused(
      emptySite('HARBOR', { containerRegistry: host }),
      78,
      /project p\d+-\d+ does not exist/,
    )
  })

  test('a Harbor without chart repository, which answers with a web page: 78, with what to set', async () => {
    const host = await standIn((_, response) => response.end('<!doctype html><html>Harbor</html>'))
    const url = `http://${host}/chartrepo/release.daocloud.io`
    const site = emptySite('HARBOR', { chartRepository: { kind: 'HARBOR', url, login: true } })
    await isRefused(
      site,
      78,
      /\S+ is not a chart repository: it answers 200 with a web page[\s\S]*kind: OCI/,
    )
  })

  test('a directory without a bundle of the module: 66, with what it has', async () => {
    const directory = temporaryDirectory()
    writeFileSync(join(directory, 'other.tar'), '')
    const result = await sync(emptySite(), 'skoala', directory)
    expect(result.stderr).toMatch(/\S+ has no bundle of skoala\S*; it has other\.tar/)
    expect(result.exitCode).toBe(66)
  })

  test('a charts-syncer that cannot read bundles: 78, with what to install', async () => {
    const bin = temporaryDirectory()
    writeFileSync(join(bin, 'charts-syncer'), '#!/bin/sh\necho "--use-plain-http"\n', {
      mode: 0o755,
    })
    await isRefused(emptySite(), 78, /\(v2\) reads \*\.wrap\.tgz only/, {
      PATH: `${bin}:${lab.env['PATH']}`,
    })
  })
})

describe('what would go unseen is seen', () => {
  const module = 'skoala'
  const bundle = bundleOf(module)
  const version = lab.modules[module]!.new.version

  test('a chart in local-repo that is broken, or was made for another project, is made anew', async () => {
    const site = emptySite('LOCAL')
    expect((await sync(site, module, bundle)).exitCode).toBe(0)
    const chart = join(site.state, module, `local-repo/${module}-${version}.tgz`)
    const good = readFileSync(chart)
    writeFileSync(chart, good.subarray(0, 100))
    const again = await sync(site, module, bundle)
    expect(again.exitCode, again.output).toBe(0)
    expect(readFileSync(chart).length).toBeGreaterThan(100)

    // the same state, another project
    const text = readFileSync(site.site, 'utf8')
    writeFileSync(site.site, text.replace(site.project, `${site.project}-other`))
    const other = await sync(site, module, bundle)
    expect(other.exitCode, other.output).toBe(0)
    const values = await runProgram('tar', ['-xOzf', chart, `${module}/values.yaml`])
    expect(values.stdout).toContain(`${site.project}-other/${module}/`)
    await allThere({ ...site, project: `${site.project}-other` }, module, bundle)
  })

  test('a chart in the chart repository that was made for another project is named, and nothing is pushed: 78', async () => {
    const site = emptySite('HARBOR')
    expect((await sync(site, module, bundle)).exitCode).toBe(0)
    const text = readFileSync(site.site, 'utf8')
    writeFileSync(
      site.site,
      text.replace(`project: ${site.project}`, `project: ${site.project}-other`),
    )
    const other = await sync(site, module, bundle)
    expect(other.stderr).toMatch(
      new RegExp(`is made for another place: it has \\S+/${site.project}/skoala/skoala-\\w+:v`),
    )
    expect(other.exitCode, other.output).toBe(78)
    expect(await idAt(`${site.project}-other/${module}/skoala-api`, `v${version}`)).toBeUndefined()
  })

  test('a registry with tokens that live for a second, as Harbor hands them out, and a bundle with two tags of one name', async () => {
    const secret = randomBytes(8).toString('hex')
    const directory = temporaryDirectory()
    const tagged = makeBundle(join(directory, 'skoala-0.14.0.bundle.tar'), {
      manifest: ([a, ...rest]) => [
        a,
        { ...a, RepoTags: [a.RepoTags[0].replace(/:.*/, ':stable')] },
        ...rest,
      ],
      files: {
        'hints.yaml': [
          'skoala-api:v0.14.0',
          'skoala-api:stable',
          'skoala-agent:v0.14.0',
          'skoala-hive:v0.14.0',
        ]
          .map((_, index) => {
            const parts = ['api', 'second', 'agent', 'hive']
            return `- '{{ .${parts[index]}.image.repository }}:{{ .${parts[index]}.image.tag }}'\n`
          })
          .join(''),
        'original-chart/values.yaml': [
          'api:v0.14.0',
          'second:stable',
          'agent:v0.14.0',
          'hive:v0.14.0',
        ]
          .map((each) => {
            const [part, tag] = each.split(':')
            const name = part === 'second' ? 'api' : part
            return `${part}: {image: {repository: release.daocloud.io/skoala/skoala-${name}, tag: ${tag}}}\n`
          })
          .join(''),
      },
    })
    const host = await standIn((request, response) => {
      const { url, headers } = request
      if (url!.startsWith('/token')) {
        if (headers.authorization !== authorization) return void response.writeHead(401).end()
        return void response.end(JSON.stringify({ token: `${secret}-${Date.now()}` }))
      }
      const [, issued] =
        new RegExp(`^Bearer ${secret}-(\\d+)$`).exec(headers.authorization ?? '') ?? []
      if (!issued || Date.now() - Number(issued) > 1000) {
        const realm = `http://${headers.host}/token`
        const scope = `repository:${/^\/v2\/(.*?)\/(manifests|blobs)/.exec(url!)?.[1] ?? ''}:pull,push`
        const challenge = `Bearer realm="${realm}",service="lab",scope="${scope}"`
        return void response.writeHead(401, { 'www-authenticate': challenge }).end()
      }
      toRegistry(request, response, { authorization })
    })
    const site = emptySite('HARBOR', { containerRegistry: host })
    const result = await sync(site, module, tagged)
    expect(result.exitCode, result.output).toBe(0)
    await new Promise((done) => setTimeout(done, 1100))
    const again = await sync(site, module, tagged)
    expect(again.exitCode, again.output).toBe(0)
    expect(again.stdout).toContain('nothing to do')
  })
})
