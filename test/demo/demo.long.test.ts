import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { cpSync, existsSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { loadLab } from '../lab/lab.ts'
import { copyOfTheCollection, ROOT, runProgram, type Result } from '../support/run-script.ts'

const { NODE_OPTIONS: _, ...env } = process.env

/** Ends `npm run demo` with a signal to all of it, as Ctrl-C or a lost terminal does. */
async function endedDemo(copy: string, id: string, seconds: number, signal: NodeJS.Signals) {
  const options = { cwd: copy, env, stdio: 'ignore', detached: true } as const
  const demo = spawn('npm', ['run', 'demo', id], options)
  const over = new Promise((done) => demo.once('close', done))
  await Promise.race([new Promise((done) => setTimeout(done, seconds * 1000)), over])
  try {
    process.kill(-demo.pid!, signal)
  } catch {
    // it was quicker
  }
  await over
}

/** What a demo that went well has shown. */
function hasShown({ stdout }: Result, command: string) {
  expect(stdout).toContain(`$ ${command}\n`)
  expect(stdout).toMatch(/DONE · 完成 {2}upgrade --module mspider/)
  expect(stdout).toMatch(
    /revision\n {4}- 1\n {4}\+ 2\n {2}chart\n {4}- mspider-0\.20\.0\n {4}\+ mspider-0\.20\.1\n/,
  )
  expect(stdout).toMatch(/- \S+mspider-agent:v0\.20\.0\n {4}\+ \S+mspider-agent:v0\.20\.1/)
  expect(stdout).toMatch(/\+ {3}imageRegistry: 127\.0\.0\.1:\d+\n {6}replicaCount: 2/)
}

test('npm run demo upgrades mspider with the literal command, after it was killed in the middle, and a second time', async () => {
  const copy = copyOfTheCollection()
  cpSync(join(ROOT, 'test/lab'), join(copy, 'test/lab'), { recursive: true })
  const id = `d${randomBytes(3).toString('hex')}`
  const npm = (...args: string[]) => runProgram('npm', ['run', ...args, id], { cwd: copy, env })
  onTestFinished(async () => void (await npm('lab', 'down')))

  for (const [seconds, signal] of [
    [2, 'SIGINT'],
    [4, 'SIGKILL'],
    [9, 'SIGTERM'],
    [12, 'SIGKILL'],
  ] as const) {
    await endedDemo(copy, id, seconds, signal)
  }
  const first = await npm('demo')
  expect(first.exitCode, first.output).toBe(0)
  hasShown(first, 'npx zx scripts/upgrade.mts --module mspider')
  expect(readdirSync(join(copy, 'state'))).toHaveLength(1)

  // the line that it prints, as it stands
  const { directory } = loadLab(id)!
  const look = `. ${directory}/env\nkubectl get pods -A\n  npx zx scripts/upgrade.mts --module mspider --dry-run\n  npx zx scripts/backup-values.mts --module mspider\n`
  expect(first.stdout).toContain(
    `  . ${directory}/env\n  kubectl get pods -A\n  npx zx scripts/upgrade.mts --module mspider --dry-run\n  npx zx scripts/backup-values.mts --module mspider\n`,
  )
  const again = await runProgram('bash', ['-c', `set -e\n${look}`], { cwd: copy, env })
  expect(again.exitCode, again.output).toBe(0)
  expect(again.stdout).toMatch(/DONE · 完成 {2}backup-values/)

  // somebody's own site file is not touched
  cpSync(join(copy, 'site.example.yaml'), join(copy, 'site.yaml'))
  const mine = readFileSync(join(copy, 'site.yaml'), 'utf8')
  const second = await npm('demo')
  expect(second.exitCode, second.output).toBe(0)
  expect(second.stdout).toContain('It runs already')
  hasShown(second, `npx zx scripts/upgrade.mts --module mspider --site ${directory}/site.yaml`)
  expect(readFileSync(join(copy, 'site.yaml'), 'utf8')).toBe(mine)

  rmSync(join(copy, 'site.yaml'))
  const third = await npm('demo')
  expect(third.exitCode, third.output).toBe(0)
  hasShown(third, 'npx zx scripts/upgrade.mts --module mspider')

  const down = await npm('lab', 'down')
  expect(down.stdout).toContain(`lab ${id} is stopped`)
  expect(readdirSync(join(directory, '..'))).not.toContain(id)
  expect(existsSync(join(copy, 'site.yaml'))).toBe(false)
})
