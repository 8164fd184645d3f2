import { execFileSync } from 'node:child_process'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { command, lines, option, quote } from '../../lib/base/shell.ts'

const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31)

/** What a shell makes of a command: its words. */
const words = (shell: string, text: string) =>
  execFileSync(shell, ['-c', `for word in ${text}; do printf '%s\\0' "$word"; done`])
    .toString()
    .split('\0')
    .slice(0, -1)

test('whatever stands in ${} reaches the program as one word, in bash and in sh', () => {
  const special = fc.constantFrom(...' \t\n\'"$`\\!*?[]{}~#&|;<>()=%^-,ab中')
  const text = fc
    .oneof(
      fc.string({ unit: special, minLength: 1, maxLength: 3 }),
      fc.string({ unit: 'binary', minLength: 1 }),
    )
    .filter((each) => !each.includes('\0'))
  fc.assert(
    fc.property(fc.array(text, { minLength: 1, maxLength: 20 }), (values) => {
      const line = values.map(quote).join(' ')
      expect(words('bash', line)).toEqual(values)
      expect(words('sh', line)).toEqual(values)
    }),
    { seed, numRuns: 120 },
  )
})

test('a command keeps the line breaks, backslashes, pipes and $names that stand in the script', () => {
  const file = "it's; rm -rf $HOME"
  const { text } = command`
helm get values ${'mspider'} \
  --revision $revision | sed 's/a\.b/\t/' > ${file}`
  expect(text).toBe(
    "helm get values mspider \\\n  --revision $revision | sed 's/a\\.b/\\t/' > 'it'\\''s; rm -rf $HOME'",
  )
})

test('lines of shell text stand one below the other; none leaves no line and no backslash', () => {
  const sets = lines('--set a=$imageRegistry', '--set b=$imageRegistry')
  const none = option('--timeout', undefined)
  expect(
    command`
helm upgrade x \
  ${sets} \
  ${none} \
  --version $version`.text,
  ).toBe(
    'helm upgrade x \\\n  --set a=$imageRegistry \\\n  --set b=$imageRegistry \\\n  --version $version',
  )
  expect(
    command`
helm upgrade x \
  ${option('--timeout', '15m')} \
  ${none}`.text,
  ).toBe('helm upgrade x \\\n  --timeout 15m')
  expect(command`helm show chart x ${none}`.text).toBe('helm show chart x')
})
