import { readdirSync, readFileSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { expect, test } from 'vitest'
import { ROOT } from '../support/run-script.ts'

/** The rooms of lib/: each imports from those above it only, so lib/script.ts, which has the table, from all. */
const ROOMS = [
  'base',
  'inputs',
  'audit',
  'manual',
  'run',
  'bundle',
  'cluster',
  'registry',
  'nodes',
  'upgrade',
  'script.ts',
]
/** The manual's chapters that have nothing to do with each other. */
const APART = ['registry', 'nodes']

const lib = join(ROOT, 'lib')
const files = readdirSync(lib, { recursive: true, encoding: 'utf8' }).filter((file) =>
  file.endsWith('.ts'),
)
const text = (file: string) => readFileSync(join(lib, file), 'utf8')
const roomOf = (file: string) => file.split('/')[0]!
const importsOf = (file: string): string[] =>
  [...text(file).matchAll(/ from '(\.[^']+)'/g)]
    .map(([, to]) => relative(lib, resolve(lib, file, '..', to!)))
    .filter((to) => !to.startsWith('..'))

test('a room of lib imports only from rooms above it, and no two files import each other', () => {
  const wrong = files.flatMap((file) =>
    importsOf(file).flatMap((to) => {
      const [from, into] = [roomOf(file), roomOf(to)]
      const isBelow = ROOMS.indexOf(into) > ROOMS.indexOf(from)
      const isApart = from !== into && APART.includes(from) && APART.includes(into)
      const isMutual = importsOf(to).includes(file)
      return isBelow || isApart || isMutual ? [`${file} imports ${to}`] : []
    }),
  )
  expect(files.map(roomOf).filter((room) => !ROOMS.includes(room))).toEqual([])
  expect(wrong).toEqual([])
})

test('lib/script.ts explains every room, and hands on about 14 words', () => {
  const script = text('script.ts')
  for (const room of [...ROOMS.slice(0, -1), 'bin']) expect(script).toContain(`//   ${room}/`)
  const words = [...script.matchAll(/^export \{([^}]*)\}/gm)].flatMap(([, names]) =>
    names!.split(',').map((name) => name.trim()),
  )
  expect(words.length).toBeLessThanOrEqual(15)
})

test('lib has one module-level cell, the session; whatever else is kept between calls only saves time', () => {
  const found = files.flatMap((file) => {
    const lines = text(file).split('\n')
    return lines.flatMap((line, index) => {
      const isCell =
        /^(export )?let /.test(line) ||
        /^(export )?const \w+(: [^=]+)? = (new (Map|Set|WeakMap|WeakSet)|\[\]|\{\}|\{ run\b)/.test(
          line,
        ) ||
        /^(export )?const session\b/.test(line) ||
        /^  static (?!readonly)/.test(line)
      // a Map that is filled where it is written is a table
      const isTable = /new (Map|Set)(<[^>]*>)?\(\[/.test(line)
      const above = lines.slice(Math.max(0, index - 5), index + 1).join('\n')
      const isCache = /A cache: /.test(above.slice(above.lastIndexOf('/**')))
      return isCell && !isTable && !isCache ? [`${file}: ${line}`] : []
    })
  })
  expect(found).toEqual([
    'run/session.ts: export const session: { run?: Run; failure?: Failure } = {}',
  ])
})

test('no script has more than 80 lines', () => {
  const scripts = readdirSync(join(ROOT, 'scripts')).map((name) => ({
    name,
    lines: readFileSync(join(ROOT, 'scripts', name), 'utf8').split('\n').length - 1,
  }))
  expect(scripts.filter(({ lines }) => lines > 80)).toEqual([])
})
