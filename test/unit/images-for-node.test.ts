import { randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { sha256 } from '../../lib/base/hash.ts'
import { ROOT, runProgram, temporaryDirectory } from '../support/run-script.ts'

const BUNDLE = randomBytes(3_000_000)

/** Runs it for node1 in a directory with these files; prints the sha256 of what it writes. */
function imagesForNode(files: Record<string, string | Buffer>, before = '') {
  const cwd = temporaryDirectory()
  mkdirSync(join(cwd, 'load'))
  for (const [name, text] of Object.entries(files)) writeFileSync(join(cwd, name), text)
  const line = `set -o pipefail; ${before} "$0" node1 'the bundle.tar' | sha256sum`
  return runProgram('bash', ['-c', line, join(ROOT, 'lib/bin/images-for-node')], { cwd })
}

const whole = { 'the bundle.tar': BUNDLE, 'load/node1.tar': 'the begin', 'load/node1.parts': '' }

test('the begin, the bytes of the bundle, and the end of an archive, also without a last line break', async () => {
  const parts = '512 1000\n1000000 2000000\n0 1\n7 0\n2999999 1'
  const { exitCode, output } = await imagesForNode({ ...whole, 'load/node1.parts': parts })
  const bytes = [[512, 1512], [1000000, 3000000], [0, 1], [2999999]]
  const wanted = Buffer.concat([
    Buffer.from('the begin'),
    ...bytes.map(([from, to]) => BUNDLE.subarray(from, to)),
    Buffer.alloc(1024),
  ])
  expect({ exitCode, output }).toEqual({ exitCode: 0, output: `${sha256(wanted)}  -\n` })
})

test.each([
  ['there is no such node', { 'load/node1.tar': undefined }, 'load/node1.tar is missing'],
  ['the parts are missing', { 'load/node1.parts': undefined }, 'load/node1.parts is missing'],
  ['the bundle is missing', { 'the bundle.tar': undefined }, 'the bundle.tar is missing'],
  [
    'the bundle is cut off',
    { 'load/node1.parts': '0 9\n2999999 2\n0 9\n' },
    'is cut off at byte 3000000',
  ],
  ['a line is torn', { 'load/node1.parts': '0 9\n12\n' }, 'not an offset and a size: 12'],
  [
    'a line is something else',
    { 'load/node1.parts': '0 9\n-1 5\n' },
    'not an offset and a size: -1 5',
  ],
])('%s: it fails, and names it', async (_, files, sentence) => {
  const present = Object.entries({ ...whole, ...files }).filter(([, text]) => text !== undefined)
  const result = await imagesForNode(Object.fromEntries(present) as Record<string, string>)
  expect(result.exitCode).toBe(1)
  expect(result.stderr).toContain(sentence)
})

test('a read that fails in the midst is not lost', async () => {
  const files = { ...whole, 'load/node1.parts': '0 9\n5 9\n0 9\n' }
  const standIn = temporaryDirectory()
  writeFileSync(
    join(standIn, 'dd'),
    '#!/bin/sh\ncase "$*" in *skip=5*) exit 3 ;; esac\nexec /bin/dd "$@"\n',
    { mode: 0o755 },
  )
  const result = await imagesForNode(files, `PATH=${standIn}:$PATH`)
  expect(result.exitCode).toBe(1)
  expect(result.stderr).toContain('9 bytes of the bundle.tar from byte 5 on could not be copied')
})
