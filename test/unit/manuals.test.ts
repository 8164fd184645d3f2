import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv } from 'ajv'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { readModule } from '../../lib/inputs/module.ts'
import { sectionsOf } from '../../lib/manual/dry-runs.ts'
import { heading, ledger, matches, stepsFor, type Way } from '../../lib/manual/ledger.ts'
import { all, names } from '../dry-run/gate-inputs.ts'
import { ROOT } from '../support/run-script.ts'

const manuals = process.env['MANUALS'] ?? join(ROOT, '../shared/manuals')
const plain = (text: string) => text.replace(/[`_.。]/g, '').trim()

test.each(['module', 'site', 'manual', 'reasons'])('the schema of a %s is one', (kind) => {
  const path = join(ROOT, `modules/schemas/${kind}.schema.json`)
  const schema = JSON.parse(readFileSync(path, 'utf8'))
  // the scripts leave this out, since it takes a while
  expect(() => new Ajv({ strict: false }).compile(schema)).not.toThrow()
})

describe.each(names)('the ledger %s', (name) => {
  const { manual, steps } = ledger(name)

  test('belongs to a module', () => {
    const modules = readdirSync(join(ROOT, 'modules')).filter((file) => file.endsWith('.json'))
    const named = modules.flatMap(
      (file) => JSON.parse(readFileSync(join(ROOT, 'modules', file), 'utf8')).manuals,
    )
    expect(named).toContain(name)
  })

  // MANUALS names the directory with the vendor's manuals
  test.runIf(existsSync(join(manuals, manual!)))(
    'names headings and lines as the manual has them',
    () => {
      const lines = readFileSync(join(manuals, manual!), 'utf8').split('\n')
      const language = manual!.endsWith('.zh.md') ? 'zh' : 'en'
      for (const step of steps) {
        const [first, last = first] = step.lines!.split('-').map(Number)
        if (step.prose) {
          expect(lines.slice(first! - 1, last).join('\n'), `${manual}:${step.lines}`).toMatch(
            /\btag\b/,
          )
          continue
        }
        expect(plain(lines[first! - 1]!), `${manual}:${first}`).toContain(plain(step[language]))
        expect(lines[last! - 1], `${manual}:${last} ends a fence or its remark`).toMatch(
          /```|^\s+\d\. |helm update repo/,
        )
      }
    },
  )
})

describe('the reasons', () => {
  const reasons: Record<string, { kind: string; en: string; zh: string }> = parse(
    readFileSync(join(ROOT, 'modules/manuals/reasons.yaml'), 'utf8'),
  )
  const used = [...names, 'none'].flatMap((name) => {
    const { rows = [], commands = [] } = ledger(name)
    return [...rows, ...commands].flatMap(({ differs = [] }) => differs)
  })

  test('are each used, and written once', () => {
    const inUse = new Set(used.map(({ name }) => name))
    expect(Object.keys(reasons).filter((name) => !inUse.has(name))).toEqual([])
    for (const lang of ['en', 'zh'] as const) {
      const texts = Object.values(reasons).map((each) => each[lang])
      expect(new Set(texts).size).toBe(texts.length)
    }
  })

  test('all ledgers together are at most 1,700 lines', () => {
    const files = [...names, 'none', 'reasons'].map((name) => `modules/manuals/${name}.yaml`)
    const lines = files.map((file) => readFileSync(join(ROOT, file), 'utf8').split('\n').length - 1)
    expect(lines.reduce((sum, count) => sum + count)).toBeLessThanOrEqual(1700)
  })
})

describe('a pattern', () => {
  test.each([
    [
      'helm repo add',
      'printf %s "$X" |\n  helm repo add kairship http://h/x \\\n    --force',
      true,
    ],
    ['helm upgrade kairship', 'helm upgrade \\\n  kairship .', true],
    ['helm upgrade kairship', 'helm upgrade kairship-agent .', false],
    ['helm upgrade kairship', 'helm upgrade --install kairship .', false],
    ['rm -rf charts', 'rm -rf charts/kairship && mkdir -p x', true],
    ['rm -rf charts', 'rm -rf charts-syncer', false],
    ['export version', "export version='0.1'", true],
    ['export version', "export versions='0.1'", false],
    ['docker load', 'nodocker load', false],
    ['cat > load-image.yaml', "cat > load-image.yaml << 'EOF'\nx\nEOF", true],
    ['if [ -e', 'if [ -e bak.yaml ]; then true; fi', true],
  ])('%s in %j: %s', (pattern, command, isIn) => expect(matches(pattern, command)).toBe(isIn))
})

test('a dry run is taken apart into its commands, whatever is in a heredoc', () => {
  const commands = [
    'helm get values x -o yaml \\\n  --revision $revision > new',
    "cat > f << 'EOF'\n# a remark in it (none.md:1-2)\n\nif (\nEOF",
    'mv f g',
    '(cat a\nwhile read -r b; do\n  dd if=$b\ndone < c\nhead -c 1024 /dev/zero) |\n  ssh n docker load',
    'if [ -e a ]; then\n  mv a b\nfi',
    'printf %s "$A" |\n  helm repo add x',
    "echo 'it is (open'",
  ]
  const text = `#!/bin/bash\nset -e\n\n# Title (of it) · 标题 (a.md:1-2, b.md:3)\n# a remark\n${commands.join('\n')}\n\n# Next · 下 (not in the manual · 手册中没有)\ntrue\n`
  expect(sectionsOf(text)).toEqual([
    { title: 'Title (of it) · 标题', places: ['a.md:1-2', 'b.md:3'], commands },
    { title: 'Next · 下', places: ['not in the manual · 手册中没有'], commands: ['true'] },
  ])
})

describe('the steps under which a command is run', () => {
  const way = (via: Way['via'], kind: Way['kind'] = 'HARBOR'): Way => ({ via, kind })
  const module = (name: string) => readModule(name).module

  test.each([
    ['skoala', way('repo'), 'helm repo add skoala-release http://h', ['repo-add']],
    ['skoala', way('repo', 'OCI'), 'helm show chart oci://h/x', ['search-repo']],
    ['mspider', way('repo'), 'helm upgrade --install -n x mspider y', ['install']],
    ['mspider', way('repo'), 'helm upgrade mspider y', ['upgrade']],
    ['mspider', way('package'), 'helm upgrade mspider y', ['upgrade']],
    ['kairship', way('repo'), 'helm pull kairship/kairship && tar -zxf x', ['update-crds']],
    ['kairship', way('package'), 'helm pull kairship/kairship', []],
    ['spidernet', way('repo'), 'ssh n flock -n docker load', ['load-images']],
    ['spidernet', way('repo', 'LOCAL'), '(cd x && charts-syncer sync)', ['sync-images']],
    // under no step, and unknown
    ['spidernet', way('repo'), "cat > ssh_config.$$ << 'EOF'\nEOF", []],
    ['spidernet', way('repo'), 'kubectl delete job x', []],
  ] as const)('%s, %j, %s: %j', (name, way, command, steps) => {
    expect(stepsFor(module(name), way, command)).toEqual(steps)
  })

  test('of a module without a manual', () => {
    const other = { ...module('kairship'), manuals: [] }
    expect(stepsFor(other, way('repo'), 'helm upgrade kairship y')).toEqual(['upgrade'])
    expect(stepsFor(other, way('repo'), 'helm repo update kairship')).toEqual(['repo-update'])
  })

  test('are those of each dry run, found in less than 5 ms', () => {
    const found = all.dryRuns.flatMap((dryRun) =>
      dryRun.sections.flatMap(({ commands, places, title }) => {
        const { manuals } = dryRun.module
        const own = manuals.flatMap((name) =>
          ledger(name).steps.filter(({ lines }) =>
            places.includes(`${ledger(name).manual}:${lines}`),
          ),
        )
        const none = ledger('none').steps.filter(({ en, zh }) => title === `${en} · ${zh}`)
        const steps = (own.length > 0 ? own : none).map(({ step }) => step)
        if (steps.length === 0) return []
        return commands.flatMap((text) => {
          const start = performance.now()
          const given = stepsFor(dryRun.module as Parameters<typeof stepsFor>[0], dryRun, text)
          const took = performance.now() - start
          // variables are set before their step too, and not by run
          const isRight = text.startsWith('export ') || given.some((step) => steps.includes(step))
          return [{ took, wrong: isRight ? undefined : `${dryRun.name}: ${given}: ${text}` }]
        })
      }),
    )
    expect(found.flatMap(({ wrong }) => wrong ?? [])).toEqual([])
    const times = found.map(({ took }) => took).sort((one, other) => one - other)
    expect(times[Math.floor(times.length / 2)]).toBeLessThan(5)
  })
})

describe('a heading', () => {
  const { module } = readModule('spidernet')
  const reasonsFor = (kind: Way['kind']) =>
    heading(module, { via: 'repo', kind }, 'load-image-yaml').differs.map(({ where }) => where)

  test('is in English and Chinese, with its lines', () => {
    const { en, zh, lines } = heading(module, { via: 'repo', kind: 'HARBOR' }, 'sync-images')
    expect({ en, zh, lines }).toEqual({
      en: 'Run the image synchronization command',
      zh: ledger('spidernet.en').steps.find(({ step }) => step === 'sync-images')!.zh,
      lines: 'spidernet.en.md:81-85',
    })
  })

  test('has the reasons of the tab that is carried out, and of no other', () => {
    expect(reasonsFor('HARBOR').join()).toContain('spidernet.en.md:29')
    expect(reasonsFor('OCI')).toEqual(reasonsFor('HARBOR'))
    expect(reasonsFor('HARBOR').join()).not.toMatch(/:(6\d|7\d)/)
    expect(reasonsFor('LOCAL').join()).toContain('spidernet.en.md:67')
    expect(reasonsFor('LOCAL').join()).not.toMatch(/:(2[89]|3\d|4\d|5\d)/)
  })
})

test('each step of a script has its heading beside it', () => {
  const headings = Object.fromEntries(ledger('none').steps.map(({ step, en }) => [step, en]))
  const lines = readdirSync(join(ROOT, 'scripts')).flatMap((file) => {
    const text = readFileSync(join(ROOT, 'scripts', file), 'utf8')
    return text.split('\n').map((line) => ({ file, line }))
  })
  const steps = lines.flatMap(({ file, line }) => {
    const [, step, said] = /\bstep\((?!\))([^)]*)\)(.*)/.exec(line) ?? []
    return step === undefined ? [] : [{ file, step, said }]
  })
  expect(steps.length).toBeGreaterThan(10)
  for (const { file, step, said } of steps)
    expect(`${file}: ${step}${said}`).toBe(
      `${file}: ${step} // ${headings[step!.replaceAll("'", '')]}`,
    )
})
