import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { EXIT_MEANINGS } from '../../lib/base/failure.ts'
import { copyOfTheCollection, ROOT, runProgram, scriptEnv } from '../support/run-script.ts'

const readme = readFileSync(join(ROOT, 'README.md'), 'utf8')
const fences = [...readme.matchAll(/```bash\n([^]*?)```/g)].map(([, text]) => text!)
const all = fences.flatMap((text) => text.split('\n').filter((line) => line.startsWith('npx zx ')))
// those that only read have no dry run
const readers = all.filter((line) => /scripts\/(trace|audit)\.mts/.test(line))
const examples = all.filter((line) => !readers.includes(line))

describe('the README’s examples', () => {
  test('there are some', () => expect(examples.length).toBeGreaterThan(4))

  test.each(examples)('%s', async (example) => {
    const copy = copyOfTheCollection()
    const dryRun = example.includes('--dry-run')
      ? example
      : example.replace(/ *(#.*)?$/, ' --dry-run')
    const setUp =
      'cp site.example.yaml site.yaml && cp scripts/upgrade.mts scripts/upgrade-acme.mts'
    const result = await runProgram('bash', ['-c', `${setUp} && ${dryRun}`], {
      cwd: copy,
      env: scriptEnv(),
    })
    expect(result.exitCode, result.output).toBe(0)
    expect(result.stdout).toMatch(
      /^(helm upgrade|charts-syncer sync) | ctr -n k8s\.io image import -$/m,
    )
  })

  test.each(readers)('%s', async (example) => {
    const copy = copyOfTheCollection()
    // the audit of a run that was refused: there is no kubeconfig; helm and kubectl are never run
    const setUp = `cp site.example.yaml site.yaml && sed -i 's#~/.kube/config#./none#' site.yaml && mkdir tools &&
      for tool in helm kubectl; do echo exit 99 > tools/$tool; chmod +x tools/$tool; done
      PATH=$PWD/tools:$PATH npx zx scripts/backup-values.mts --module mspider > /dev/null 2>&1
      head=$(tail -n 1 state/example/mspider/audit.jsonl | tr -d '\\n' | sha256sum | cut -c 1-64)`
    const line = example.replace('SHA256', '$head')
    const result = await runProgram('bash', ['-c', `${setUp}\n${line}`], {
      cwd: copy,
      env: scriptEnv(),
    })
    expect(result.exitCode, result.output).toBe(0)
  })

  test('its exit codes are those of the scripts', () => {
    for (const [code, meaning] of EXIT_MEANINGS)
      expect(readme.replaceAll(/ +\|/g, ' |')).toContain(`| ${code} | ${meaning} |`)
  })

  test('its npm scripts exist', () => {
    const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
    for (const [, name] of readme.matchAll(/npm run ([\w-]+)/g))
      expect(scripts).toHaveProperty(name!)
  })
})
