import { createHash } from 'node:crypto'
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { lab } from '../support/lab-site.ts'
import { makeBundle } from '../support/make-bundle.ts'
import {
  allThere,
  bundleOf,
  chartThere,
  emptySite,
  nothingLeft,
  ranChartsSyncer,
  sync,
} from '../support/sync-site.ts'
import { runProgram, scriptEnv, temporaryDirectory } from '../support/run-script.ts'

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
      /does not have the sha512 in/,
    ],
  ]
  test.each(cases)('%s', async (_, make, sentence) => {
    const file = join(temporaryDirectory(), 'skoala-0.14.0.bundle.tar')
    make(file)
    for (const changes of [{}, { containerRegistry: '127.0.0.1:1' }]) {
      const site = emptySite('HARBOR', changes)
      const result = await sync(site, 'skoala', file)
      expect(result.stderr).toMatch(sentence)
      expect(result.stderr).toContain(
        'nothing in the cluster, in the registry or on a node was changed',
      )
      expect(result.exitCode, result.output).toBe(65)
      expect(ranChartsSyncer(site.state, 'skoala')).toBe(0)
      expect(await chartThere(site, 'skoala', '0.14.0')).toBe(false)
    }
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

test('one bad bundle in a directory: the others come in, and the run ends with 65', async () => {
  const directory = temporaryDirectory()
  const bundle = bundleOf('skoala')
  symlinkSync(bundle, join(directory, basename(bundle)))
  writeFileSync(
    join(directory, 'skoala-0.15.0.bundle.tar'),
    readFileSync(bundle).subarray(0, 90_000),
  )
  symlinkSync(bundleOf('mspider'), join(directory, 'skoala-agent-0.1.0.bundle.tar'))
  const site = emptySite()
  const result = await sync(site, 'skoala', directory)
  expect(result.stderr).toMatch(
    /skoala-0\.15\.0\.bundle\.tar[^\n]*cut off[\s\S]*the other bundles are in/,
  )
  expect(result.stdout).toMatch(
    /skoala-agent-0\.1\.0\.bundle\.tar: not taken.*: .*the chart mspider/,
  )
  expect(result.exitCode, result.output).toBe(65)
  await allThere(site, 'skoala', bundle)
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
  expect(result.output).toMatch(/966\d MB read and verified/)
  expect(result.exitCode, result.output).toBe(69)
  expect(Number(/(\d+) kB/.exec(readFileSync(memory, 'utf8'))![1])).toBeLessThan(200_000)
}, 900_000)
