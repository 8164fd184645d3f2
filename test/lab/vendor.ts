// What the vendor delivers: images, charts and, made of them by the real charts-syncer, bundles.

import { execFile, execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs'
import { renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { promisify } from 'node:util'
import { parse } from 'yaml'
import { end, freePorts, isFree, start, type Process, type Recipe } from './processes.ts'
import { cache, toolDirectory } from './tools.ts'

const run = promisify(execFile)
const here = import.meta.dirname
const helm = `${toolDirectory('helm', 'v3.22')}/helm`
const chartsSyncer = `${toolDirectory('charts-syncer')}/charts-syncer`

/** The modules' versions, before and after the upgrade. */
export const versions: Record<string, { old: string; new: string }> = {
  skoala: { old: '0.13.0', new: '0.14.0' },
  kairship: { old: '0.20.0', new: '0.21.0' },
  mspider: { old: '0.20.0', new: '0.20.1' },
  spidernet: { old: '0.7.0', new: '0.8.0' },
}

export interface Release {
  version: string
  /** <name>-<version>.bundle.tar, in a directory that holds nothing else */
  bundle: string
  /** the chart as the vendor made it: a directory, and packaged */
  originalChart: string
  originalPackage: string
  /** name:tag of each image, without registry and path */
  images: string[]
}

/** Where a delivery's parts are, in the directory that it was put into. */
export function releases(directory: string): Record<string, { old: Release; new: Release }> {
  const release = (module: string, version: string): Release => {
    const id = `${module}-${version}`
    return {
      version,
      bundle: `${directory}/bundles/${id}/${id}.bundle.tar`,
      originalChart: `${directory}/original/${id}/${module}`,
      originalPackage: `${directory}/original/${id}.tgz`,
      images: imagesOf(module).map((name) => `${name}:v${version}`),
    }
  }
  return Object.fromEntries(
    Object.entries(versions).map(([module, version]) => [
      module,
      { old: release(module, version.old), new: release(module, version.new) },
    ]),
  )
}

/** Every version of every module. */
const all = () =>
  Object.entries(versions).flatMap(([module, { old, new: next }]) => [
    { module, version: old, age: 'old', other: 'new' },
    { module, version: next, age: 'new', other: 'old' },
  ])

function imagesOf(module: string): string[] {
  const values = parse(readFileSync(`${here}/charts/${module}/values.yaml`, 'utf8'))
  const components = Object.values(values) as { image?: { repository: string } }[]
  return components.flatMap(({ image }) => image?.repository ?? [])
}

/** Cached deliveries of what the sources now say; each is called by its registry's port. */
function deliveries(): string {
  const tar = ['--sort=name', '--mtime=@0', '-c', 'charts', 'go/program', 'vendor.ts']
  const sources = execFileSync('tar', ['-C', here, ...tar], { maxBuffer: 1 << 26 })
  return `${cache}/deliveries/${createHash('sha256').update(sources).digest('hex').slice(0, 12)}`
}

/**
 * A port for the vendor's registry. Bundles and original charts name it, so one that a cached
 * delivery was made with saves the making.
 */
export async function vendorPort(taken: number[]): Promise<number> {
  const known = existsSync(deliveries()) ? readdirSync(deliveries()).map(Number) : []
  for (const port of known.filter((port) => port && !taken.includes(port))) {
    if (await isFree(port)) return port
  }
  return (await freePorts(1))[0]!
}

/** Puts a delivery into the directory, from the cache or newly made, and starts its registry. */
export async function deliver(directory: string, port: number, cgroup: string): Promise<Process> {
  const cached = `${deliveries()}/${port}`
  const parts = ['vendor-registry', 'bundles', 'original', 'pause.tar']
  const copy = (from: string, to: string) => {
    for (const part of parts) cpSync(`${from}/${part}`, `${to}/${part}`, { recursive: true })
  }
  if (existsSync(cached)) copy(cached, directory)
  const registry = await start(registryRecipe(directory, 'vendor-registry', port), cgroup)
  if (existsSync(cached)) return registry

  await make(directory, `127.0.0.1:${port}`, cgroup)
  mkdirSync(deliveries(), { recursive: true })
  const aside = mkdtempSync(`${deliveries()}/.new-`)
  copy(directory, aside)
  renameSync(aside, cached)
  // old ones are of sources that have changed since, or are soon made again
  for (const other of readdirSync(`${cache}/deliveries`)) {
    const path = `${cache}/deliveries/${other}`
    if (Date.now() - statSync(path).mtimeMs > 7 * 86_400_000) rmSync(path, { recursive: true })
  }
  return registry
}

/** Debian's docker-registry, with a password where there is an htpasswd file. */
export function registryRecipe(
  directory: string,
  name: string,
  port: number,
  htpasswd?: string,
): Recipe {
  const configuration = {
    version: 0.1,
    log: { level: 'warn' },
    storage: {
      filesystem: { rootdirectory: `${directory}/${name}` },
      delete: { enabled: true },
      maintenance: { uploadpurging: { enabled: false } },
    },
    http: { addr: `127.0.0.1:${port}` },
    ...(htpasswd && { auth: { htpasswd: { realm: 'lab', path: htpasswd } } }),
  }
  writeFileSync(`${directory}/${name}.yaml`, JSON.stringify(configuration))
  return {
    command: ['docker-registry', 'serve', `${directory}/${name}.yaml`],
    log: `${directory}/log/${name}.log`,
    port,
  }
}

/** The chart repository; asks for a login where credentials are given. */
export const chartRepositoryRecipe = (
  directory: string,
  name: string,
  port: number,
  credentials: Record<string, string> = {},
): Recipe => ({
  command: [
    process.execPath,
    `${here}/chart-repository-stand-in.mts`,
    String(port),
    `${directory}/${name}`,
    helm,
  ],
  log: `${directory}/log/${name}.log`,
  environment: { NODE_OPTIONS: '', ...credentials },
  port,
})

async function make(directory: string, registry: string, cgroup: string): Promise<void> {
  const work = mkdtempSync(`${directory}/vendor-`)
  const charts = `${work}/charts/vendor/charts`
  for (const needed of [charts, `${work}/log`]) mkdirSync(needed, { recursive: true })
  const program = await layer(work, 'program', async (into) => {
    const env = { ...process.env, CGO_ENABLED: '0', GOFLAGS: '-buildvcs=false' }
    const flags = ['-trimpath', '-ldflags=-s -w', '-o', `${into}/app`]
    await run('go', ['-C', `${here}/go/program`, 'build', ...flags, '.'], { env })
  })
  await image(work, 'registry.k8s.io/pause:3.10', [program], `${directory}/pause.tar`)
  await inParallel(all(), 2, async ({ module, version, age, other }) => {
    for (const name of imagesOf(module)) {
      const reference = `${registry}/${module}/${name}:v${version}`
      const archive = `${work}/${name}-${version}.tar`
      const marker = await layer(work, `${name}-${version}`, async (into) =>
        writeFileSync(`${into}/marker`, `${name} v${version}`),
      )
      await image(work, reference, [program, marker], archive)
      const to = ['--dest-tls-verify=false', `docker-archive:${archive}`, `docker://${reference}`]
      await run('skopeo', ['copy', '--quiet', ...to])
    }
    const source = chartSource(work, module, { age, other, version, registry })
    await run(helm, ['package', source, '--destination', charts])
  })

  const [port] = (await freePorts(1)) as [number]
  const repository = await start(chartRepositoryRecipe(work, 'charts', port), cgroup)
  await inParallel(Object.keys(versions), 2, async (module) => {
    mkdirSync(`${work}/bundles/${module}`, { recursive: true })
    await sync(`${work}/sync-${module}`, {
      source: { repo: { kind: 'CHARTMUSEUM', url: `http://127.0.0.1:${port}/vendor` } },
      target: { intermediateBundlesPath: `${work}/bundles/${module}` },
      charts: [module],
    })
  })
  await end(repository)

  const delivered = releases(directory)
  await inParallel(all(), 2, async ({ module, age }) => {
    const { bundle, originalChart, originalPackage } = delivered[module]![age as 'old' | 'new']
    mkdirSync(dirname(bundle), { recursive: true })
    mkdirSync(originalChart, { recursive: true })
    renameSync(`${work}/bundles/${module}/${basename(bundle)}`, bundle)
    await run('tar', ['-xf', bundle, '-C', originalChart, '--strip-components=1', 'original-chart'])
    await run(helm, ['package', originalChart, '--destination', dirname(originalPackage)])
  })
  rmSync(work, { recursive: true })
}

/** A chart's files as they are in one version. */
function chartSource(
  work: string,
  module: string,
  chart: { age: string; other: string; version: string; registry: string },
): string {
  const into = `${work}/source-${module}-${chart.version}/${module}`
  const from = `${here}/charts/${module}`
  for (const file of readdirSync(from, { recursive: true, withFileTypes: true })) {
    if (!file.isFile() || file.name.includes(`.${chart.other}.`)) continue
    const place = file.parentPath.replace(from, into)
    mkdirSync(place, { recursive: true })
    const text = readFileSync(`${file.parentPath}/${file.name}`, 'utf8')
      .replaceAll('@VERSION@', chart.version)
      .replaceAll('@VENDOR_REGISTRY@', chart.registry)
    writeFileSync(`${place}/${file.name.replace(`.${chart.age}.`, '.')}`, text)
  }
  cpSync(`${here}/charts/_pod.tpl`, `${into}/templates/_pod.tpl`)
  return into
}

interface Layer {
  file: string
  digest: string
  uncompressed: string
}

const sha256 = (data: Buffer | string) => createHash('sha256').update(data).digest('hex')

/** An image's layer, the same bytes for the same content. */
async function layer(
  work: string,
  name: string,
  fill: (into: string) => Promise<void>,
): Promise<Layer> {
  const into = `${work}/layer-${name}`
  mkdirSync(into)
  await fill(into)
  const tar = ['--sort=name', '--mtime=@0', '--owner=0', '--group=0', '-cf', `${into}.tar`, '.']
  await run('tar', ['-C', into, ...tar])
  const uncompressed = sha256(readFileSync(`${into}.tar`))
  await run('gzip', ['-n', `${into}.tar`])
  const digest = sha256(readFileSync(`${into}.tar.gz`))
  const file = `${digest}.tar.gz`
  renameSync(`${into}.tar.gz`, `${work}/${file}`)
  return { file, digest, uncompressed }
}

/** A docker-archive of one image that holds nothing but the layers. */
async function image(work: string, reference: string, layers: Layer[], archive: string) {
  const created = '2024-01-01T00:00:00Z'
  const configuration = JSON.stringify({
    architecture: 'amd64',
    os: 'linux',
    created,
    config: { Entrypoint: ['/app'] },
    rootfs: { type: 'layers', diff_ids: layers.map((l) => `sha256:${l.uncompressed}`) },
    history: layers.map(() => ({ created })),
  })
  const config = `sha256:${sha256(configuration)}`
  const files = layers.map((layer) => layer.file)
  const aside = mkdtempSync(`${work}/image-`)
  const manifest = [{ Config: config, RepoTags: [reference], Layers: files }]
  writeFileSync(`${aside}/${config}`, configuration)
  writeFileSync(`${aside}/manifest.json`, JSON.stringify(manifest))
  const members = ['-C', aside, config, '-C', work, ...files, '-C', aside, 'manifest.json']
  await run('tar', ['-cf', archive, ...members])
}

/**
 * Runs the real charts-syncer in a directory of its own: it keeps what it has seen in its work
 * directory, and renames from its working directory to TMPDIR, which must be on one file system.
 */
export async function sync(
  directory: string,
  configuration: object,
  credentials: Record<string, string> = {},
): Promise<void> {
  mkdirSync(`${directory}/tmp`, { recursive: true })
  writeFileSync(`${directory}/sync.yaml`, JSON.stringify(configuration))
  await run(chartsSyncer, ['sync', '--config=sync.yaml', '--workdir=work'], {
    cwd: directory,
    env: { ...process.env, TMPDIR: `${directory}/tmp`, ...credentials },
    maxBuffer: 1 << 26,
  })
}

/** Works on the items, a few at a time. */
export async function inParallel<T>(items: T[], width: number, work: (item: T) => Promise<void>) {
  const queue = [...items]
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item)
  }
  await Promise.all(Array.from({ length: width }, worker))
}
