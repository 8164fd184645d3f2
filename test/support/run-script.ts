import { spawn } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'

export const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))))

export interface Result {
  /** null after a signal */
  exitCode: number | null
  stdout: string
  stderr: string
  /** both, for a failing test's message */
  output: string
}

interface Options {
  cwd?: string
  env?: NodeJS.ProcessEnv
}

/** Runs a program to its end, without a terminal and without standard input. */
export function runProgram(
  program: string,
  args: string[],
  options: Options = {},
): Promise<Result> {
  const { cwd = ROOT, env = process.env } = options
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] })
    const result: Result = { exitCode: null, stdout: '', stderr: '', output: '' }
    child.stdout.on('data', (data) => ((result.stdout += data), (result.output += data)))
    child.stderr.on('data', (data) => ((result.stderr += data), (result.output += data)))
    child.on('error', reject)
    child.on('close', (exitCode) => resolve({ ...result, exitCode }))
  })
}

/** The environment that npx gives a script, the project's own Node first, less the variables of the tests. */
export function scriptEnv(env: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const { NODE_OPTIONS: _, VITEST: __, NODE_ENV: ___, ...rest } = process.env
  const all = { ...rest, ...env }
  return { ...all, PATH: `${join(ROOT, 'node_modules/.bin')}:${all.PATH}` }
}

/** Runs `zx scripts/NAME.mts ARGUMENTS` as npx would, in a checkout or a copy of it. */
export function runScript(name: string, args: string[], options: Options = {}): Promise<Result> {
  const zx = join(ROOT, 'node_modules/.bin/zx')
  return runProgram(zx, [`scripts/${name}.mts`, ...args], {
    ...options,
    env: scriptEnv(options.env),
  })
}

/** A directory that is gone after the test. */
export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'dce-upgrade-test-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** A copy of the collection, as an engineer takes it along: scripts, lib, modules, node_modules. */
export function copyOfTheCollection(): string {
  const directory = join(temporaryDirectory(), 'copy')
  mkdirSync(directory)
  for (const part of ['scripts', 'lib', 'modules', 'package.json', '.npmrc', 'site.example.yaml']) {
    cpSync(join(ROOT, part), join(directory, part), { recursive: true })
  }
  symlinkSync(join(ROOT, 'node_modules'), join(directory, 'node_modules'))
  return directory
}
