import { createHash } from 'node:crypto'
import {
  appendFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { readTrail } from '../../lib/audit/verify.ts'
import {
  copyOfTheCollection,
  runProgram,
  runScript,
  scriptEnv,
  type Result,
} from '../support/run-script.ts'

const seed = Number(process.env['SEED'] ?? 20261121)
const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')

const directory = mkdtempSync(join(tmpdir(), 'dce-upgrade-test-'))
afterAll(() => rmSync(directory, { recursive: true }))
const site = join(directory, 'site.yaml')
const path = join(directory, 'state/example/mspider/audit.jsonl')
const tools = join(directory, 'stand-ins-that-are-never-run')

/** A run that is refused, since there is no kubeconfig: it is in the audit. */
const refusedRun = (ticket: string): Promise<Result> =>
  runScript('backup-values', ['--module', 'mspider', '--site', site, '--ticket', ticket], {
    env: { PATH: `${tools}:${process.env['PATH']}` },
  })
const audit = (order: string, ...args: string[]) =>
  runScript('audit', [order, '--module', 'mspider', '--site', site, ...args])

/** The trail of ten runs, as the scripts wrote it. */
let trail: string
let lines: string[]
let head: string

beforeAll(async () => {
  const example = readFileSync('site.example.yaml', 'utf8')
  writeFileSync(site, example.replace('~/.kube/config', './no-kubeconfig'))
  mkdirSync(tools)
  for (const name of ['helm', 'kubectl'])
    writeFileSync(join(tools, name), '#!/bin/sh\nexit 99\n', { mode: 0o755 })
  for (let run = 0; run < 10; run++) {
    const result = await refusedRun(`CHG ${run}`)
    expect(result.exitCode, result.output).toBe(78)
  }
  trail = readFileSync(path, 'utf8')
  lines = trail.trimEnd().split('\n')
  head = sha256(lines.at(-1)!)
}, 180_000)

/** An edit of the trail: the new text, and the first line that is not as it was. */
interface Edit {
  text: string
  /** where it is no text */
  bytes?: Buffer
  lines: number[]
}

const textOf = (edited: string[]) => edited.map((line) => `${line}\n`).join('')

/** Edits by their kind; each takes two random numbers from 0 to 1. */
const edits: Record<string, (one: number, other: number) => Edit> = {
  flip(one, other) {
    const bytes = Buffer.from(trail)
    const at = Math.floor(one * bytes.length)
    bytes[at]! ^= 1 << Math.floor(other * 8)
    const line = bytes.subarray(0, at).toString('latin1').split('\n').length
    const isLast = line === lines.length
    // where the last line is another one, its record is missing behind it
    return { text: bytes.toString(), bytes, lines: isLast ? [line, line + 1] : [line] }
  },
  drop(one) {
    const at = Math.floor(one * lines.length)
    return { text: textOf(lines.filter((_, index) => index !== at)), lines: [at + 1] }
  },
  swap(one, other) {
    const first = Math.floor(one * (lines.length - 1))
    const second = first + 1 + Math.floor(other * (lines.length - 1 - first))
    const edited = [...lines]
    ;[edited[first], edited[second]] = [lines[second]!, lines[first]!]
    return { text: textOf(edited), lines: [first + 1] }
  },
  'insert a copy'(one, other) {
    const at = Math.floor(one * (lines.length + 1))
    const copy = Math.floor(other * lines.length)
    const text = textOf(lines.toSpliced(at, 0, lines[copy]!))
    // a line before itself is where it belongs; the second one is not
    return { text, lines: [copy === at ? at + 2 : at + 1] }
  },
  'insert something'(one, other) {
    const at = Math.floor(one * (lines.length + 1))
    const text = textOf(lines.toSpliced(at, 0, `{"event":"command","n":${other}}`))
    return { text, lines: [at + 1] }
  },
  cut(one) {
    const at = Math.floor(one * trail.length)
    const text = trail.slice(0, at)
    return { text, lines: [text.split('\n').length] }
  },
}

const kinds = Object.keys(edits)
const moments = fc.sample(
  fc.tuple(
    fc.double({ min: 0, max: 0.9999, noNaN: true }),
    fc.double({ min: 0, max: 0.9999, noNaN: true }),
  ),
  { seed, numRuns: 1002 },
)

describe('the trail of ten runs', () => {
  test('is found as it was written', () => {
    const read = readTrail(Buffer.from(trail), [head])
    expect(read.tampered).toBeUndefined()
    expect(read.head).toBe(head)
  })

  test(`1002 random edits of it are all found, each in the line where it begins (SEED=${seed})`, () => {
    const missed = moments.flatMap(([one, other], index) => {
      const kind = kinds[index % kinds.length]!
      const edit = edits[kind]!(one, other)
      const found = readTrail(edit.bytes ?? Buffer.from(edit.text), [head]).tampered?.line
      return found !== undefined && edit.lines.includes(found)
        ? []
        : [`${kind} ${one} ${other}: line ${edit.lines}, found ${found}`]
    })
    expect(missed).toEqual([])
  })

  test('that is replaced as a whole, every hash right, is found by the head', () => {
    let prev = ''
    const forged = lines.map((line) => {
      const record = { ...JSON.parse(line), host: 'elsewhere', prev: sha256(prev) }
      return (prev = JSON.stringify(record))
    })
    expect(readTrail(Buffer.from(textOf(forged))).tampered).toBeUndefined()
    expect(readTrail(Buffer.from(textOf(forged)), [head]).tampered?.en).toContain(
      'all of it was replaced',
    )
  })
})

test('audit.mts verify ends with 0 on the trail, and with 65 naming the line on one that was changed', async () => {
  const good = await audit('verify', '--head', head)
  expect(good).toMatchObject({ exitCode: 0, stderr: '' })
  expect(good.stdout).toContain(`${lines.length} records, as they were written`)
  expect(good.stdout).toContain(`Head: ${head}`)
  try {
    writeFileSync(path, edits['flip']!(0.5, 0.1).text)
    const bad = await audit('verify', '--head', head)
    expect(bad.exitCode, bad.output).toBe(65)
    expect(bad.stderr).toMatch(
      new RegExp(`is not as it was written, line ${edits['flip']!(0.5, 0.1).lines[0]}: `),
    )
    writeFileSync(path, textOf(lines.slice(0, -1)))
    const cut = await audit('verify', '--head', head)
    expect(cut.exitCode, cut.output).toBe(65)
    expect(cut.stderr).toContain('the end was cut off')
    const unknown = await audit('verify')
    expect(unknown.exitCode, unknown.output).toBe(0)
    expect(unknown.stdout).toContain(
      'No head is known: nobody can tell whether its end was cut off',
    )
  } finally {
    writeFileSync(path, trail)
  }
})

test('audit.mts show prints each run: who, the ticket, how it ended; in Chinese, and as JSON', async () => {
  const shown = await audit('show')
  expect(shown.exitCode, shown.output).toBe(0)
  expect(shown.stdout.match(/^backup-values --module mspider/gm)).toHaveLength(10)
  expect(shown.stdout).toMatch(/FAILED \(exit 78\): the kubeconfig .* does not exist/)
  expect(shown.stdout).toContain('ticket CHG 7')
  const id = /backup-values --module mspider {3}(\S+)/.exec(shown.stdout)![1]!
  const one = await audit('show', '--run', id, '--lang', 'zh')
  expect(one.stdout).toMatch(/失败 \(exit 78\)[^]*变更单 CHG 0/)
  expect(one.stdout).not.toContain('CHG 1')
  const runs = JSON.parse((await audit('show', '--json')).stdout)
  expect(runs).toHaveLength(10)
  expect(runs[0]).toMatchObject({ run: id, start: { ticket: 'CHG 0' }, end: { exitCode: 78 } })
  const none = await audit('show', '--run', 'nothing')
  expect(none.exitCode, none.output).toBe(66)
})

test('a line that a full disk cut off stays as evidence: the next run goes on behind it, and the trail verifies', async () => {
  try {
    appendFileSync(path, lines[3]!.slice(0, 40))
    expect((await audit('verify')).exitCode).toBe(65) // nobody has gone on behind it yet
    expect((await refusedRun('CHG after')).exitCode).toBe(78)
    const whole = readFileSync(path, 'utf8')
    expect(whole).toContain(`\n${lines[3]!.slice(0, 40)}\n`)
    const verified = await audit('verify')
    expect(verified.exitCode, verified.output).toBe(0)
    // the evidence cannot be removed either
    writeFileSync(path, whole.replace(`${lines[3]!.slice(0, 40)}\n`, ''))
    expect((await audit('verify')).exitCode).toBe(65)
  } finally {
    writeFileSync(path, trail)
  }
})

test('the start of a run records the sha256 of every file that could have decided what it ran, wherever below lib it is', async () => {
  const copy = copyOfTheCollection()
  const added = ['lib/added.ts', 'lib/cluster/deeper/added', 'lib/bin/added', 'scripts/added.mts']
  for (const file of added) {
    mkdirSync(dirname(join(copy, file)), { recursive: true })
    writeFileSync(join(copy, file), `// ${file}\n`)
  }
  cpSync(site, join(copy, 'site.yaml'))
  const run = await runScript('backup-values', ['--module', 'mspider'], {
    cwd: copy,
    env: { PATH: `${tools}:${process.env['PATH']}` },
  })
  expect(run.exitCode, run.output).toBe(78)
  const [start] = readFileSync(join(copy, 'state/example/mspider/audit.jsonl'), 'utf8').split('\n')
  const { files } = JSON.parse(start!)
  for (const file of added) expect(files[file], file).toBe(sha256(`// ${file}\n`))
  for (const file of [
    'scripts/backup-values.mts',
    'modules/mspider.json',
    'modules/schemas/site.schema.json',
    'modules/manuals/mspider.en.yaml',
    'site.yaml',
  ])
    expect(files[file], file).toBe(sha256(readFileSync(join(copy, file), 'utf8')))
})

test('two runs at the same time do not disturb each other’s records', async () => {
  try {
    await Promise.all([refusedRun('one'), refusedRun('other'), refusedRun('third')])
    // runs that have nothing to do but to write records
    const writer =
      "import { append, openTrail } from './lib/audit/write.ts'; const trail = openTrail(process.argv[1], process.argv[2]); for (let i = 0; i < 150; i++) append(trail, { event: 'found', i })"
    const written = await Promise.all(
      ['one', 'other', 'third'].map((run) =>
        runProgram(process.execPath, ['--input-type=module', '-e', writer, path, run], {
          env: scriptEnv(),
        }),
      ),
    )
    for (const { exitCode, output } of written) expect(exitCode, output).toBe(0)
    const read = readTrail(readFileSync(path), [head])
    expect(read.tampered).toBeUndefined()
    expect(read.records).toHaveLength(lines.length + 6 + 3 * 150)
  } finally {
    writeFileSync(path, trail)
  }
})
