import { spawn } from 'node:child_process'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { inspect } from 'node:util'
import minimist from 'minimist'
import { bundleFiles } from '../bundle/structure.ts'
import { moduleNames, readChecked, ROOT } from '../inputs/checked-files.ts'
import { EXIT, Failure } from '../base/failure.ts'
import { usage } from '../inputs/flags.ts'
import { bundleNames, type Module } from '../inputs/inputs.ts'
import { isOrphanOfNpx, onVanishedParent } from '../base/processes.ts'

/**
 * Runs a script once for every module that has a bundle in the directory `--bundle`, one after the
 * other, with the same other flags, and ends this process: with 0 where all did, else with the exit
 * code of the first that did not. One module's failure does not stop the others; a signal does, and a
 * parent that vanished (TERM to npx ends npx alone). A .tar that no module claims is named on stderr.
 * @param scriptUrl `import.meta.url` of the script
 */
export async function everyModule(scriptUrl: string): Promise<never> {
  try {
    return process.exit(await runAll(fileURLToPath(scriptUrl)))
  } catch (error) {
    process.stderr.write(`${inspect(error)}\n`)
    return process.exit(error instanceof Failure ? error.exitCode : EXIT.defect)
  }
}

/** @throws Failure 64 without a directory · 66 where it has no bundle of any module */
async function runAll(script: string): Promise<number> {
  const words = process.argv.slice(2).filter((word) => word !== '--all' && !/\.mts$/.test(word))
  if (words.includes('--help') || words.includes('-h')) return run(script, ['--help'])
  const { bundle, module } = minimist(words, { string: ['bundle', 'module'] })
  if (typeof bundle !== 'string' || bundle === '' || module !== undefined) {
    throw usage(
      'sync-images',
      '--all needs --bundle DIRECTORY, once, and no --module',
      '--all 需要一个 --bundle 目录，且不能与 --module 同时使用',
    )
  }
  if (!existsSync(bundle) || !statSync(bundle).isDirectory()) {
    throw new Failure(
      EXIT.missingInput,
      `there is no directory ${bundle}: is it mounted?`,
      `目录 ${bundle} 不存在：是否已挂载？`,
    )
  }
  const claimed = new Set<string>()
  const withBundle = moduleNames().filter((name) => {
    const descriptor = readChecked<Module>(join(ROOT, 'modules', `${name}.json`), 'module')
    const files = bundleFiles(bundle, bundleNames(descriptor), { mayBeMissing: true })
    files.forEach((file) => claimed.add(file))
    return files.length > 0
  })
  const others = readdirSync(bundle).filter(
    (name) => name.endsWith('.tar') && !claimed.has(join(bundle, name)),
  )
  if (others.length > 0) {
    process.stderr.write(
      `not taken, since no module is called like it · 未处理（没有对应的模块）: ${others.join(', ')}\n`,
    )
  }
  if (withBundle.length === 0) {
    throw new Failure(
      EXIT.missingInput,
      `no bundle of ${moduleNames().join(', ')} in ${bundle}`,
      `${bundle} 中没有 ${moduleNames().join('、')} 的离线包`,
    )
  }
  const failed: string[] = []
  let firstCode = 0
  for (const name of withBundle) {
    const code = await run(script, ['--module', name, ...words])
    if (code !== 0) failed.push(`${name} (exit ${code})`)
    firstCode ||= code
    if (ended) break
  }
  if (failed.length > 0) {
    process.stderr.write(
      `\n${failed.length} of ${withBundle.length} modules failed · ${withBundle.length} 个模块中有 ${failed.length} 个失败: ${failed.join(', ')}\n`,
    )
  }
  return ended ? 128 + constants.signals[ended] : firstCode
}

let ended: NodeJS.Signals | undefined

/** Runs the script for one module; what would end this process reaches it. */
function run(script: string, words: string[]): Promise<number> {
  return new Promise((resolve, reject) => {
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
      resolve(exitCode ?? 128 + constants.signals[signal!])
    })
  })
}
