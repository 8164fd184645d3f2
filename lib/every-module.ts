import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import { fileURLToPath } from 'node:url'
import minimist from 'minimist'
import { bundleFiles } from './bundle.ts'
import { moduleNames, ROOT, readChecked } from './checked-files.ts'
import { EXIT, Failure } from './failure.ts'
import { usage } from './flags.ts'
import { type Module } from './inputs.ts'

/**
 * Runs a script once for every module that has a bundle in the directory `--bundle`, one after the
 * other, with the same other flags, and ends this process: with 0 where all did, else with the exit
 * code of the first that did not. One module's failure does not stop the others; a signal does.
 * @param scriptUrl `import.meta.url` of the script
 * @throws Failure 64 without a directory · 66 where it has no bundle of any module
 */
export async function everyModule(scriptUrl: string): Promise<never> {
  const path = fileURLToPath(scriptUrl)
  const words = process.argv.slice(process.argv.indexOf('--all') + 1)
  const before = process.argv
    .slice(2, process.argv.indexOf('--all'))
    .filter((w) => !/\.mts$/.test(w))
  const flags = [...before, ...words]
  const { bundle, module } = minimist(flags, { string: ['bundle', 'module'] })
  if (!bundle || module !== undefined) {
    throw usage(
      'sync-images',
      '--all needs --bundle DIRECTORY, and no --module',
      '--all 需要 --bundle 目录，且不能与 --module 同时使用',
    )
  }
  const withBundle = moduleNames().filter((name) => {
    const { releases, bundle: file } = readChecked<Module>(`${ROOT}/modules/${name}.json`, 'module')
    const names = [
      ...releases.map(({ chart }) => chart),
      name,
      file.file.replace(/\.bundle\.tar$/, ''),
    ]
    try {
      return bundleFiles(bundle, names).length > 0
    } catch {
      return false
    }
  })
  if (withBundle.length === 0) {
    throw new Failure(
      EXIT.missingInput,
      `no bundle of ${moduleNames().join(', ')} in ${bundle}`,
      `${bundle} 中没有 ${moduleNames().join('、')} 的离线包`,
    )
  }
  const failed: string[] = []
  let firstCode = 0
  let ended: NodeJS.Signals | undefined
  let child: ReturnType<typeof spawn> | undefined
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      ended = signal
      child?.kill(signal)
    })
  }
  for (const name of withBundle) {
    if (ended) break
    const [zx, ...rest] = [process.argv[1]!, path, '--module', name, ...flags]
    const code = await new Promise<number>((resolve, reject) => {
      child = spawn(process.execPath, [...process.execArgv, zx, ...rest], {
        stdio: ['ignore', 'inherit', 'inherit'],
      })
      child.on('error', reject)
      child.on('close', (exitCode, signal) => resolve(exitCode ?? 128 + constants.signals[signal!]))
    })
    if (code !== 0) failed.push(`${name} (exit ${code})`)
    firstCode ||= code
  }
  if (failed.length > 0) {
    process.stderr.write(
      `\n${failed.length} of ${withBundle.length} modules failed · ${withBundle.length} 个模块中有 ${failed.length} 个失败: ${failed.join(', ')}\n`,
    )
  }
  process.exit(ended ? 128 + constants.signals[ended] : firstCode)
}
