import { readFileSync } from 'node:fs'
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { EXIT, Failure, misconfigured, notAllowed, unreachable } from '../base/failure.ts'
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

export interface Answer {
  status: number
  headers: IncomingMessage['headers']
  body: Buffer
}

const TIME_LIMIT = 20_000

/** A cache: connections that are kept open, those of https for each CA file. */
const agents = {
  http: new HttpAgent({ keepAlive: true, maxSockets: 8 }),
  https: new Map<string, HttpsAgent>(),
}

/** @throws Failure 78 where the CA file can't be read */
function agentFor({ caFile }: Server, url: string): HttpAgent | HttpsAgent {
  if (!url.startsWith('https:')) return agents.http
  const known = agents.https.get(caFile ?? '')
  if (known) return known
  const ca = caFile ? { ca: contentOf(caFile) } : {}
  const agent = new HttpsAgent({ keepAlive: true, maxSockets: 8, ...ca })
  agents.https.set(caFile ?? '', agent)
  return agent
}

function contentOf(caFile: string): Buffer {
  try {
    return readFileSync(caFile)
  } catch (error) {
    const { message } = error as Error
    throw misconfigured`
      the CA file ${caFile} cannot be read: ${message}
      无法读取 CA 文件 ${caFile}：${message}`
  }
}

/**
 * A GET. What a busy server refuses is asked again, three times; redirects are followed.
 * @param limit bytes of the body that are read
 * @throws Failure 69 not reachable · 78 its certificate isn't trusted
 */
export async function get(
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

/** The same, asked once, as it is answered. */
export function getOnce(
  server: Server,
  url: string,
  headers: Record<string, string>,
  limit: number,
): Promise<Answer> {
  const agent = agentFor(server, url)
  const request = url.startsWith('https:') ? httpsRequest : httpRequest
  return new Promise((resolve, reject) => {
    const asked = request(url, { agent, headers, timeout: TIME_LIMIT }, (response) => {
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
      response.on('error', (error) => reject(notReached(server, error)))
    })
    asked.on('timeout', () => asked.destroy(new Error(`no answer within ${TIME_LIMIT / 1000} s`)))
    asked.on('error', (error) => reject(notReached(server, error)))
    asked.end()
  })
}

function notReached({ address, caFile }: Server, error: NodeJS.ErrnoException): Failure {
  const { code = '', message } = error
  const words = message || code
  if (/CERT|SELF_SIGNED|UNABLE_TO_(VERIFY|GET_ISSUER)|ALTNAME/.test(code)) {
    const failure = misconfigured`
      the certificate of ${address} is not trusted: ${words}
      ${address} 的证书不受信任：${words}`
    return caFile
      ? failure.next`
        is ${caFile} the CA that signed it?
        请确认 ${caFile} 是否为签发该证书的 CA`
      : failure.next`
        name the CA in the site file: containerRegistryCaFile, or chartRepository.caFile
        请在站点配置中指定 CA：containerRegistryCaFile 或 chartRepository.caFile`
  }
  return unreachable`
    ${address} cannot be reached: ${words}
    无法访问 ${address}：${words}`.said(code)
}

/** The login of a server from the environment, as a header. @throws Failure 78 where a variable is not set */
export function loginOf({ login, address }: Server): { authorization?: string } {
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
export function allowed(server: Server, answer: Answer): Answer {
  if (answer.status === 401 || answer.status === 403) throw loginRefused(server, answer)
  return answer
}

/** The server refuses the login: exit 77. */
export function loginRefused({ address, login }: Server, answer: Answer): Failure {
  return notAllowed`
    ${address} refuses ${login ? `${login}_USERNAME and ${login}_PASSWORD` : 'an anonymous user'} (${answer.status})
    ${address} 拒绝${login ? `了 ${login}_USERNAME 和 ${login}_PASSWORD` : '匿名访问'}（${answer.status}）`.said(
    errorText(answer),
  ).next`
    the password may be wrong, the project may not exist, or this user may not see it
    可能是密码错误、项目不存在，或该用户没有权限`
}

/** An answer that a registry or chart repository does not give: exit 69 where it is busy, else 78. */
export function unexpected({ address }: Server, answer: Answer): Failure {
  const isBusy = answer.status >= 500 || answer.status === 429
  return new Failure(
    isBusy ? EXIT.unreachable : EXIT.configuration,
    `unexpected answer from ${address}: HTTP ${answer.status}`,
    `${address} 的响应异常：HTTP ${answer.status}`,
  ).said(errorText(answer))
}

/** What a server says in an answer. */
export const errorText = ({ body }: Answer) => body.toString().trim().slice(0, 300)
