import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import {
  createServer as createHttpServer,
  request as httpRequest,
  type RequestListener,
} from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { type AddressInfo } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { processesOf } from '../support/interruptions.ts'
import { lab, runInLab } from '../support/lab-site.ts'
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
    expect(refused.output).toMatch(
      /another image stands under a name that the bundle has:[\s\S]*--replace-tags/,
    )
    expect(refused.stderr).toContain(`${path}:${tag}  is ${other[1]}, in the bundle ${one[1]}`)
    expect(refused.exitCode).toBe(78)
    expect(await idAt(path, tag)).toBe(other[1])

    const replaced = await sync(site, module, bundle, ['--replace-tags'])
    expect(replaced.exitCode, replaced.output).toBe(0)
    await allThere(site, module, bundle)
  })

  test('two at once for one path of the registry: the second is told who is at work, 75', async () => {
    const site = emptySite()
    const mark = randomBytes(8).toString('hex')
    const first = sync(site, module, bundle, [], { SYNC_RUN: mark })
    const syncer = () =>
      processesOf(`SYNC_RUN=${mark}`).find(({ command }) => /^charts-syncer sync --c/.test(command))
    await vi.waitFor(() => expect(syncer()).toBeDefined(), { timeout: 30_000, interval: 2 })
    const { pid } = syncer()!
    process.kill(pid, 'SIGSTOP')
    const second = await sync(site, module, bundle).finally(() => process.kill(pid, 'SIGCONT'))
    expect(second.output).toMatch(
      /registry path \S+ is locked; the holder is script sync-images, pid/,
    )
    expect(second.exitCode).toBe(75)
    expect((await first).exitCode).toBe(0)
    await allThere(site, module, bundle)
  })
})

describe('a bad bundle is refused with 65 before anything is pushed, also where no registry answers', () => {
  const good = bundleOf('skoala')
  const flipped = (path: string, where: number) => {
    const data = readFileSync(good)
    data[where]! ^= 1
    writeFileSync(path, data)
  }
  const cases: [string, (file: string) => void, RegExp][] = [
    [
      'a flipped bit in a layer',
      (file) => flipped(file, 400_000),
      /does not have the hash in its name/,
    ],
    ['a cut', (file) => writeFileSync(file, readFileSync(good).subarray(0, 900_000)), /is cut off/],
    [
      'arm64',
      (file) => void makeBundle(file, { architecture: 'arm64' }),
      /is for arm64; the site file says amd64/,
    ],
    [
      'the bundle of another module',
      (file) => symlinkSync(bundleOf('mspider'), file),
      /is a bundle of the chart mspider/,
    ],
    [
      'a wrong sha512 file',
      (file) => {
        symlinkSync(good, file)
        writeFileSync(`${file}.sha512`, `${'0'.repeat(128)}  ${basename(file)}\n`)
      },
      /does not have the sha512 that/,
    ],
  ]
  test.each(cases)('%s', async (_, make, sentence) => {
    const file = join(temporaryDirectory(), 'skoala-0.14.0.bundle.tar')
    make(file)
    for (const changes of [{}, { containerRegistry: '127.0.0.1:1' }]) {
      const site = emptySite('HARBOR', changes)
      const result = await sync(site, 'skoala', file)
      expect(result.stderr).toMatch(sentence)
      expect(result.stderr).toContain('nothing was pushed')
      expect(result.exitCode, result.output).toBe(65)
      expect(ranChartsSyncer(site.state, 'skoala')).toBe(0)
      expect(await chartThere(site, 'skoala', '0.14.0')).toBe(false)
    }
  })
})

describe('what can be wrong with a site has its own sentence and exit code, and nothing is pushed', () => {
  const bundle = bundleOf('skoala')

  /** A server that stands in for one that can't be had here. */
  async function standIn(answer: RequestListener, tls?: { key: Buffer; cert: Buffer }) {
    const server = tls ? createHttpsServer(tls, answer) : createHttpServer(answer)
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
    onTestFinished(() => void server.close())
    return `127.0.0.1:${(server.address() as AddressInfo).port}`
  }

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
      (request, response) => {
        const { method, url, headers } = request
        const [hostname, port] = registry.host.split(':')
        const forwarded = { ...headers, 'x-forwarded-proto': 'https' }
        const options = { hostname, port, method, path: url, headers: forwarded }
        const onward = httpRequest(options, (answer) => {
          response.writeHead(answer.statusCode!, answer.headers)
          answer.pipe(response)
        })
        request.pipe(onward)
      },
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
    await isRefused(emptySite('HARBOR', { containerRegistry: host }), 78, /has no project p\d+-\d+/)
  })

  test('a Harbor without chart repository, which answers with a web page: 78, with what to set', async () => {
    const host = await standIn((_, response) => response.end('<!doctype html><html>Harbor</html>'))
    const url = `http://${host}/chartrepo/release.daocloud.io`
    const site = emptySite('HARBOR', { chartRepository: { kind: 'HARBOR', url, login: true } })
    await isRefused(
      site,
      78,
      /there is no chart repository at \S+: it answers 200 with a web page[\s\S]*kind: OCI/,
    )
  })

  test('a directory without a bundle of the module: 66, with what it has', async () => {
    const directory = temporaryDirectory()
    writeFileSync(join(directory, 'other.tar'), '')
    const result = await sync(emptySite(), 'skoala', directory)
    expect(result.stderr).toMatch(
      /no bundle of skoala\S* in \S+: it has other\.tar|no bundle of skoala/,
    )
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

test('a download with a bundle and its sha512 in it is synced', async () => {
  const directory = temporaryDirectory()
  const bundle = join(directory, 'skoala_0.14.0.bundle.tar')
  symlinkSync(bundleOf('skoala'), bundle)
  const sha512 = createHash('sha512').update(readFileSync(bundle)).digest('hex')
  writeFileSync(`${bundle}.sha512sum`, `${sha512}  ${basename(bundle)}\n`)
  const file = join(directory, 'skoala_v0.14.0_amd64.tar')
  const names = [basename(bundle), `${basename(bundle)}.sha512sum`]
  await runProgram('tar', ['-C', directory, '-h', '-cf', file, ...names])
  const site = emptySite()
  const result = await sync(site, 'skoala', file)
  expect(result.exitCode, result.output).toBe(0)
  expect(result.stdout).toContain('sha512 in skoala_0.14.0.bundle.tar.sha512sum')
  await allThere(site, 'skoala', bundleOf('skoala'))
  nothingLeft(site.state, 'skoala')
})

test('old and new bundles of a module side by side in one directory all come in', async () => {
  const directory = temporaryDirectory()
  const { old, new: next } = lab.modules['skoala']!
  for (const { bundle } of [old, next]) symlinkSync(bundle, join(directory, basename(bundle)))
  const site = emptySite()
  const result = await sync(site, 'skoala', directory)
  expect(result.exitCode, result.output).toBe(0)
  for (const { bundle, version } of [old, next]) {
    await allThere(site, 'skoala', bundle)
    expect(await chartThere(site, 'skoala', version)).toBe(true)
  }
})

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

test('a bundle of over 8 GiB is read with less than 200 MB of memory', async () => {
  const directory = temporaryDirectory()
  const size = 9 * 2 ** 30
  const zeros = (
    await runProgram('bash', ['-c', `head -c ${size} /dev/zero | sha256sum`])
  ).stdout.slice(0, 64)
  const work = join(directory, 'work')
  mkdirSync(join(work, 'original-chart'), { recursive: true })
  const config = JSON.stringify({
    architecture: 'amd64',
    rootfs: { type: 'layers', diff_ids: ['sha256:0'] },
  })
  const id = createHash('sha256').update(config).digest('hex')
  writeFileSync(join(work, `sha256:${id}`), config)
  const layer = openSync(join(work, `${zeros}.tar.gz`), 'w')
  ftruncateSync(layer, size)
  closeSync(layer)
  writeFileSync(
    join(work, 'manifest.json'),
    JSON.stringify([
      { Config: `sha256:${id}`, RepoTags: ['r.io/skoala/api:v1'], Layers: [`${zeros}.tar.gz`] },
    ]),
  )
  writeFileSync(join(work, 'hints.yaml'), "- 'r.io/skoala/api:v1'\n")
  writeFileSync(join(work, 'original-chart/Chart.yaml'), 'name: skoala\nversion: 0.14.0\n')
  writeFileSync(join(work, 'original-chart/values.yaml'), '{}\n')
  const file = join(directory, 'skoala-0.14.0.bundle.tar')
  // tar reads the zeros of a sparse file quickly; what it writes is made sparse again by cp
  const pack = `cd ${work} && tar --format=pax --force-local -cf - sha256:* *.tar.gz manifest.json | cp --sparse=always /dev/stdin images.tar && rm *.tar.gz && tar --format=pax -cf - hints.yaml original-chart/Chart.yaml original-chart/values.yaml images.tar | cp --sparse=always /dev/stdin ${file} && rm images.tar`
  const packed = await runProgram('bash', ['-c', pack])
  expect(packed.exitCode, packed.output).toBe(0)
  const site = emptySite('HARBOR', { containerRegistry: '127.0.0.1:1' })
  const line =
    'node_modules/.bin/zx "$@" & pid=$!; while kill -0 $pid 2>/dev/null; do grep -s VmHWM /proc/$pid/status > "$0.new" && mv "$0.new" "$0"; sleep 0.2; done; wait $pid'
  const memory = join(directory, 'memory')
  const args = [
    'scripts/sync-images.mts',
    '--module',
    'skoala',
    '--site',
    site.site,
    '--bundle',
    file,
  ]
  const result = await runProgram('bash', ['-c', line, memory, ...args], {
    env: scriptEnv(lab.env),
  })
  expect(result.output).toMatch(/966\d MB are read and right/)
  expect(result.exitCode, result.output).toBe(69)
  expect(Number(/(\d+) kB/.exec(readFileSync(memory, 'utf8'))![1])).toBeLessThan(200_000)
}, 900_000)

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
      new RegExp(`is made for other places: it has \\S+/${site.project}/skoala/skoala-\\w+:v`),
    )
    expect(other.exitCode, other.output).toBe(78)
    expect(await idAt(`${site.project}-other/${module}/skoala-api`, `v${version}`)).toBeUndefined()
  })

  test('one bad bundle in a directory: the others come in, and the run ends with 65', async () => {
    const directory = temporaryDirectory()
    symlinkSync(bundle, join(directory, basename(bundle)))
    writeFileSync(
      join(directory, 'skoala-0.15.0.bundle.tar'),
      readFileSync(bundle).subarray(0, 90_000),
    )
    symlinkSync(bundleOf('mspider'), join(directory, 'skoala-agent-0.1.0.bundle.tar'))
    const site = emptySite()
    const result = await sync(site, module, directory)
    expect(result.stderr).toMatch(
      /skoala-0\.15\.0\.bundle\.tar[^\n]*cut off[\s\S]*the other bundles are in/,
    )
    expect(result.stdout).toMatch(
      /skoala-agent-0\.1\.0\.bundle\.tar: not taken: .*the chart mspider/,
    )
    expect(result.exitCode, result.output).toBe(65)
    await allThere(site, module, bundle)
  })

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
    expect(missing.stderr).toContain('there is no directory /nowhere: is it mounted?')
    expect(missing.exitCode).toBe(66)
    expect((await runInLab('sync-images', ['--all', '--help'])).exitCode).toBe(0)
  })

  test('TERM to npx ends a run with --all: nothing is left at work, and no further module begins', async () => {
    const directory = temporaryDirectory()
    for (const each of ['kairship', 'skoala'])
      symlinkSync(bundleOf(each), join(directory, basename(bundleOf(each))))
    const site = emptySite()
    const mark = randomBytes(8).toString('hex')
    const { NODE_OPTIONS: _, ...env } = scriptEnv({ ...lab.env, SYNC_RUN: mark })
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
    const ours = () => processesOf(`SYNC_RUN=${mark}`)
    const syncer = () => ours().find(({ command }) => /^charts-syncer sync --c/.test(command))
    await vi.waitFor(() => expect(syncer()).toBeDefined(), { timeout: 30_000, interval: 2 })
    const { pid } = syncer()!
    process.kill(pid, 'SIGSTOP')
    npx.kill('SIGTERM')
    await new Promise((done) => setTimeout(done, 1500))
    process.kill(pid, 'SIGCONT')
    await vi.waitFor(() => expect(ours()).toEqual([]), { timeout: 60_000, interval: 100 })
    expect(existsSync(join(site.state, 'skoala'))).toBe(false)
    nothingLeft(site.state, 'kairship')
  })

  test('two sites that share one state directory do not take each other’s working files: 75', async () => {
    const site = emptySite()
    const second = join(dirname(site.site), 'second.yaml')
    const text = readFileSync(site.site, 'utf8')
    writeFileSync(second, text.replaceAll(site.project, `${site.project}-second`))
    const mark = randomBytes(8).toString('hex')
    const first = sync(site, module, bundle, [], { SYNC_RUN: mark })
    const syncer = () =>
      processesOf(`SYNC_RUN=${mark}`).find(({ command }) => /^charts-syncer sync --c/.test(command))
    await vi.waitFor(() => expect(syncer()).toBeDefined(), { timeout: 30_000, interval: 2 })
    const { pid } = syncer()!
    process.kill(pid, 'SIGSTOP')
    const other = await sync({ ...site, site: second }, module, bundle).finally(() =>
      process.kill(pid, 'SIGCONT'),
    )
    expect(other.output).toMatch(/working files in \S+ is locked/)
    expect(other.exitCode).toBe(75)
    expect((await first).exitCode).toBe(0)
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
    const server = createHttpServer((request, response) => {
      const { method, url, headers } = request
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
      const [hostname, port] = registry.host.split(':')
      const onward = httpRequest(
        { hostname, port, method, path: url, headers: { ...headers, authorization } },
        (answer) => {
          response.writeHead(answer.statusCode!, answer.headers)
          answer.pipe(response)
        },
      )
      request.pipe(onward)
    })
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
    onTestFinished(() => void server.close())
    const host = `127.0.0.1:${(server.address() as AddressInfo).port}`
    const site = emptySite('HARBOR', { containerRegistry: host })
    const result = await sync(site, module, tagged)
    expect(result.exitCode, result.output).toBe(0)
    await new Promise((done) => setTimeout(done, 1100))
    const again = await sync(site, module, tagged)
    expect(again.exitCode, again.output).toBe(0)
    expect(again.stdout).toContain('nothing to do')
  })
})
