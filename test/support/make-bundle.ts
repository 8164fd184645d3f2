import { createHash } from 'node:crypto'
import { execFileSync } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { stringify } from 'yaml'
import { tarOf } from '../../lib/bundle/tar.ts'

const sha256 = (data: Buffer | string) => createHash('sha256').update(data).digest('hex')

export interface Recipe {
  chart?: string
  version?: string
  registry?: string
  architecture?: string
  /** name of each image, and what is in the layer of its own */
  images?: Record<string, string | Buffer>
  /** files that stand in the bundle besides, or in place of those it has: path, content */
  files?: Record<string, string | Buffer>
  /** the same for images.tar */
  inImages?: Record<string, string>
  /** changes manifest.json */
  manifest?: (manifest: any[]) => unknown
  /** options of GNU tar for both archives */
  tar?: string[]
}

/**
 * Makes a bundle as charts-syncer does, with GNU tar: hints.yaml, the chart, images.tar.
 * @param file where it is put
 */
export function makeBundle(file: string, recipe: Recipe = {}): string {
  const {
    chart = 'skoala',
    version = '0.14.0',
    registry = 'release.daocloud.io',
    architecture = 'amd64',
    images = { 'skoala-api': 'api', 'skoala-agent': 'agent', 'skoala-hive': 'hive' },
  } = recipe
  const work = `${file}.work`
  rmSync(work, { recursive: true, force: true })
  const write = (directory: string, files: Record<string, string | Buffer>) => {
    for (const [name, data] of Object.entries(files)) {
      mkdirSync(dirname(join(work, directory, name)), { recursive: true })
      writeFileSync(join(work, directory, name), data)
    }
    return Object.keys(files)
  }
  const pack = (directory: string, names: string[], into: string) => {
    const options = [
      '--owner=0',
      '--group=0',
      '--mtime=@0',
      '--format=ustar',
      ...(recipe.tar ?? []),
    ]
    const command = ['-C', join(work, directory), ...options, '-b1', '-cf', into, '--', ...names]
    execFileSync('tar', command)
  }
  const layer = (text: string | Buffer) => {
    const tar = Buffer.concat([tarOf({ [sha256(text)]: text }), Buffer.alloc(1024)])
    const data = gzipSync(tar, { level: 1 })
    return { name: `${sha256(data)}.tar.gz`, data, diffId: `sha256:${sha256(tar)}` }
  }
  const base = layer('the layer that all have')
  const archive: Record<string, string | Buffer> = { [base.name]: base.data }
  const entries = Object.entries(images).map(([name, text]) => {
    const own = layer(text)
    archive[own.name] = own.data
    const rootfs = { type: 'layers', diff_ids: [base.diffId, own.diffId] }
    const config = JSON.stringify({
      architecture,
      os: 'linux',
      config: { Cmd: [name], Labels: { version } },
      rootfs,
    })
    const Config = `sha256:${sha256(config)}`
    archive[Config] = config
    const RepoTags = [`${registry}/${chart}/${name}:v${version}`]
    return { Config, RepoTags, Layers: [base.name, own.name] }
  })
  archive['manifest.json'] = JSON.stringify(recipe.manifest?.(entries) ?? entries)
  const inImages = write('images', { ...archive, ...recipe.inImages })
  mkdirSync(join(work, 'bundle'), { recursive: true })
  pack('images', inImages, join(work, 'bundle/images.tar'))

  const keys = Object.keys(images)
  const values = {
    global: { imageRegistry: `${registry}/${chart}` },
    ...Object.fromEntries(
      keys.map((name) => [
        name.replace(`${chart}-`, ''),
        { image: { repository: name, tag: `v${version}` } },
      ]),
    ),
  }
  const hints = keys.map((name) => {
    const image = `.${name.replace(`${chart}-`, '')}.image`
    return `{{ .global.imageRegistry }}/{{ ${image}.repository }}:{{ ${image}.tag }}`
  })
  const names = write('bundle', {
    'hints.yaml': stringify(hints),
    'original-chart/Chart.yaml': `apiVersion: v2\nname: ${chart}\nversion: ${version}\n`,
    'original-chart/values.yaml': stringify(values),
    'original-chart/templates/NOTES.txt': 'installed\n',
    ...recipe.files,
  })
  pack('bundle', [...names, 'images.tar'], file)
  rmSync(work, { recursive: true })
  return file
}
