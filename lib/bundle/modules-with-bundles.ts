import { statSync } from 'node:fs'
import { join } from 'node:path'
import minimist from 'minimist'
import { missing, wrongUsage } from '../base/failure.ts'
import { ROOT } from '../base/root.ts'
import { moduleNames, readChecked } from '../inputs/checked-files.ts'
import { bundleNames } from '../inputs/module.ts'
import { type Module } from '../inputs/types.ts'
import { isCalled, tarsIn } from './files.ts'

/** Whether or not the mount that it is on still answers. */
function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory()
  } catch {
    return false
  }
}

/** What is wrong in it beyond its schema is told when its module's turn comes: the others go on. */
const descriptor = (name: string) =>
  readChecked<Module>(join(ROOT, 'modules', `${name}.json`), 'module')

/** Was the script started for every module that has a bundle? */
export const isForAll = () => process.argv.includes('--all')

/**
 * For `everyModule`: the modules that have a bundle in the directory `--bundle`. A .tar that belongs to
 * none is named on stderr.
 * @param words the command line without --all
 * @throws Failure 64 without a directory · 66 where it has no bundle of any module
 */
export function modulesWithBundles(words: string[]): string[] {
  const { bundle, module } = minimist(words, { string: ['bundle', 'module'] })
  if (typeof bundle !== 'string' || bundle === '' || module !== undefined) {
    throw wrongUsage`
      --all needs --bundle DIRECTORY, once, and cannot be combined with --module
      --all 需要一个 --bundle 目录，且不能与 --module 同时使用`
  }
  if (!isDirectory(bundle)) {
    throw missing`
      the directory ${bundle} does not exist: is it mounted?
      目录 ${bundle} 不存在：是否已挂载？`
  }
  const files = tarsIn(bundle)
  const known = moduleNames().map((name) => ({ name, names: bundleNames(descriptor(name)) }))
  const others = files.filter((file) => !known.some(({ names }) => isCalled(file, names)))
  if (others.length > 0) {
    process.stderr.write(
      `not taken: the name of no module · 未处理（没有对应的模块）: ${others.join(', ')}\n`,
    )
  }
  if (others.length === files.length) {
    throw missing`
      ${bundle} has no bundle of ${moduleNames().join(', ')}
      ${bundle} 中没有 ${moduleNames().join('、')} 的离线包`
  }
  return known
    .filter(({ names }) => files.some((file) => isCalled(file, names)))
    .map(({ name }) => name)
}
