import { existsSync } from 'node:fs'
import { basename, dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { closest, distance } from 'fastest-levenshtein'
import { moduleNames, readChecked, ROOT, wrongFile } from './checked-files.ts'
import { EXIT, Failure } from '../base/failure.ts'
import { parseFlags, usage, type FlagName, type Flags, type Via } from './flags.ts'

/** A helm release of a module: what `modules/schemas/module.schema.json` says of it. */
export interface Release {
  release: string
  namespace: string
  repository: string
  chart: string
  backup: string
  crds?: { directories: string[]; mayBeMissing?: boolean }
  registryKeys: Record<Via, Record<string, string>>
}

export interface Module {
  name: string
  title: { en: string; zh: string }
  manuals: string[]
  bundle: { directory: string; file: string }
  containerRepository: string
  releases: Release[]
}

/** How nodes are reached, and what they run. */
export interface NodeSettings {
  user?: string
  port?: number
  identityFile?: string
  knownHostsFile?: string
  sudo?: boolean
  runtime?: 'containerd' | 'docker'
}

export interface Site {
  name: string
  kubeconfig: string
  context: string
  architecture: 'amd64' | 'arm64'
  containerRegistry: string
  project: string
  containerRegistryLogin?: boolean
  containerRegistryCaFile?: string
  imagesFrom: 'registry' | 'nodes'
  chartRepository: {
    kind: 'HARBOR' | 'CHARTMUSEUM' | 'OCI' | 'LOCAL'
    url?: string
    login?: boolean
    caFile?: string
    plainHttp?: boolean
  }
  registryValues?: Record<string, Partial<Record<Via, Record<string, string>>>>
  otherImages?: string[]
  nodes?: NodeSettings & { list?: (NodeSettings & { name: string; address: string })[] }
}

export interface Inputs {
  /** the started script: its path, and its name without the ending */
  scriptPath: string
  script: string
  flags: Flags
  /** does the script go the one way or the other, --via repo or package? */
  takesVia: boolean
  module: Module
  /** the module's releases, or the one that --release names */
  releases: Release[]
  modulePath: string
  site: Site
  sitePath: string
  /** state/<site>/<module>/ beside the site file; commands run in it */
  stateDirectory: string
}

/**
 * Reads the command line of the started script, the module's descriptor and the site file, all of
 * them strictly.
 * @param scriptUrl `import.meta.url` of the started script
 * @param names the flags that it takes, besides those that every script takes
 * @param orders of a script that only reads: the words of which one comes first
 * @throws Failure 64 for wrong usage, 78 for a wrong descriptor or site file
 */
export function readInputs(scriptUrl: string, names: FlagName[], orders?: string[]): Inputs {
  const scriptPath = fileURLToPath(scriptUrl)
  const script = basename(scriptPath).replace(/\.\w+$/, '')
  const flags = parseFlags(scriptPath, names, orders)
  const { module, modulePath } = readModule(flags.module)
  const sitePath = resolve(flags.site)
  const site = readSite(sitePath)
  const releases = module.releases.filter(
    ({ release }) => !flags.release || release === flags.release,
  )
  if (releases.length === 0) {
    const known = module.releases.map(({ release }) => release).join(', ')
    throw usage(
      script,
      `--release ${flags.release}: ${module.name} has no such release. It has: ${known}`,
      `--release ${flags.release}：${module.name} 没有该 release。可用：${known}`,
    )
  }
  if (flags.local && flags.node) {
    throw usage(
      script,
      '--local is this machine, --node another one: give one of them',
      '--local 表示当前机器，--node 表示其他节点：只能使用其中一个',
    )
  }
  if (names.includes('chart')) refuseWrongPath(script, flags, module, releases, site)
  const stateDirectory = join(dirname(sitePath), 'state', site.name, module.name)
  // commands run in the state directory; paths of the command line are of the present directory
  if (flags.chart) flags.chart = fromDirectory(stateDirectory, flags.chart)
  if (flags.values) flags.values = fromDirectory(stateDirectory, flags.values)
  if (flags.bundle) flags.bundle = fromDirectory(stateDirectory, flags.bundle)
  return {
    scriptPath,
    script,
    flags,
    takesVia: names.includes('via'),
    module,
    releases,
    modulePath,
    site,
    sitePath,
    stateDirectory,
  }
}

/** @throws Failure 64 no such module · 78 its descriptor is wrong */
export function readModule(name: string): { module: Module; modulePath: string } {
  const all = moduleNames()
  if (!all.includes(name)) {
    const near = closest(name, all)
    const guess = distance(name, near) <= 3
    throw new Failure(
      EXIT.usage,
      `there is no module "${name}". Known: ${all.join(', ')}.` +
        (guess ? ` Did you mean ${near}?` : ''),
      `没有模块 “${name}”。已知模块：${all.join('、')}。` +
        (guess ? `您是不是想输入 ${near}？` : ''),
      {
        next: [
          'A module is added with a descriptor modules/NAME.json (see README.md)',
          '新增模块只需编写 modules/NAME.json（见 README.md）',
        ],
      },
    )
  }
  const modulePath = join(ROOT, 'modules', `${name}.json`)
  const module = readChecked<Module>(modulePath, 'module')
  if (module.name !== name) {
    throw wrongFile(modulePath, `/name: must be "${name}", as the file is called`)
  }
  const named = module.releases.map(({ release }) => release)
  if (new Set(named).size < named.length) {
    throw wrongFile(modulePath, '/releases: two releases have the same name')
  }
  const backups = module.releases.map(({ backup }) => backup)
  if (new Set(backups).size < backups.length) {
    throw wrongFile(
      modulePath,
      '/releases: each release needs a backup of its own; two have the same name',
    )
  }
  return { module, modulePath }
}

function readSite(sitePath: string): Site {
  if (!existsSync(sitePath)) {
    throw new Failure(
      EXIT.configuration,
      `the site file ${sitePath} does not exist`,
      `站点配置文件 ${sitePath} 不存在`,
      {
        next: [
          'cp site.example.yaml site.yaml, and put in the values of your site; or name yours with --site FILE',
          'cp site.example.yaml site.yaml，再改成您站点的值；或用 --site FILE 指定',
        ],
      },
    )
  }
  const site = readChecked<Site>(sitePath, 'site')
  const strings = (value: unknown, path: string): [string, string][] =>
    typeof value === 'string'
      ? [[path, value]]
      : Object.entries(value ?? {}).flatMap(([key, inner]) => strings(inner, `${path}/${key}`))
  for (const [path, value] of strings(site, '')) {
    const form = path.startsWith('/registryValues/') ? value.replace(FORM_FIELDS, '') : value
    if (/[{}\s]/.test(form)) {
      throw wrongFile(
        sitePath,
        `${path}: ${JSON.stringify(value)} must not contain { } or blanks; put in the value of your site`,
      )
    }
  }
  const { chartRepository: repository } = site
  const scheme = repository.kind === 'OCI' ? /^oci:/ : /^https?:/
  if (repository.url && !scheme.test(repository.url)) {
    const wanted = repository.kind === 'OCI' ? 'oci://' : 'http:// or https://'
    throw wrongFile(
      sitePath,
      `/chartRepository/url: must begin with ${wanted} for ${repository.kind}`,
    )
  }

  if (site.containerRegistryCaFile)
    site.containerRegistryCaFile = resolve(dirname(sitePath), site.containerRegistryCaFile)
  if (repository.caFile) repository.caFile = resolve(dirname(sitePath), repository.caFile)
  for (const settings of [site.nodes, ...(site.nodes?.list ?? [])]) {
    for (const file of ['identityFile', 'knownHostsFile'] as const) {
      const path = settings?.[file]
      if (path && !path.startsWith('~/')) settings[file] = resolve(dirname(sitePath), path)
    }
  }
  const listed = site.nodes?.list?.map(({ name }) => name) ?? []
  const twice = listed.find((name, index) => listed.indexOf(name) < index)
  if (twice) throw wrongFile(sitePath, `/nodes/list: ${twice} stands twice`)
  if (repository.url) repository.url = repository.url.replace(/\/+$/, '')
  return site
}

/** The way that was asked for must exist, and have what it needs. */
function refuseWrongPath(
  script: string,
  flags: Flags,
  module: Module,
  releases: Release[],
  site: Site,
) {
  const { kind } = site.chartRepository
  if (flags.via === 'repo' && flags.chart) {
    throw usage(script, '--chart goes with --via package', '--chart 需与 --via package 一起使用')
  }
  if (flags.via === 'package' && !flags.chart) {
    throw usage(
      script,
      '--via package needs --chart PATH: a directory or a .tgz, for example the original-chart/NAME of the bundle',
      '--via package 需要 --chart PATH：目录或 .tgz 文件，例如离线包中的 original-chart/NAME',
    )
  }
  if (flags.via === 'package' && releases.length > 1) {
    const names = releases.map(({ release }) => release).join(', ')
    throw usage(
      script,
      `${module.name} has several releases (${names}); a chart package is for one: name it with --release`,
      `${module.name} 有多个 release（${names}），而 chart 包只对应其中一个：请用 --release 指定`,
    )
  }
  if (flags.via === 'repo' && kind === 'LOCAL') {
    throw new Failure(
      EXIT.configuration,
      'the site file says kind LOCAL: there is no chart repository to upgrade from',
      '站点配置为 kind: LOCAL，没有可用于升级的 chart 仓库',
      {
        next: ['use --via package --chart PATH', '请使用 --via package --chart PATH'],
      },
    )
  }
  if (flags.values && !flags.install) {
    throw usage(
      script,
      '--values goes with --install: an upgrade takes the values of the deployed release',
      '--values 需与 --install 一起使用：升级沿用已部署 release 的参数',
    )
  }
  if (flags.install && !flags.values) {
    throw usage(
      script,
      '--install needs --values FILE; an empty file stands for the defaults of the chart',
      '--install 需要 --values FILE；空文件表示使用 chart 的默认值',
    )
  }
}

const FORM_FIELDS = /\{(containerRegistry|project|containerRepository)\}/g

/** Where the module's images stand in the registry, without the host: `release.daocloud.io/mspider`. */
export function containerRepository({ module, site }: Pick<Inputs, 'module' | 'site'>): string {
  return module.containerRepository.replaceAll('{project}', site.project)
}

/** The same with the host, as image references begin: `10.16.10.111/release.daocloud.io/mspider`. */
export const imagePlace = (inputs: Pick<Inputs, 'module' | 'site'>): string =>
  `${inputs.site.containerRegistry}/${containerRepository(inputs)}`

/**
 * The registry keys of a release with their values, for the way that was asked for: the
 * descriptor's form, or the site's where it has another.
 * @returns pairs of key (`global.imageRegistry`) and value (`10.16.10.111`)
 * @throws Failure 78 where the site names a key that the descriptor does not have
 */
export function registryValues(inputs: Inputs, release: Release): [string, string][] {
  const { module, site, sitePath, flags } = inputs
  const forms = release.registryKeys[flags.via]
  const own = site.registryValues?.[module.name]?.[flags.via] ?? {}
  const keys = module.releases.flatMap(({ registryKeys }) => Object.keys(registryKeys[flags.via]))
  for (const key of Object.keys(own)) {
    if (!keys.includes(key)) {
      throw wrongFile(
        sitePath,
        `/registryValues/${module.name}/${flags.via}/${key}: ${module.name} has no such key. It has: ${keys.join(', ')}`,
      )
    }
  }
  const fields: Record<string, string> = {
    '{containerRegistry}': site.containerRegistry,
    '{project}': site.project,
    '{containerRepository}': containerRepository(inputs),
  }
  return Object.entries(forms).map(([key, form]) => [
    key,
    (own[key] ?? form).replace(FORM_FIELDS, (field) => fields[field]!),
  ])
}

/** What the bundles of a module may be called: after a chart, the module, or the manual's file. */
export function bundleNames({ name, releases, bundle }: Module): string[] {
  const file = bundle.file.replace(/\.bundle\.tar$/, '')
  return [...new Set([...releases.map(({ chart }) => chart), name, file])]
}

/** Where the module's bundles are: --bundle, or the directory that the manual names; as commands reach it. */
export function bundlePath({ flags, module, stateDirectory }: Inputs): string {
  return flags.bundle ?? fromDirectory(stateDirectory, module.bundle.directory)
}

/** A path of the present directory, as it is reached from the state directory: near ones stay relative. */
function fromDirectory(directory: string, path: string): string {
  const near = relative(directory, resolve(path))
  return near.startsWith('../../../..') ? resolve(path) : near
}
