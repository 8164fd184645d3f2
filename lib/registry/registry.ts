import { isIP } from 'node:net'
import { EXIT, type Failure, misconfigured } from '../base/failure.ts'
import { type Site } from '../inputs/types.ts'
import { type Answer, type Server } from './http.ts'
import { allowed, errorText, get, getOnce, loginOf, unexpected } from './http.ts'

/** The site's registry. Its login is in the environment, unless the site file says that it has none. */
export const siteRegistry = (site: Site): Server => ({
  address: site.containerRegistry,
  caFile: site.containerRegistryCaFile,
  login: site.containerRegistryLogin === false ? undefined : 'REGISTRY',
})

/** A cache: what each host turned out to speak. */
const schemes = new Map<string, Promise<string>>()

/**
 * http or https? charts-syncer (go-containerregistry 0.14 pkg/name/registry.go) tries https first, and
 * http then for localhost, 127.0.0.1 and addresses of private ranges only.
 */
async function schemeOf(server: Server): Promise<string> {
  const { address } = server
  if (server.plainHttp) return 'http'
  const known = schemes.get(address)
  if (known) return known
  const host = address.replace(/:\d+$/, '')
  const isPrivate =
    host === 'localhost' ||
    (isIP(host) === 4 && /^(127|10|192\.168|172\.(1[6-9]|2\d|3[01]))\./.test(host)) ||
    /\.local(host)?$/.test(host)
  const ask = (scheme: string) =>
    getOnce(server, `${scheme}://${address}/v2/`, {}, 4096).then(() => scheme)
  const found = ask('https').catch((failure: Failure) => {
    if (!isPrivate || failure.exitCode === EXIT.configuration) throw failure
    return ask('http').catch(() => {
      throw failure
    })
  })
  schemes.set(address, found)
  found.catch(() => schemes.delete(address))
  return found
}

/** A cache: bearer tokens by what they are for; Harbor wants them, others take the login itself. */
const tokens = new Map<string, Promise<string>>()

/** @throws Failure 69 · 77 · 78 */
async function registryGet(server: Server, path: string, accept: string): Promise<Answer> {
  const base = `${await schemeOf(server)}://${server.address}`
  const key = `${server.address} ${path.replace(/\/(manifests|blobs)\/.*/, '')}`
  const used = await tokens.get(key)
  const login = loginOf(server)
  const ask = (authorization: string | undefined) =>
    get(server, base + path, { accept, ...(authorization ? { authorization } : login) })
  const answer = await ask(used)
  const challenge = answer.headers['www-authenticate'] ?? ''
  if (answer.status !== 401 || !/^bearer .*realm="/i.test(challenge)) return allowed(server, answer)
  // another question may have got a new token meanwhile; one that was refused is old
  if ((await tokens.get(key)) === used) {
    const token = tokenFor(server, challenge)
    tokens.set(key, token)
    token.catch(() => tokens.delete(key))
  }
  return allowed(server, await ask(await tokens.get(key)))
}

/** @throws Failure 77 where the login is refused */
async function tokenFor(server: Server, challenge: string): Promise<string> {
  const fields = Object.fromEntries(
    [...challenge.matchAll(/(\w+)="([^"]*)"/g)].map(([, name, value]) => [name, value]),
  )
  const url = new URL(fields['realm']!)
  for (const name of ['service', 'scope'])
    if (fields[name]) url.searchParams.set(name, fields[name])
  const answer = await get(server, url.href, loginOf(server))
  const { token, access_token } = jsonOf(server, allowed(server, answer, answer.status === 200))
  return `Bearer ${token ?? access_token}`
}

function jsonOf(server: Server, answer: Answer): any {
  try {
    const found: unknown = JSON.parse(answer.body.toString())
    if (found !== null) return found
  } catch {
    // said below
  }
  throw unexpected(server, answer)
}

const MANIFESTS = [
  'application/vnd.docker.distribution.manifest.v2+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.oci.image.index.v1+json',
].join(', ')

/** The manifest under a name in a registry; undefined where there is none. @throws as imageIdAt */
export async function manifestAt(server: Server, repository: string, tag: string): Promise<any> {
  const answer = await registryGet(server, `/v2/${repository}/manifests/${tag}`, MANIFESTS)
  if (answer.status === 200) return jsonOf(server, answer)
  if (answer.status !== 404) throw unexpected(server, answer)
  if (!/project .*not (be )?found/i.test(errorText(answer))) return undefined
  const project = repository.split('/')[0]
  throw misconfigured`
    project ${project} does not exist in the registry ${server.address}
    镜像仓库 ${server.address} 中没有项目 ${project}`.said(errorText(answer)).next`
    create it there, or correct project in the site file
    请在仓库中创建该项目，或修正站点配置中的 project`
}

/** A blob of a registry. @throws Failure 69 · 77 · 78 */
export const blobAt = async (server: Server, repository: string, digest: string) =>
  (await registryGet(server, `/v2/${repository}/blobs/${digest}`, '*/*')).body

/**
 * The image ID under a name in a registry: its config digest, which stays the same where tools write
 * manifests anew.
 * @param repository with slashes, without host: `release.daocloud.io/mspider/mspider-api`
 * @returns `sha256:…`; `an index` where it is not a single image; undefined where there is nothing
 * @throws Failure 69 not reachable · 77 login refused · 78 certificate, missing project
 */
export async function imageIdAt(
  server: Server,
  repository: string,
  tag: string,
): Promise<string | undefined> {
  const manifest = await manifestAt(server, repository, tag)
  return manifest && (manifest.config?.digest ?? 'an index')
}
