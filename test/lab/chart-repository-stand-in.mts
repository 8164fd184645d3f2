// Stands in for ChartMuseum, and for the chart repository that Harbor had before 2.8: neither can
// be had where the tests run. Serves what helm and charts-syncer ask of them, for any project:
//
//   ChartMuseum at http://H/P            GET /P/index.yaml             POST   /P/api/charts
//                                        GET /P/charts/X.tgz           DELETE /P/api/charts/X/V
//   Harbor at http://H/chartrepo/P       GET /chartrepo/P/index.yaml   POST   /api/chartrepo/P/charts
//                                        GET /chartrepo/P/charts/X.tgz DELETE /api/chartrepo/P/charts/X/V
//
// Usage: node chart-repository-stand-in.mts PORT DIRECTORY HELM
// Asks for CHART_REPO_USERNAME and CHART_REPO_PASSWORD, where these are set. The index is helm's.

import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import { promisify } from 'node:util'
import { parse } from 'yaml'

const run = promisify(execFile)
const [port, directory, helm] = process.argv.slice(2) as [string, string, string]
const { CHART_REPO_USERNAME: username, CHART_REPO_PASSWORD: password } = process.env
const login = username && `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`

interface Answer {
  status: number
  body: Buffer | object
}

const name = '([A-Za-z0-9][A-Za-z0-9._+-]*)'
const routes: [method: string, path: RegExp, (parts: string[], r: IncomingMessage) => unknown][] = [
  ['GET', RegExp(`^(?:/chartrepo)?/${name}/(index.yaml|charts/${name})$`), download],
  ['POST', RegExp(`^/api/chartrepo/${name}/charts$`), upload],
  ['POST', RegExp(`^/${name}/api/charts$`), upload],
  ['DELETE', RegExp(`^/api/chartrepo/${name}/charts/${name}/${name}$`), remove],
  ['DELETE', RegExp(`^/${name}/api/charts/${name}/${name}$`), remove],
]

async function download([project, path]: string[]): Promise<Answer> {
  const file = `${directory}/${project}/${path}`
  if (path === 'index.yaml' && !existsSync(file)) await index(project!)
  if (!existsSync(file)) return { status: 404, body: { error: 'not found' } }
  return { status: 200, body: readFileSync(file) }
}

async function upload([project]: string[], request: IncomingMessage): Promise<Answer> {
  const headers = { 'content-type': request.headers['content-type'] ?? '' }
  const form = await new Response(Readable.toWeb(request) as ReadableStream, { headers }).formData()
  const chart = form.get('chart')
  if (!(chart instanceof File)) return { status: 400, body: { error: 'no field named chart' } }
  mkdirSync(`${directory}/${project}/charts`, { recursive: true })
  const aside = `${directory}/upload.tgz`
  writeFileSync(aside, Buffer.from(await chart.arrayBuffer()))
  const { name, version } = parse((await run(helm, ['show', 'chart', aside])).stdout)
  const file = `${directory}/${project}/charts/${name}-${version}.tgz`
  if (existsSync(file)) return { status: 409, body: { error: 'file already exists' } }
  renameSync(aside, file)
  await index(project!)
  return { status: 201, body: { saved: true } }
}

async function remove([project, name, version]: string[]): Promise<Answer> {
  const file = `${directory}/${project}/charts/${name}-${version}.tgz`
  if (!existsSync(file)) return { status: 404, body: { error: 'not found' } }
  rmSync(file)
  await index(project!)
  return { status: 200, body: { deleted: true } }
}

/** Helm writes `charts/X.tgz` as a chart's URL, as ChartMuseum does. */
async function index(project: string) {
  const place = `${directory}/${project}`
  mkdirSync(place, { recursive: true })
  await run(helm, ['repo', 'index', place])
}

async function answer(request: IncomingMessage): Promise<Answer> {
  if (login && request.headers.authorization !== login) {
    return { status: 401, body: { error: 'unauthorized' } }
  }
  const path = decodeURIComponent(new URL(request.url!, 'http://lab').pathname)
  for (const [method, pattern, handle] of routes) {
    const parts = pattern.exec(path)
    if (parts && method === request.method) {
      return (await handle(parts.slice(1), request)) as Answer
    }
  }
  return { status: 404, body: { error: 'not found' } }
}

// One request at a time: an upload reads the index's directory while it writes to it.
let queue: Promise<unknown> = Promise.resolve()

createServer((request, response) => {
  queue = queue.then(async () => {
    const { status, body } = await answer(request).catch((error: Error) => {
      console.error(error)
      return { status: 500, body: { error: error.message } }
    })
    console.log(new Date().toISOString(), request.method, request.url, status)
    if (status === 401) response.setHeader('www-authenticate', 'Basic realm="charts"')
    response.statusCode = status
    response.end(Buffer.isBuffer(body) ? body : JSON.stringify(body))
  })
}).listen(Number(port), '127.0.0.1')
