import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { misconfigured } from '../base/failure.ts'
import { thisRun } from '../run/session.ts'
import { allowed, get, isBusy, loginOf, type Server, unexpected } from './http.ts'
import { blobAt, manifestAt } from './registry.ts'

/**
 * The package of a chart in the site's chart repository; undefined where it is not there.
 * @throws Failure 69 · 77 · 78
 */
export async function storedChart(chart: string, version: string): Promise<Buffer | undefined> {
  const { kind, url = '', login, caFile, plainHttp } = thisRun().inputs.site.chartRepository
  if (kind === 'LOCAL') {
    const path = localPackage(chart, version)
    return existsSync(path) ? readFileSync(path) : undefined
  }
  const access = { caFile, plainHttp, login: login ? ('CHART_REPO' as const) : undefined }
  if (kind !== 'OCI') return chartAt({ address: url, ...access }, chart, version)
  const [address = '', ...path] = url.replace(/^oci:\/\//, '').split('/')
  return ociChartAt({ address, ...access }, [...path, chart].join('/'), version)
}

/** Where a chart of `kind: LOCAL` is. */
export const localPackage = (chart: string, version: string) =>
  join(thisRun().inputs.stateDirectory, `local-repo/${chart}-${version}.tgz`)

/** In a chart repository of Harbor or ChartMuseum. @throws Failure 78 also where it is none */
async function chartAt(server: Server, chart: string, version: string) {
  const login = loginOf(server)
  const file = encodeURIComponent(`${chart}-${version}.tgz`)
  const answer = allowed(server, await get(server, `${server.address}/charts/${file}`, login))
  const isGzip = answer.body.subarray(0, 2).toString('hex') === '1f8b'
  if (answer.status === 200 && isGzip) return answer.body
  if (isBusy(answer)) throw unexpected(server, answer)
  // not there; but is there a repository at all?
  const index = allowed(server, await get(server, `${server.address}/index.yaml`, login, 4096))
  const text = index.body.toString()
  if (index.status === 200 && /^(apiVersion|entries|generated):/m.test(text)) return undefined
  const isPage = /<(!doctype|html)/i.test(text)
  throw misconfigured`
    ${server.address} is not a chart repository: it answers ${index.status}${isPage ? ' with a web page' : ''}
    ${server.address} 不是 chart 仓库（返回 ${index.status}${isPage ? '，内容为网页' : ''}）`.next`
    Harbor 2.8 and later have none: kind: OCI with url: oci://HOST/PROJECT in the site file; or the project does not exist
    Harbor 2.8 及以上版本已移除 chart 仓库：请在站点配置中使用 kind: OCI、url: oci://HOST/PROJECT；也可能是项目不存在`
}

/**
 * In an OCI registry.
 * @param repository with slashes, without host: `release.daocloud.io/skoala`
 * @throws Failure 78 also where it is not a chart
 */
async function ociChartAt(server: Server, repository: string, version: string) {
  const tag = version.replaceAll('+', '_') // helm 3.22 pkg/registry/util.go
  const manifest = await manifestAt(server, repository, tag)
  if (!manifest) return undefined
  const { config, layers } = manifest
  if (config?.mediaType !== 'application/vnd.cncf.helm.config.v1+json') {
    throw misconfigured`
      ${server.address}/${repository}:${tag} is not a helm chart
      ${server.address}/${repository}:${tag} 不是 helm chart`
  }
  const { digest } = layers.find(({ mediaType }: any) => /chart\.content/.test(mediaType)) ?? {}
  return blobAt(server, repository, digest)
}
