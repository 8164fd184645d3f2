import { dirname, join, parse, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { misconfigured, wrongUsage } from '../base/failure.ts'
import { parseFlags } from './command-line.ts'
import { type FlagName, type Flags } from './flags.ts'
import { readModule } from './module.ts'
import { readSite } from './site.ts'
import { type Inputs, type Module, type Release, type Site } from './types.ts'

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
  const flags = parseFlags(scriptPath, names, orders)
  const { module, modulePath } = readModule(flags.module)
  const sitePath = resolve(flags.site)
  const site = readSite(sitePath)
  const releases = module.releases.filter(
    ({ release }) => !flags.release || release === flags.release,
  )
  if (releases.length === 0) {
    const known = module.releases.map(({ release }) => release).join(', ')
    throw wrongUsage`
      --release ${flags.release}: ${module.name} has no such release. It has: ${known}
      --release ${flags.release}：${module.name} 没有该 release。可用：${known}`
  }
  if (flags.local && flags.node) {
    throw wrongUsage`
      --local and --node cannot be combined
      --local 与 --node 不能同时使用`
  }
  if (names.includes('chart')) refuseWrongPath(flags, module, releases, site)
  const stateDirectory = join(dirname(sitePath), 'state', site.name, module.name)
  // commands run in the state directory; paths of the command line are of the present directory
  for (const name of ['chart', 'values', 'bundle'] as const)
    if (flags[name]) flags[name] = fromDirectory(stateDirectory, flags[name])
  return {
    scriptPath,
    script: parse(scriptPath).name,
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

/** The way that was asked for must exist, and have what it needs. */
function refuseWrongPath(flags: Flags, module: Module, releases: Release[], site: Site) {
  const { kind } = site.chartRepository
  if (flags.via === 'repo' && flags.chart) {
    throw wrongUsage`
      --chart goes with --via package
      --chart 需与 --via package 一起使用`
  }
  if (flags.via === 'package' && !flags.chart) {
    throw wrongUsage`
      --via package needs --chart PATH: a directory or a .tgz, for example the original-chart/NAME of the bundle
      --via package 需要 --chart PATH：目录或 .tgz 文件，例如离线包中的 original-chart/NAME`
  }
  if (flags.via === 'package' && releases.length > 1) {
    const names = releases.map(({ release }) => release).join(', ')
    throw wrongUsage`
      ${module.name} has several releases (${names}); a chart package is for one: name it with --release
      ${module.name} 有多个 release（${names}），而 chart 包只对应其中一个：请用 --release 指定`
  }
  if (flags.via === 'repo' && kind === 'LOCAL') {
    throw misconfigured`
      the site file says kind: LOCAL, so there is no chart repository to upgrade from
      站点配置为 kind: LOCAL，没有可用于升级的 chart 仓库`.next`
      use --via package --chart PATH
      请使用 --via package --chart PATH`
  }
  if (flags.values && !flags.install) {
    throw wrongUsage`
      --values goes with --install: an upgrade takes the values of the deployed release
      --values 需与 --install 一起使用：升级沿用已部署 release 的参数`
  }
  if (flags.install && !flags.values) {
    throw wrongUsage`
      --install needs --values FILE; an empty file stands for the defaults of the chart
      --install 需要 --values FILE；空文件表示使用 chart 的默认值`
  }
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
