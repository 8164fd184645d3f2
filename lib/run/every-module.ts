import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import { fileURLToPath } from 'node:url'
import { inspect } from 'node:util'
import { EXIT, Failure } from '../base/failure.ts'
import { isOrphanOfNpx, onVanishedParent } from '../base/processes.ts'
import { session } from './session.ts'

/**
 * Runs a script once for every module that has work, one after the other, with the same other flags,
 * and ends this process: with 0 where all did, else with the exit code of the first that did not. One
 * module's failure does not stop the others; a signal does, and a parent that vanished (TERM to npx
 * ends npx alone).
 * @param scriptUrl `import.meta.url` of the script
 * @param modulesWithWork gets the words of the command line without --all, and gives the modules' names
 */
export async function everyModule(
  scriptUrl: string,
  modulesWithWork: (words: string[]) => string[],
): Promise<never> {
  // without an await before it, the script has gone on meanwhile, and was refused
  await new Promise((resolve) => setImmediate(resolve))
  if (session.failure) return process.exit(session.failure.exitCode)
  try {
    return process.exit(await runAll(fileURLToPath(scriptUrl), modulesWithWork))
  } catch (error) {
    process.stderr.write(`${inspect(error)}\n`)
    return process.exit(error instanceof Failure ? error.exitCode : EXIT.bug)
  }
}

async function runAll(
  script: string,
  modulesWithWork: (words: string[]) => string[],
): Promise<number> {
  const words = process.argv.slice(2).filter((word) => word !== '--all' && !/\.mts$/.test(word))
  if (words.includes('--help') || words.includes('-h')) return (await run(script, ['--help'])).code
  const names = modulesWithWork(words)
  const failed: string[] = []
  let firstCode = 0
  for (const name of names) {
    const { code, signal } = await run(script, ['--module', name, ...words])
    if (code !== 0) failed.push(`${name} (exit ${code})`)
    firstCode ||= code
    if (!signal) continue
    firstCode = 128 + constants.signals[signal]
    break
  }
  if (failed.length > 0) {
    process.stderr.write(
      `\n${failed.length} of ${names.length} modules failed · ${names.length} 个模块中有 ${failed.length} 个失败: ${failed.join(', ')}\n`,
    )
  }
  return firstCode
}

/**
 * Runs the script for one module; what would end this process reaches it.
 * @returns its exit code, and the signal that this process got meanwhile
 */
function run(script: string, words: string[]): Promise<{ code: number; signal?: NodeJS.Signals }> {
  return new Promise((resolve, reject) => {
    let ended: NodeJS.Signals | undefined
    const command = [...process.execArgv, process.argv[1]!, script, ...words]
    const child = spawn(process.execPath, command, { stdio: ['ignore', 'inherit', 'inherit'] })
    const end = (signal: NodeJS.Signals) => {
      ended ??= signal
      child.kill(signal)
    }
    const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
    signals.forEach((signal) => process.on(signal, end))
    if (isOrphanOfNpx()) end('SIGHUP')
    const watch = onVanishedParent(() => end('SIGHUP'))
    child.on('error', reject)
    child.on('close', (exitCode, signal) => {
      clearInterval(watch)
      signals.forEach((each) => process.off(each, end))
      resolve({ code: exitCode ?? 128 + constants.signals[signal!], signal: ended })
    })
  })
}
