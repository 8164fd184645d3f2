import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, resolve } from 'node:path'
import { misconfigured } from '../base/failure.ts'
import { readChecked, wrongFile } from './checked-files.ts'
import { type Inputs, type Release, type Site } from './types.ts'

/** @throws Failure 78 with the path inside the file and a sentence */
export function readSite(sitePath: string): Site {
  if (!existsSync(sitePath)) {
    throw misconfigured`
      the site file ${sitePath} does not exist
      站点配置文件 ${sitePath} 不存在`.next`
      cp site.example.yaml site.yaml, and put in the values of your site; or name yours with --site FILE
      cp site.example.yaml site.yaml，再改成您站点的值；或用 --site FILE 指定`
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
  const { chartRepository: repository, nodes } = site
  const [scheme, wanted] =
    repository.kind === 'OCI' ? [/^oci:/, 'oci://'] : [/^https?:/, 'http:// or https://']
  if (repository.url && !scheme.test(repository.url)) {
    throw wrongFile(
      sitePath,
      `/chartRepository/url: must begin with ${wanted} for ${repository.kind}`,
    )
  }
  repository.url &&= repository.url.replace(/\/+$/, '')

  const besideSite = (path: string) => resolve(dirname(sitePath), path)
  site.containerRegistryCaFile &&= besideSite(site.containerRegistryCaFile)
  repository.caFile &&= besideSite(repository.caFile)
  for (const settings of nodes ? [nodes, ...(nodes.list ?? [])] : []) {
    for (const file of ['identityFile', 'knownHostsFile'] as const) {
      const path = settings[file]
      if (path && !path.startsWith('~/')) settings[file] = besideSite(path)
    }
  }
  const listed = nodes?.list?.map(({ name }) => name) ?? []
  const twice = listed.find((name, index) => listed.indexOf(name) < index)
  if (twice) throw wrongFile(sitePath, `/nodes/list: ${twice} appears twice`)
  return site
}

/** The kubeconfig that the site file names: absolute, ~/…, or relative to the site file. */
export function kubeconfigPath(kubeconfig: string, sitePath: string): string {
  return resolve(dirname(sitePath), kubeconfig.replace(/^~(?=\/)/, homedir()))
}

const FORM_FIELDS = /\{(containerRegistry|project|containerRepository)\}/g

/** Where the module's images are in the registry, without the host: `release.daocloud.io/mspider`. */
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
