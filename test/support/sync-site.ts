import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import {
  createServer as createHttpServer,
  request as httpRequest,
  type IncomingMessage,
  type RequestListener,
  type ServerResponse,
} from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { expect, onTestFinished, vi } from 'vitest'
import { processesOf } from './interruptions.ts'
import { auditOf, lab, labSite, runInLab } from './lab-site.ts'
import { runProgram, type Result } from './run-script.ts'

export const { registry, chartRepository } = lab
export const bundleOf = (module: string) => lab.modules[module]!.new.bundle
const chartHost = new URL(chartRepository.harbor).host
let projects = 0

/** A site whose project in registry and chart repository has nothing yet. */
export function emptySite(kind = 'HARBOR', changes: object = {}) {
  const project = `p${process.pid}-${++projects}`
  const repositories: Record<string, object> = {
    HARBOR: { kind, url: `http://${chartHost}/chartrepo/${project}`, login: true },
    CHARTMUSEUM: { kind, url: `http://${chartHost}/${project}`, login: true },
    OCI: { kind, url: `oci://${registry.host}/${project}`, login: true, plainHttp: true },
    LOCAL: { kind },
  }
  const { site, state } = labSite({ project, chartRepository: repositories[kind], ...changes })
  return { site, state, project, kind }
}
export type Site = ReturnType<typeof emptySite>

/** The chart repository's login, where it is another than the lab's usual one. */
export const login = (kind: string) =>
  kind === 'OCI'
    ? { CHART_REPO_USERNAME: registry.username, CHART_REPO_PASSWORD: registry.password }
    : {}

export const sync = (
  { site, kind }: Site,
  module: string,
  bundle: string,
  more: string[] = [],
  env: NodeJS.ProcessEnv = {},
): Promise<Result> =>
  runInLab('sync-images', ['--module', module, '--site', site, '--bundle', bundle, ...more], {
    ...login(kind),
    ...env,
  })

export const authorization = `Basic ${Buffer.from(`${registry.username}:${registry.password}`).toString('base64')}`
const accept =
  'application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json'

export const manifest = (method: string, path: string, tag: string, body?: string) =>
  fetch(`http://${registry.host}/v2/${path}/manifests/${tag}`, {
    method,
    headers: { authorization, accept, ...(body && { 'content-type': accept.split(',')[0]! }) },
    body,
  })

/** The image ID under a name, as the registry itself says. */
export async function idAt(path: string, tag: string): Promise<string | undefined> {
  const answer = await manifest('GET', path, tag)
  return answer.status === 404 ? undefined : ((await answer.json()) as any).config.digest
}

/** The bundle's images by name, with their IDs, from its own manifest. */
export async function imagesOf(bundle: string): Promise<Record<string, string>> {
  const line = 'tar -xOf "$0" images.tar | tar -xOf - manifest.json'
  const { stdout } = await runProgram('bash', ['-c', line, bundle])
  return Object.fromEntries(
    JSON.parse(stdout).map(({ Config, RepoTags }: any) => [RepoTags[0].split('/').at(-1), Config]),
  )
}

/** All images of the bundle are in the site's registry, with their own IDs. */
export async function allThere({ project }: Site, module: string, bundle: string) {
  for (const [image, id] of Object.entries(await imagesOf(bundle))) {
    const [name, tag] = image.split(':')
    expect(await idAt(`${project}/${module}/${name}`, tag!), image).toBe(id)
  }
}

export async function chartThere({ project, kind, state }: Site, module: string, version: string) {
  const file = `${module}-${version}.tgz`
  const basic = `Basic ${Buffer.from(`${chartRepository.username}:${chartRepository.password}`).toString('base64')}`
  const has = async (url: string) => (await fetch(url, { headers: { authorization: basic } })).ok
  if (kind === 'LOCAL') return existsSync(join(state, module, 'local-repo', file))
  if (kind === 'OCI') return (await manifest('GET', `${project}/${module}`, version)).ok
  return has(
    `http://${chartHost}/${kind === 'HARBOR' ? 'chartrepo/' : ''}${project}/charts/${file}`,
  )
}

export const ranChartsSyncer = (state: string, module: string) =>
  auditOf(state, module).filter(
    ({ event, command }) => event === 'command' && /charts-syncer sync/.test(command),
  ).length

export const nothingLeft = (state: string, module: string) =>
  expect(existsSync(join(state, module, 'charts-syncer'))).toBe(false)

/** A server that stands in for one that can't be had here. */
export async function standIn(answer: RequestListener, tls?: { key: Buffer; cert: Buffer }) {
  const server = tls ? createHttpsServer(tls, answer) : createHttpServer(answer)
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  onTestFinished(() => void server.close())
  return `127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** Hands a request on to the lab's registry. */
export function toRegistry(request: IncomingMessage, response: ServerResponse, headers: object) {
  const [hostname, port] = registry.host.split(':')
  const { method, url: path } = request
  const options = { hostname, port, method, path, headers: { ...request.headers, ...headers } }
  const onward = httpRequest(options, (answer) => {
    response.writeHead(answer.statusCode!, answer.headers)
    answer.pipe(response)
  })
  request.pipe(onward)
}

/** A mark for the environment of a run, and its charts-syncer, which is stopped as soon as it is at work. */
export function markedRun() {
  const mark = randomBytes(8).toString('hex')
  const processes = () => processesOf(`SYNC_RUN=${mark}`)
  const syncer = () =>
    processes().find(({ command }) => /^charts-syncer sync --c/.test(command))?.pid
  /** @returns lets it go on */
  const stopped = async () => {
    const pid = await vi.waitFor(
      () => {
        expect(syncer()).toBeDefined()
        return syncer()!
      },
      // much, for a machine that has other work
      { timeout: 120_000, interval: 2 },
    )
    process.kill(pid, 'SIGSTOP')
    return () => process.kill(pid, 'SIGCONT')
  }
  return { env: { SYNC_RUN: mark }, processes, stopped }
}
