import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import http, { type IncomingMessage } from 'node:http'
import https from 'node:https'
import { type Failure, misconfigured, notAllowed, unreachable } from '../base/failure.ts'
import { pause } from '../run/session.ts'

/** A server that is asked over HTTP, and the login for it. */
export interface Server {
  /** host[:port] of a registry, or the URL of a chart repository */
  address: string
  /** the CA that signed its certificate: a path */
  caFile?: string
  /** the variables that hold the login: REGISTRY means REGISTRY_USERNAME and REGISTRY_PASSWORD */
  login?: 'REGISTRY' | 'CHART_REPO'
  /** a registry that speaks http, as the site file says; else it is tried */
  plainHttp?: boolean
}

/** What a server answered. */
export type Answer = Awaited<ReturnType<typeof getOnce>>
type Headers = Record<string, string>

const TIME_LIMIT = 20_000
const POOL = { keepAlive: true, maxSockets: 8 }
const agents = { http: new http.Agent(POOL), https: new https.Agent(POOL) }

/** @throws Failure 78 where the CA file can't be read */
function contentOf(caFile: string): Buffer {
  try {
    return readFileSync(caFile)
  } catch (error) {
    throw misconfigured`
      the CA file ${caFile} cannot be read: ${(error as Error).message}
      无法读取 CA 文件 ${caFile}：${(error as Error).message}`
  }
}

/**
 * A GET. What a busy server refuses is asked again, three times; redirects are followed.
 * @param limit bytes of the body that are read
 * @throws Failure 69 not reachable · 78 its certificate isn't trusted
 */
export async function get(server: Server, url: string, headers: Headers, limit = 16 << 20) {
  let redirects = 0
  for (let tries = 1; ;) {
    const answer = await getOnce(server, url, headers, limit)
    const { location, 'retry-after': wait = 0 } = answer.headers
    if (answer.status >= 301 && answer.status <= 308 && location && redirects++ < 5) {
      const { host } = new URL(url)
      url = new URL(location, url).href
      // the login is for the server that was asked
      if (new URL(url).host !== host) headers = { accept: headers['accept'] ?? '*/*' }
    } else if ([429, 502, 503, 504].includes(answer.status) && tries < 4) {
      await pause(Math.min(Math.max(Number(wait), tries ** 2 / 2), 15))
      tries++
    } else {
      return answer
    }
  }
}

/** The same, asked once, as it is answered. */
export async function getOnce(server: Server, url: string, headers: Headers, limit: number) {
  const isHttps = url.startsWith('https:')
  const agent = isHttps ? agents.https : agents.http
  const ca = isHttps && server.caFile ? contentOf(server.caFile) : undefined
  const asked = (isHttps ? https : http).get(url, { agent, ca, headers, timeout: TIME_LIMIT })
  let cause: Error | undefined
  asked.on('error', (error) => (cause ??= error)) // before the answer is cut off by it
  asked.on('timeout', () => asked.destroy(new Error(`no answer within ${TIME_LIMIT / 1000} s`)))
  try {
    const [response] = (await once(asked, 'response')) as [IncomingMessage]
    const pieces: Buffer[] = []
    let length = 0
    for await (const piece of response) {
      pieces.push(piece)
      length += piece.length
      if (length >= limit) break
    }
    const { statusCode, headers: said } = response
    return { status: statusCode!, headers: said, body: Buffer.concat(pieces).subarray(0, limit) }
  } catch (error) {
    throw notReached(server, cause ?? (error as Error))
  }
}

function notReached({ address, caFile }: Server, error: NodeJS.ErrnoException): Failure {
  const { code = '', message } = error
  const words = message || code
  if (/CERT|SELF_SIGNED|UNABLE_TO_(VERIFY|GET_ISSUER)|ALTNAME/.test(code)) {
    const failure = misconfigured`
      the certificate of ${address} is not trusted: ${words}
      ${address} 的证书不受信任：${words}`
    if (caFile)
      return failure.next(
        `is ${caFile} the CA that signed it?`,
        `请确认 ${caFile} 是否为签发该证书的 CA`,
      )
    return failure.next`
      name the CA in the site file: containerRegistryCaFile, or chartRepository.caFile
      请在站点配置中指定 CA：containerRegistryCaFile 或 chartRepository.caFile`
  }
  return unreachable`
    ${address} cannot be reached: ${words}
    无法访问 ${address}：${words}`.said(code)
}

/** The login of a server from the environment, as a header. @throws Failure 78 where a variable is not set */
export function loginOf({ login, address }: Server): Headers {
  if (!login) return {}
  const [user, password] = [`${login}_USERNAME`, `${login}_PASSWORD`]
  const missing = [user, password].filter((name) => !process.env[name])
  if (missing.length > 0) {
    throw misconfigured`
      ${address} asks for a login, but not set: ${missing.join(', ')}
      ${address} 需要登录，但未设置：${missing.join('、')}`.next`
      export ${user}=…; read -rs ${password} && export ${password}   (a cron job sources a file of mode 0600, systemd has EnvironmentFile=)
      请设置并 export；定时任务可先 source 一个权限为 0600 的文件，systemd 可用 EnvironmentFile=`
  }
  const both = `${process.env[user]}:${process.env[password]}`
  return { authorization: `Basic ${Buffer.from(both).toString('base64')}` }
}

/** The answer, where the server lets us in. @throws Failure 77 */
export function allowed(
  { address, login }: Server,
  answer: Answer,
  isAllowed = answer.status !== 401 && answer.status !== 403,
): Answer {
  if (isAllowed) return answer
  throw notAllowed`
    ${address} refuses ${login ? `${login}_USERNAME and ${login}_PASSWORD` : 'an anonymous user'} (${answer.status})
    ${address} 拒绝${login ? `了 ${login}_USERNAME 和 ${login}_PASSWORD` : '匿名访问'}（${answer.status}）`.said(
    errorText(answer),
  ).next`
    the password may be wrong, the project may not exist, or this user may not see it
    可能是密码错误、项目不存在，或该用户没有权限`
}

/** Does the server ask for patience? */
export const isBusy = ({ status }: Answer) => status >= 500 || status === 429

/** An answer that a registry or chart repository does not give: exit 69 where it is busy, else 78. */
export const unexpected = ({ address }: Server, answer: Answer): Failure =>
  (isBusy(answer) ? unreachable : misconfigured)`
    unexpected answer from ${address}: HTTP ${answer.status}
    ${address} 的响应异常：HTTP ${answer.status}`.said(errorText(answer))

/** What a server says in an answer. */
export const errorText = ({ body }: Answer) => body.toString().trim().slice(0, 300)
