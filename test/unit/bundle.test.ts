import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import fc from 'fast-check'
import { stringify } from 'yaml'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../lib/base/failure.ts'
import { readContent } from '../../lib/bundle/content.ts'
import { type Bundle, readBundle } from '../../lib/bundle/structure.ts'
import { makeBundle, type Recipe } from '../support/make-bundle.ts'
import { temporaryDirectory } from '../support/run-script.ts'

const seed = Number(process.env['SEED'] ?? 20261121)

const read = async (file: string): Promise<Bundle> => {
  const bundle = readBundle(file, ['skoala'], 'amd64')
  await readContent(bundle)
  return bundle
}

/** What a bundle brings to the registry: names and image IDs. */
const imagesOf = ({ images }: Bundle) =>
  images.map(({ source, target, id, layers }) => ({
    source,
    target,
    id,
    layers: layers.map((l) => l.name),
  }))

/** Reads it; a bundle that is refused is refused with 65 and a sentence. */
async function refusedOrRead(file: string): Promise<Bundle | undefined> {
  try {
    return await read(file)
  } catch (error) {
    expect(error).toBeInstanceOf(Failure)
    expect((error as Failure).exitCode).toBe(65)
    return undefined
  }
}

/** Where in the file each member of the bundle, and of its images.tar, has its content. */
function contents(file: string): { name: string; offset: number; size: number }[] {
  const list = execFileSync('tar', ['--block-number', '-tvf', file], { encoding: 'utf8' })
  return [...list.matchAll(/^block (\d+): \S+ \S+ +(\d+) \S+ \S+ (.*)$/gm)].map(
    ([, block, size, name]) => ({
      name: name!,
      offset: (Number(block) + 1) * 512,
      size: Number(size),
    }),
  )
}

test('a good bundle is read: its chart, its images with their IDs, and what GNU tar finds in it', async () => {
  for (const tar of [[], ['--format=pax'], ['--format=gnu']]) {
    const file = makeBundle(join(temporaryDirectory(), 'skoala-0.14.0.bundle.tar'), { tar })
    const bundle = await read(file)
    expect(bundle).toMatchObject({ chart: 'skoala', version: '0.14.0' })
    expect(bundle.inDownload).toBeUndefined()
    expect(bundle.images.map(({ target }) => target)).toEqual([
      'skoala-api:v0.14.0',
      'skoala-agent:v0.14.0',
      'skoala-hive:v0.14.0',
    ])
    const { region } = bundle
    expect(region.size).toBe(readFileSync(file).length)
  }
})

test('names over 100 characters are read in every format of tar', async () => {
  const long = `original-chart/templates/${'deep/'.repeat(30)}x.yaml`
  for (const tar of [[], ['--format=pax'], ['--format=gnu']]) {
    const file = makeBundle(join(temporaryDirectory(), 'b.tar'), { tar, files: { [long]: 'x' } })
    expect((await read(file)).images).toHaveLength(3)
  }
})

describe('what real tools write is read', () => {
  const cases: [string, Recipe, string[]][] = [
    [
      'an image with two tags, whose configuration appears twice',
      {
        manifest: ([a, ...rest]) => [
          a,
          { ...a, RepoTags: [a.RepoTags[0].replace(/:.*/, ':stable')] },
          ...rest,
        ],
        files: {
          'hints.yaml': stringify(
            [
              'skoala-api:v0.14.0',
              'skoala-api:stable',
              'skoala-agent:v0.14.0',
              'skoala-hive:v0.14.0',
            ].map((name) => `release.daocloud.io/skoala/${name}`),
          ),
        },
      },
      ['skoala-api:v0.14.0', 'skoala-api:stable', 'skoala-agent:v0.14.0', 'skoala-hive:v0.14.0'],
    ],
    [
      'a key that appears twice in values.yaml, the last of which helm takes',
      {
        images: { 'skoala-api': 'api' },
        files: {
          'original-chart/values.yaml':
            'global: {imageRegistry: release.daocloud.io/skoala}\napi: {image: {repository: x, tag: y}}\napi: {image: {repository: skoala-api, tag: v0.14.0}}\n',
        },
      },
      ['skoala-api:v0.14.0'],
    ],
    [
      'a reference without a tag, which means latest',
      {
        images: { 'skoala-api': 'api' },
        manifest: ([a]) => [{ ...a, RepoTags: ['docker.io/library/skoala-api:latest'] }],
        files: { 'hints.yaml': "- 'skoala-api'\n" },
      },
      ['skoala-api:latest'],
    ],
  ]
  test.each(cases)('%s', async (_, recipe, targets) => {
    const file = makeBundle(join(temporaryDirectory(), 'skoala-0.14.0.bundle.tar'), recipe)
    expect((await read(file)).images.map(({ target }) => target)).toEqual(targets)
  })

  test('hints of subcharts: a directory, and a package under an alias', async () => {
    const directory = temporaryDirectory()
    for (const name of ['ui', 'db']) {
      mkdirSync(join(directory, name))
      writeFileSync(join(directory, name, 'Chart.yaml'), `name: ${name}\nversion: 1.0.0\n`)
      const image = `image: {repository: r.io/skoala/skoala-${name}, tag: v0.14.0}\n`
      writeFileSync(join(directory, name, 'values.yaml'), image)
    }
    execFileSync('tar', ['-czf', 'db.tgz', 'db'], { cwd: directory })
    const file = makeBundle(join(directory, 'skoala-0.14.0.bundle.tar'), {
      registry: 'r.io',
      images: { 'skoala-ui': 'ui', 'skoala-db': 'db' },
      files: {
        'original-chart/Chart.yaml':
          'name: skoala\nversion: 0.14.0\ndependencies: [{name: db, alias: store}]\n',
        'original-chart/values.yaml': 'ui: {image: {tag: v0.14.0}}\n',
        'original-chart/charts/ui/Chart.yaml': readFileSync(join(directory, 'ui/Chart.yaml')),
        'original-chart/charts/ui/values.yaml': readFileSync(join(directory, 'ui/values.yaml')),
        'original-chart/charts/db-1.0.0.tgz': readFileSync(join(directory, 'db.tgz')),
        'hints.yaml': ['ui', 'store']
          .map((name) => `- '{{ .${name}.image.repository }}:{{ .${name}.image.tag }}'\n`)
          .join(''),
      },
    })
    expect((await read(file)).images.map(({ target }) => target)).toEqual([
      'skoala-ui:v0.14.0',
      'skoala-db:v0.14.0',
    ])
  })

  test('directories in a bundle, and a download whose bundle is in one', async () => {
    const directory = temporaryDirectory()
    const bundle = makeBundle(join(directory, 'skoala_0.14.0.bundle.tar'))
    execFileSync(
      'bash',
      [
        '-c',
        'mkdir x skoala-offline && tar -xf "$0" -C x && tar -cf skoala-offline/"$0" -C x hints.yaml images.tar original-chart && tar -cf download.tar skoala-offline',
        basename(bundle),
      ],
      { cwd: directory },
    )
    expect((await read(join(directory, 'skoala-offline', basename(bundle)))).images).toHaveLength(3)
    expect(await read(join(directory, 'download.tar'))).toMatchObject({
      inDownload: 'skoala-offline/skoala_0.14.0.bundle.tar',
    })
  })

  test('a global PAX header that says nothing about the files', async () => {
    const file = makeBundle(join(temporaryDirectory(), 'b.tar'))
    const record = '13 comment=x\n'
    const data = Buffer.concat([
      header('pax', 'g', record.length),
      padded(record),
      readFileSync(file),
    ])
    writeFileSync(file, data)
    expect((await read(file)).images).toHaveLength(3)
  })
})

test('of 200 flipped bits, each that changes what an image is or is called is refused', async () => {
  const file = makeBundle(join(temporaryDirectory(), 'skoala-0.14.0.bundle.tar'))
  const good = readFileSync(file)
  const wanted = imagesOf(await read(file))
  const chart = contents(file).filter(({ name }) => name.startsWith('original-chart/'))
  let refused = 0
  await fc.assert(
    fc.asyncProperty(fc.noBias(fc.nat(good.length * 8 - 1)), async (bit) => {
      const bad = Buffer.from(good)
      bad[bit >> 3]! ^= 1 << (bit & 7)
      writeFileSync(file, bad)
      const bundle = await refusedOrRead(file)
      if (!bundle) return void refused++
      // what is let through brings the very same images
      expect(imagesOf(bundle)).toEqual(wanted)
      const at = bit >> 3
      const inChart = chart.some(({ offset, size }) => at >= offset && at < offset + size)
      const member = [...contents(file)].find(
        ({ offset, size }) => at >= offset && at < offset + size,
      )
      // images.tar has padding of its own; nothing else of it may differ unnoticed
      if (!inChart && member) expect(['images.tar', 'hints.yaml']).toContain(member.name)
    }),
    { seed, numRuns: 200 },
  )
  expect(refused).toBeGreaterThan(80)
})

test('each of 50 cuts is refused, those between two members too', async () => {
  const file = makeBundle(join(temporaryDirectory(), 'skoala-0.14.0.bundle.tar'))
  const good = readFileSync(file)
  const between = contents(file).map(({ offset }) => offset - 512)
  const cut = fc.oneof(
    fc.noBias(fc.nat(good.length - 1)),
    fc.constantFrom(...between, good.length - 512, good.length - 1024),
  )
  await fc.assert(
    fc.asyncProperty(cut, async (length) => {
      writeFileSync(file, good)
      truncateSync(file, length)
      expect(await refusedOrRead(file)).toBeUndefined()
    }),
    { seed, numRuns: 50 },
  )
})

/** A tar header of ours, for what GNU tar would not write. */
function header(name: string, type: string, size: number): Buffer {
  const block = Buffer.alloc(512)
  block.write(name, 0)
  block.write('0000644\0', 100)
  block.write('0000000\0', 108)
  block.write('0000000\0', 116)
  block.write(size.toString(8).padStart(11, '0') + '\0', 124)
  block.write('00000000000\0', 136)
  block.write('        ', 148)
  block.write(type, 156)
  block.write('ustar\x0000', 257, 'latin1')
  const sum = block.reduce((sum, byte) => sum + byte, 0)
  block.write(sum.toString(8).padStart(6, '0') + '\0 ', 148)
  return block
}

const padded = (data: string) =>
  Buffer.concat([Buffer.from(data)], Math.ceil(data.length / 512) * 512)

describe('a bundle is refused, by name', () => {
  const cases: [string, Recipe, RegExp][] = [
    ['a file that does not belong', { files: { 'run.sh': 'x' } }, /"run\.sh" does not belong/],
    [
      'a path with ..',
      {
        files: { 'original-chart/x': '' },
        tar: ['--transform=s,original-chart/x$,original-chart/../../etc/x,', '-P'],
      },
      /"original-chart\/\.\.\/\.\.\/etc\/x" leads elsewhere/,
    ],
    ['another architecture', { architecture: 'arm64' }, /is for arm64; the site file says amd64/],
    [
      'no tags',
      { manifest: (all) => all.map((each) => ({ ...each, RepoTags: null })) },
      /does not list images with Config, RepoTags and Layers/,
    ],
    [
      'an image twice under one name',
      { manifest: ([a, b, c]) => [a, { ...b, RepoTags: ['other.io/x/skoala-api:v0.14.0'] }, c] },
      /would both be called skoala-api:v0\.14\.0/,
    ],
    ['an image that no hint names', { files: { 'hints.yaml': '[]\n' } }, /no hint names the image/],
    [
      'a hint that names no image',
      { files: { 'hints.yaml': "- 'a/b:c'\n" } },
      /gives a\/b:c, which is not among the images/,
    ],
    [
      'a tag that was changed',
      {
        manifest: ([a, ...rest]) => [
          { ...a, RepoTags: [a.RepoTags[0].replace('v0.14.0', 'v0.15.0')] },
          ...rest,
        ],
      },
      /which is not among the images/,
    ],
    [
      'a layer that is missing',
      {
        manifest: ([a, ...rest]) => [
          { ...a, Layers: [a.Layers[0], `${'0'.repeat(64)}.tar.gz`] },
          ...rest,
        ],
      },
      /"0{64}\.tar\.gz" is missing/,
    ],
    [
      'a layer less',
      { manifest: ([a, ...rest]) => [{ ...a, Layers: [a.Layers[0]] }, ...rest] },
      /has 1 layers, its configuration 2/,
    ],
    [
      'a layer that is not what it is called',
      {
        inImages: { [`${'1'.repeat(64)}.tar.gz`]: 'x' },
        manifest: ([a, ...rest]) => [
          { ...a, Layers: [a.Layers[0], `${'1'.repeat(64)}.tar.gz`] },
          ...rest,
          { ...a, RepoTags: ['x/y/z:v1'] },
        ],
      },
      /1{64}\.tar\.gz \(of .*skoala-api:v0\.14\.0\) does not have the hash|which is not among|no hint names/,
    ],
    [
      'a file in images.tar that belongs to no image',
      { inImages: { stray: 'x' } },
      /"stray" belongs to no image/,
    ],
    [
      'the chart of another module',
      { chart: 'mspider' },
      /is a bundle of the chart mspider, not of skoala/,
    ],
    [
      'a Chart.yaml that is not YAML',
      { files: { 'original-chart/Chart.yaml': '{' } },
      /Chart\.yaml is not YAML/,
    ],
  ]
  test.each(cases)('%s', async (_, recipe, sentence) => {
    const file = makeBundle(join(temporaryDirectory(), 'skoala-0.14.0.bundle.tar'), recipe)
    const failure = await read(file).catch((error: Failure) => error)
    expect((failure as Failure).en).toMatch(sentence)
    expect((failure as Failure).exitCode).toBe(65)
  })

  const good = () => readFileSync(makeBundle(join(temporaryDirectory(), 'b.tar')))
  const pax = (record: string) => Buffer.concat([header('pax', 'x', record.length), padded(record)])
  const raw: [string, () => Buffer, RegExp][] = [
    [
      'a symbolic link',
      () => Buffer.concat([header('original-chart/x', '2', 0), good()]),
      /is not a regular file \(type "2"\)/,
    ],
    [
      'a hard link',
      () => Buffer.concat([header('original-chart/x', '1', 0), good()]),
      /is not a regular file \(type "1"\)/,
    ],
    [
      'a device',
      () => Buffer.concat([header('original-chart/x', '3', 0), good()]),
      /is not a regular file \(type "3"\)/,
    ],
    [
      'a name that appears twice',
      () => Buffer.concat([header('hints.yaml', '0', 0), good()]),
      /"hints\.yaml" appears twice/,
    ],
    [
      'a PAX size before a long name, which programs read differently',
      () =>
        Buffer.concat([pax('12 size=512\n'), header('@LongLink', 'L', 3), padded('abc'), good()]),
      /two extended headers follow each other/,
    ],
    [
      'a global PAX header',
      () => Buffer.concat([header('pax', 'g', 12), padded('12 size=512\n'), good()]),
      /a PAX header has "size"/,
    ],
    [
      'another archive behind the end marker',
      () => Buffer.concat([good(), good()]),
      /there is data after the end marker/,
    ],
    ['no archive at all', () => Buffer.from('x'.repeat(5000)), /a header is damaged/],
    [
      'a download whose bundle is called like an option of tar',
      () =>
        Buffer.concat([
          header('--use-compress-program=sh;.bundle.tar', '0', 0),
          Buffer.alloc(1024),
        ]),
      /is neither a bundle/,
    ],
    ['an empty file', () => Buffer.alloc(0), /it is cut off/],
  ]
  test.each(raw)('%s', async (_, bytes, sentence) => {
    const file = join(temporaryDirectory(), 'skoala-0.14.0.bundle.tar')
    writeFileSync(file, bytes())
    const failure = await read(file).catch((error: Failure) => error)
    expect((failure as Failure).en).toMatch(sentence)
    expect((failure as Failure).exitCode).toBe(65)
  })
})

describe('a download, with a bundle and its sha512 in it or beside it', () => {
  const sha512 = (file: string) => createHash('sha512').update(readFileSync(file)).digest('hex')

  function download(checksum: (file: string) => string, beside = false): string {
    const directory = temporaryDirectory()
    const bundle = makeBundle(join(directory, 'skoala_0.14.0.bundle.tar'))
    const file = join(directory, 'skoala_v0.14.0_amd64.tar')
    const list = join(directory, 'skoala_0.14.0.bundle.tar.sha512sum')
    writeFileSync(list, `${checksum(bundle)}  skoala_0.14.0.bundle.tar\n`)
    const names = [basename(bundle), ...(beside ? [] : [basename(list)])]
    execFileSync('tar', ['-C', directory, '-cf', file, ...names])
    if (beside) writeFileSync(join(directory, 'skoala_v0.14.0_amd64.sha512'), checksum(file))
    return file
  }

  test.each([false, true])(
    'a right checksum (beside it: %s) is found and checked',
    async (beside) => {
      const bundle = await read(download(sha512, beside))
      expect(bundle).toMatchObject({ inDownload: 'skoala_0.14.0.bundle.tar', version: '0.14.0' })
      expect(bundle.checksum?.sha512).toMatch(/^[0-9a-f]{128}$/)
    },
  )

  test.each([false, true])('a wrong checksum (beside it: %s) is refused', async (beside) => {
    const failure = await read(download(() => '0'.repeat(128), beside)).catch((e: Failure) => e)
    expect((failure as Failure).en).toMatch(/does not have the sha512 in .*sha512/)
    expect((failure as Failure).exitCode).toBe(65)
  })

  test('a bundle that is reached by a link is read', async () => {
    const directory = temporaryDirectory()
    const file = makeBundle(join(directory, 'b.tar'))
    symlinkSync(file, join(directory, 'skoala-link.tar'))
    expect((await read(join(directory, 'skoala-link.tar'))).images).toHaveLength(3)
  })
})
