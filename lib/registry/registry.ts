import { readFileSync } from 'node:fs'
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { isIP } from 'node:net'
import { EXIT, Failure } from '../base/failure.ts'
import { type Site } from '../inputs/inputs.ts'
import { pause } from '../base/processes.ts'

/** A server that is asked over HTTP, and the login for it. */
export interface Server {
  /** host[:port] of a registry, or the URL of a chart repository */
  address: string
  /** the CA that signed its certificate: a path */
  caFile?: string
  /** the variables that hold the login: REGISTRY means REGISTRY_USERNAME and REGISTRY_PASSWORD */
  login?: 'REGISTRY' | 'CHART_REPO'
}

interface Answer {
  status: number
  headers: IncomingMessage['headers']
  body: Buffer
}

const TIME_LIMIT = 20_000
const agents = {
  http: new HttpAgent({ keepAlive: true, maxSockets: 8 }),
  https: new Map<string, HttpsAgent>(),
}

/** The content of a site's CA file. @throws Failure 78 where it can't be read */
function caOf({ caFile }: Server): Buffer | undefined {
  if (!caFile) return undefined
  try {
    return readFileSync(caFile)
  } catch (error) {
    throw new Failure(
      EXIT.configuration,
      `the CA file ${caFile} cannot be read: ${(error as Error).message}`,
      `无法读取 CA 文件 ${caFile}`,
    )
  }
}

/**
 * A GET. What a busy server refuses is asked again, three times; redirects are followed.
 * @param limit bytes of the body that are read
 * @throws Failure 69 not reachable · 78 its certificate isn't trusted
 */
async function get(
  server: Server,
  url: string,
  headers: Record<string, string>,
  limit = 16 << 20,
): Promise<Answer> {
  let from = url
  let redirects = 0
  for (let tries = 1; ;) {
    const answer = await getOnce(server, from, headers, limit)
    const { location } = answer.headers
    if (answer.status >= 301 && answer.status <= 308 && location && redirects++ < 5) {
      const to = new URL(location, from)
      // the login is for the server that was asked
      if (to.host !== new URL(from).host) headers = { accept: headers['accept'] ?? '*/*' }
      from = to.href
    } else if ([429, 502, 503, 504].includes(answer.status) && tries < 4) {
      const wanted = Number(answer.headers['retry-after'] ?? 0)
      await pause(Math.min(Math.max(wanted, tries ** 2 / 2), 15))
      tries++
    } else {
      return answer
    }
  }
}

/** One request. */
function getOnce(
  server: Server,
  url: string,
  headers: Record<string, string>,
  limit: number,
): Promise<Answer> {
  const isHttps = url.startsWith('https:')
  const key = server.caFile ?? ''
  if (isHttps && !agents.https.has(key)) {
    const ca = caOf(server)
    agents.https.set(key, new HttpsAgent({ keepAlive: true, maxSockets: 8, ...(ca && { ca }) }))
  }
  const agent = isHttps ? agents.https.get(key)! : agents.http
  return new Promise((resolve, reject) => {
    const options = { agent, headers, timeout: TIME_LIMIT }
    const request = (isHttps ? httpsRequest : httpRequest)(url, options, (response) => {
      const pieces: Buffer[] = []
      let length = 0
      const end = () =>
        resolve({
          status: response.statusCode!,
          headers: response.headers,
          body: Buffer.concat(pieces).subarray(0, limit),
        })
      response.on('data', (piece: Buffer) => {
        pieces.push(piece)
        length += piece.length
        if (length < limit) return
        end()
        response.destroy()
      })
      response.on('end', end)
      response.on('error', (error) => reject(unreachable(server, error)))
    })
    request.on('timeout', () =>
      request.destroy(new Error(`no answer within ${TIME_LIMIT / 1000} s`)),
    )
    request.on('error', (error) => reject(unreachable(server, error)))
    request.end()
  })
}

function unreachable({ address, caFile }: Server, error: NodeJS.ErrnoException): Failure {
  const { code = '', message } = error
  const words = message || code
  if (/CERT|SELF_SIGNED|UNABLE_TO_(VERIFY|GET_ISSUER)|ALTNAME/.test(code)) {
    return new Failure(
      EXIT.configuration,
      `the certificate of ${address} is not trusted: ${words}`,
      `${address} 的证书不受信任：${words}`,
      {
        next: [
          caFile
            ? `is ${caFile} the CA that signed it?`
            : 'name the CA in the site file: containerRegistryCaFile, or chartRepository.caFile',
          caFile
            ? `请确认 ${caFile} 是否为签发该证书的 CA`
            : '请在站点配置中指定 CA：containerRegistryCaFile 或 chartRepository.caFile',
        ],
      },
    )
  }
  return new Failure(
    EXIT.unreachable,
    `${address} cannot be reached: ${words}`,
    `无法访问 ${address}：${words}`,
    { said: code },
  )
}

/** The login of a server from the environment. @throws Failure 78 where a variable is not set */
function loginOf({ login, address }: Server): string | undefined {
  if (!login) return undefined
  const [user, password] = [`${login}_USERNAME`, `${login}_PASSWORD`]
  const missing = [user, password].filter((name) => !process.env[name])
  if (missing.length > 0) {
    throw new Failure(
      EXIT.configuration,
      `${address} asks for a login, but not set: ${missing.join(', ')}`,
      `${address} 需要登录，但未设置：${missing.join('、')}`,
      {
        next: [
          `export ${user}=…; read -rs ${password} && export ${password}   (a cron job sources a file of mode 0600, systemd has EnvironmentFile=)`,
          '请设置并 export；定时任务可先 source 一个权限为 0600 的文件，systemd 可用 EnvironmentFile=',
        ],
      },
    )
  }
  const both = `${process.env[user]}:${process.env[password]}`
  return `Basic ${Buffer.from(both).toString('base64')}`
}

function notAllowed({ address, login }: Server, answer: Answer): Failure {
  return new Failure(
    EXIT.notAllowed,
    `${address} refuses ${login ? `${login}_USERNAME and ${login}_PASSWORD` : 'an anonymous user'} (${answer.status})`,
    `${address} 拒绝${login ? `了 ${login}_USERNAME 和 ${login}_PASSWORD` : '匿名访问'}（${answer.status}）`,
    {
      said: errorText(answer),
      next: [
        'the password may be wrong, the project may not exist, or this user may not see it',
        '可能是密码错误、项目不存在，或该用户没有权限',
      ],
    },
  )
}

/** The answer, where the server lets us in. @throws Failure 77 */
function allowed(server: Server, answer: Answer): Answer {
  if (answer.status === 401 || answer.status === 403) throw notAllowed(server, answer)
  return answer
}

const errorText = ({ body }: Answer) => body.toString().trim().slice(0, 300)

/**
 * http or https? charts-syncer (go-containerregistry 0.14 pkg/name/registry.go) tries https first, and
 * http then for localhost, 127.0.0.1 and addresses of private ranges only.
 */
const schemes = new Map<string, Promise<string>>()

/** The site file says that this host speaks plain http. */
export function usePlainHttp(address: string) {
  schemes.set(address, Promise.resolve('http'))
}

function schemeOf(server: Server): Promise<string> {
  const { address } = server
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

/** Bearer tokens by what they are for; Harbor wants them, other registries take the login itself. */
const tokens = new Map<string, Promise<string>>()

/** @throws Failure 69 · 77 · 78 */
async function registryGet(server: Server, path: string, accept: string): Promise<Answer> {
  const base = `${await schemeOf(server)}://${server.address}`
  const basic = loginOf(server)
  const key = `${server.address} ${path.replace(/\/(manifests|blobs)\/.*/, '')}`
  const used = await tokens.get(key)
  const ask = (authorization: string | undefined) =>
    get(server, base + path, { accept, ...(authorization && { authorization }) })
  const answer = await ask(used ?? basic)
  const challenge = answer.headers['www-authenticate'] ?? ''
  if (answer.status !== 401 || !/^bearer .*realm="/i.test(challenge)) return allowed(server, answer)
  // another question may have got a new token meanwhile; one that was refused is old
  if ((await tokens.get(key)) === used) {
    const token = tokenFor(server, challenge, basic)
    tokens.set(key, token)
    token.catch(() => tokens.delete(key))
  }
  return allowed(server, await ask(await tokens.get(key)))
}

/** @throws Failure 77 where the login is refused */
async function tokenFor(server: Server, challenge: string, basic?: string): Promise<string> {
  const fields = Object.fromEntries(
    [...challenge.matchAll(/(\w+)="([^"]*)"/g)].map(([, name, value]) => [name, value]),
  )
  const url = new URL(fields['realm']!)
  for (const name of ['service', 'scope']) {
    if (fields[name]) url.searchParams.set(name, fields[name])
  }
  const answer = await get(server, url.href, basic ? { authorization: basic } : {})
  if (answer.status !== 200) throw notAllowed(server, answer)
  let found: { token?: string; access_token?: string }
  try {
    found = JSON.parse(answer.body.toString())
  } catch {
    throw unexpected(server, answer)
  }
  const { token, access_token } = found
  return `Bearer ${token ?? access_token}`
}

/** The site's registry. Its login is in the environment, unless the site file says that it has none. */
export function siteRegistry({
  containerRegistry,
  containerRegistryCaFile,
  containerRegistryLogin,
}: Site): Server {
  return {
    address: containerRegistry,
    caFile: containerRegistryCaFile,
    login: containerRegistryLogin === false ? undefined : 'REGISTRY',
  }
}

const MANIFESTS = [
  'application/vnd.docker.distribution.manifest.v2+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.oci.image.index.v1+json',
].join(', ')

/** The manifest under a name in a registry; undefined where there is none. @throws as imageIdAt */
async function manifestAt(server: Server, repository: string, tag: string): Promise<any> {
  const answer = await registryGet(server, `/v2/${repository}/manifests/${tag}`, MANIFESTS)
  if (answer.status === 404) {
    if (/project .*not (be )?found/i.test(errorText(answer))) {
      const project = repository.split('/')[0]
      throw new Failure(
        EXIT.configuration,
        `the registry ${server.address} has no project ${project}`,
        `镜像仓库 ${server.address} 中没有项目 ${project}`,
        {
          said: errorText(answer),
          next: [
            'create it there, or correct project in the site file',
            '请在仓库中创建该项目，或修正站点配置中的 project',
          ],
        },
      )
    }
    return undefined
  }
  if (answer.status !== 200) throw unexpected(server, answer)
  try {
    const manifest = JSON.parse(answer.body.toString())
    if (manifest !== null) return manifest
  } catch {
    // said below
  }
  throw unexpected(server, answer)
}

/**
 * The image ID under a name in a registry: its config digest, which stays the same where tools write
 * manifests anew.
 * @param repository with slashes, without host: `release.daocloud.io/mspider/mspider-api`
 * @returns `sha256:…`; `an index` where it is no single image; undefined where there is nothing
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

function unexpected({ address }: Server, answer: Answer): Failure {
  const isBusy = answer.status >= 500 || answer.status === 429
  return new Failure(
    isBusy ? EXIT.unreachable : EXIT.configuration,
    `${address} answered with ${answer.status}, which is no answer of a registry`,
    `${address} 返回了 ${answer.status}，不是镜像仓库应有的响应`,
    { said: errorText(answer) },
  )
}

/**
 * The package of a chart in a chart repository of Harbor or ChartMuseum; undefined where it is not there.
 * @throws Failure 69 · 77 · 78 where it is no chart repository
 */
export async function chartAt(
  server: Server,
  chart: string,
  version: string,
): Promise<Buffer | undefined> {
  const basic = loginOf(server)
  const headers: Record<string, string> = basic ? { authorization: basic } : {}
  const file = encodeURIComponent(`${chart}-${version}.tgz`)
  const answer = allowed(server, await get(server, `${server.address}/charts/${file}`, headers))
  if (answer.status === 200 && isGzip(answer.body)) return answer.body
  if (answer.status >= 500 || answer.status === 429) throw unexpected(server, answer)
  // not there; but is there a repository at all?
  const index = allowed(server, await get(server, `${server.address}/index.yaml`, headers, 4096))
  if (index.status === 200 && /^(apiVersion|entries|generated):/m.test(index.body.toString()))
    return undefined
  throw new Failure(
    EXIT.configuration,
    `there is no chart repository at ${server.address}: it answers ${index.status}` +
      (/<(!doctype|html)/i.test(index.body.toString()) ? ' with a web page' : ''),
    `${server.address} 处没有 chart 仓库（返回 ${index.status}）`,
    {
      next: [
        'Harbor 2.8 and later have none: kind: OCI with url: oci://HOST/PROJECT in the site file; or a project that does not exist',
        'Harbor 2.8 及以上版本已移除 chart 仓库：请在站点配置中使用 kind: OCI、url: oci://HOST/PROJECT；也可能是项目不存在',
      ],
    },
  )
}

const isGzip = (data: Buffer) => data.subarray(0, 2).toString('hex') === '1f8b'

/**
 * The package of a chart in an OCI registry; undefined where there is nothing under its name.
 * @param repository with slashes, without host: `release.daocloud.io/skoala`
 * @throws Failure 69 · 77 · 78, also where it is no chart
 */
export async function ociChartAt(
  server: Server,
  repository: string,
  version: string,
): Promise<Buffer | undefined> {
  const tag = version.replaceAll('+', '_') // helm 3.22 pkg/registry/util.go
  const manifest = await manifestAt(server, repository, tag)
  if (!manifest) return undefined
  const { config, layers } = manifest
  if (config?.mediaType !== 'application/vnd.cncf.helm.config.v1+json') {
    throw new Failure(
      EXIT.configuration,
      `${server.address}/${repository}:${tag} is no helm chart`,
      `${server.address}/${repository}:${tag} 不是 helm chart`,
    )
  }
  const { digest } = layers.find(({ mediaType }: any) => /chart\.content/.test(mediaType)) ?? {}
  return (await registryGet(server, `/v2/${repository}/blobs/${digest}`, '*/*')).body
}
