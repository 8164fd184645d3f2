import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:http'
import { type AddressInfo } from 'node:net'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { sha256 } from '../../lib/base/hash.ts'
import { copyOfTheCollection, ROOT, runProgram, scriptEnv } from '../support/run-script.ts'
import { type Mutant } from './mutants.ts'
import { CHARTS, MODULE_OF, type Way, writePair, writeSite } from './ways.ts'

/** A copy of the collection in which one run at a time goes on. */
export interface Copy {
  directory: string
  /** of its cluster, so that no two copies wait for one lock */
  uid: string
}

/** What is there before a run: an old release, what a run of the original left, or no images. */
export type Before = 'old' | 'upgraded' | 'no images'

/** What a run was seen to do. */
export interface Seen {
  exitCode: number | null
  output: string
  /** what it ran, or printed, in this order; with the headings between them */
  commands: string[]
  withHeadings: string[]
  /** remarks, exports, and what was found out, sorted */
  remarks: string[]
  /** of the stand-ins: what was changed, and what should not have been */
  changes: string[]
  log: string[]
}

/** A registry that has every image of the project `images`, and none of another one. */
export async function standInRegistry(): Promise<string> {
  const server = createServer((request, response) => {
    const isThere = request.url === '/v2/' || request.url!.startsWith('/v2/images/')
    response.writeHead(isThere ? 200 : 404, { 'content-type': 'application/json' })
    response.end(isThere ? '{"config":{"digest":"sha256:0"}}' : '{"errors":[]}')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void server.close())
  return `127.0.0.1:${(server.address() as AddressInfo).port}`
}

export function makeCopies(count = availableParallelism()): Copy[] {
  return Array.from({ length: count }, (_, number) => {
    const directory = copyOfTheCollection()
    writePair(directory)
    const uid = `stand-in-${process.pid}-${number}`
    onTestFinished(() => {
      for (const [release, { namespace }] of Object.entries(MODULE_OF)) {
        const target = `release ${namespace}/${release} of the cluster ${uid}`
        for (const place of ['/run/lock', '/tmp'])
          rmSync(join(place, `dce-upgrade-${sha256(target).slice(0, 24)}.lock`), { force: true })
      }
    })
    return { directory, uid }
  })
}

/** node keeps compiled code there: a run takes half as long then */
const compileCache = ({ directory }: Copy) => ({
  NODE_COMPILE_CACHE: join(directory, '.compile-cache'),
})

/** Puts a text in the place of a script of the copy, does the work, and puts the original back. */
export async function withScripts<T>(
  { directory }: Copy,
  texts: Record<string, string>,
  work: () => Promise<T>,
): Promise<T> {
  const path = (script: string) => join(directory, 'scripts', `${script}.mts`)
  const write = (script: string, text: string) => writeFileSync(path(script), text)
  for (const [script, text] of Object.entries(texts)) write(script, text)
  try {
    return await work()
  } finally {
    for (const script of Object.keys(texts))
      write(script, readFileSync(join(ROOT, 'scripts', `${script}.mts`), 'utf8'))
  }
}

/** Runs the script of a way in a copy; one that does not end is ended, with 124. */
const runWay = (copy: Copy, way: Way, args: string[], env: NodeJS.ProcessEnv) =>
  runProgram(
    'timeout',
    ['180', 'zx', `scripts/${way.script}.mts`, ...way.args, '--site', 'run/site.yaml', ...args],
    { cwd: copy.directory, env: scriptEnv({ ...compileCache(copy), ...env }) },
  )

const withStandIns = (world: string) => ({
  PATH: `${join(ROOT, 'test/copies/stand-ins')}:${process.env['PATH']}`,
  STAND_IN: world,
})

const lines = (text: string) => text.split('\n').filter(Boolean)

/** A dry run of what is in the copy. */
export async function dryRun(copy: Copy, way: Way, env: NodeJS.ProcessEnv = {}): Promise<Seen> {
  const run = join(copy.directory, 'run')
  rmSync(run, { recursive: true, force: true })
  writeSite(run, way.site, '10.16.10.111', 'images')
  writeFileSync(join(run, 'skoala.bundle.tar'), '')
  const { exitCode, stdout, stderr } = await runWay(copy, way, ['--dry-run'], {
    ...withStandIns(run),
    ...env,
  })
  // what is above the first blank line sets the environment up
  const body = stdout.slice(stdout.indexOf('\n\n') + 1 || stdout.length)
  const all = body.replaceAll(copy.directory, '').split('\n')
  const log = join(run, 'log')
  const asked = existsSync(log) ? lines(readFileSync(log, 'utf8')) : []
  const isHeading = (line: string, index: number) =>
    line.startsWith('# ') && all[index - 1] === '' && line.endsWith(')')
  const isDiffers = (line: string) => /^# (differs from|与 .* 不同)/.test(line)
  const isRemark = (line: string) => /^(#|export )/.test(line)
  return {
    exitCode,
    output: stderr,
    commands: all.filter((line) => line && !isRemark(line)),
    withHeadings: all.filter((line, index) => line && (!isRemark(line) || isHeading(line, index))),
    remarks: [
      ...all.filter(
        (line, index) => /^#/.test(line) && !isHeading(line, index) && !isDiffers(line),
      ),
      // the same value may be set again
      ...new Set(all.filter((line) => line.startsWith('export '))),
    ].sort(),
    changes: asked.map((line) => `ASKED in a dry run: ${line}`),
    log: [],
  }
}

/** What the stand-ins know before a run of the original. */
function writeWorld(run: string, way: Way, registry: string, uid: string) {
  const module = way.args[1]!
  const world = join(run, 'world')
  mkdirSync(join(world, 'charts'), { recursive: true })
  mkdirSync(join(world, 'releases'))
  writeFileSync(join(world, 'place'), `${registry}/images/${module}`)
  writeFileSync(join(world, 'uid'), uid)
  writeFileSync(join(world, 'log'), '')
  const crd =
    'apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata:\n  name: things.example.org\n'
  writeFileSync(join(world, 'crd.yaml'), crd)
  writeFileSync(join(run, 'values.yaml'), '')
  symlinkSync('world/charts', join(run, 'charts'))
  for (const [release, { module: of, namespace }] of Object.entries(MODULE_OF)) {
    if (of !== module) continue
    const chart = join(world, 'charts', release)
    mkdirSync(join(chart, 'crds'), { recursive: true })
    const version = CHARTS[release as keyof typeof CHARTS]
    writeFileSync(join(chart, 'Chart.yaml'), `name: ${release}\nversion: ${version}\n`)
    writeFileSync(join(chart, 'crds/things.yaml'), crd)
    if (way.args.includes('--install')) continue
    const files = join(world, 'releases', release)
    mkdirSync(files)
    writeFileSync(join(files, 'namespace'), namespace)
    writeFileSync(join(files, 'last'), '1')
    writeFileSync(join(files, '1.chart'), `${release}-1.0.0`)
    writeFileSync(join(files, '1.values'), `kept=of ${release}\nglobal.imageRegistry=old\n`)
  }
}

/**
 * A real run of what is in the copy, with the stand-ins for tools.
 * @param left where the state is kept that a run of the original leaves, for `upgraded`
 */
export async function realRun(
  copy: Copy,
  way: Way,
  before: Before,
  registry: string,
  left: string,
): Promise<Seen> {
  const run = join(copy.directory, 'run')
  const world = join(run, 'world')
  rmSync(run, { recursive: true, force: true })
  if (before === 'upgraded') {
    cpSync(left, run, { recursive: true, verbatimSymlinks: true })
    rmSync(join(run, 'state/stand-in/cluster.json'), { force: true })
    writeFileSync(join(world, 'uid'), copy.uid)
    writeFileSync(join(world, 'log'), '')
  } else {
    writeSite(run, way.site, registry, before === 'old' ? 'images' : 'nothing')
    writeWorld(run, way, registry, copy.uid)
    const archive = way.args.find((each) => each.endsWith('.tgz'))
    if (archive)
      await runProgram('tar', ['-czf', archive, '-C', 'run/charts', way.args[1]!], {
        cwd: copy.directory,
      })
  }
  if (before === 'no images')
    writeFileSync(join(world, 'place'), `${registry}/nothing/${way.args[1]}`)
  const trail = join(run, 'state/stand-in', way.args[1]!, 'audit.jsonl')
  const known = existsSync(trail) ? lines(readFileSync(trail, 'utf8')).length : 0
  const { exitCode, stdout, output } = await runWay(copy, way, [], {
    ...withStandIns(world),
    CHART_REPO_USERNAME: 'somebody',
    CHART_REPO_PASSWORD: 'secret',
    REGISTRY_USERNAME: '',
  })
  const records = existsSync(trail)
    ? lines(readFileSync(trail, 'utf8'))
        .slice(known)
        .map((line) => JSON.parse(line))
    : []
  const withoutTime = (text: string) =>
    text.replaceAll(copy.directory, '').replace(/\d{8}T\d{6}Z/g, '{time}')
  const commands = records
    .filter(({ event }) => event === 'command')
    .map(({ command, variables }) => withoutTime(`${command} ${JSON.stringify(variables)}`))
  const facts = records
    .filter(({ event }) => /^(cluster|state|backup|crds|images|workloads)$/.test(event))
    .map(({ event, release = '' }) => `${event} ${release}`)
  const log = lines(readFileSync(join(world, 'log'), 'utf8'))
  return {
    exitCode,
    output,
    commands,
    withHeadings: commands,
    remarks: [
      ...facts,
      ...lines(stdout).filter((line) => /^# (check|检查|lock|加锁|only|仅)/.test(line)),
    ].sort(),
    changes: log.filter((line) => /^(CHANGED|UNLOCKED)/.test(line)),
    log,
  }
}

/** Keeps what a run left in a copy. */
export function keep(copy: Copy, left: string) {
  rmSync(left, { recursive: true, force: true })
  cpSync(join(copy.directory, 'run'), left, { recursive: true, verbatimSymlinks: true })
}

/** Does the work for each item; so many at once as there are copies. */
export async function inCopies<T>(
  copies: Copy[],
  items: T[],
  work: (copy: Copy, item: T) => Promise<void>,
): Promise<void> {
  const rest = [...items]
  await Promise.all(
    copies.map(async (copy) => {
      for (let item = rest.shift(); item !== undefined; item = rest.shift()) await work(copy, item)
    }),
  )
}

export const nameOf = ({ script, line, kind, what }: Mutant) =>
  `scripts/${script}.mts:${line}: ${kind}: ${what}`
