import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, dirname, join, relative } from 'node:path'
import { missing } from '../base/failure.ts'
import { type Region, unfit } from './tar.ts'

/** The sha512 that was delivered with a file. */
export interface Checksum {
  /** the file's name, and where it is in the file that was given */
  of: string
  region: Region
  sha512: string
  /** the file that the sha512 is from */
  from: string
}

/** A path as whoever typed it sees it: below the present directory, else absolute. */
export function asTyped(path: string): string {
  const near = relative('', path)
  return near.startsWith('..') ? path : `./${near}`
}

/** Archives in a directory. */
export const tarsIn = (directory: string) =>
  readdirSync(directory).filter((name) => name.endsWith('.tar'))

/** Is a file called after a module's bundles (bundleNames)? */
export const isCalled = (file: string, names: string[]) =>
  names.some((name) => new RegExp(`^${name}[-_.]`).test(file))

/**
 * The bundle files of a module: the file that is named, or those of a directory, by their names.
 * @param path a file, or a directory
 * @param names what the module's bundles may be called (bundleNames)
 * @throws Failure 66 where there is none
 */
export function bundleFiles(path: string, names: string[]): string[] {
  const where = asTyped(path)
  if (!existsSync(path)) {
    throw missing(`${where} does not exist`, `${where} 不存在`).next`
      --bundle names a bundle, the download around it, or a directory of them
      --bundle 应指向离线包、其外层下载文件，或存放离线包的目录`
  }
  if (!statSync(path).isDirectory()) return [path]
  const all = tarsIn(path)
  const ours = all.filter((name) => isCalled(name, names))
  if (ours.length === 0) {
    throw missing`
      ${where} has no bundle of ${names.join(', ')}; it has ${all.join(', ') || 'no .tar at all'}
      ${where} 中没有 ${names.join('、')} 的离线包（现有：${all.join('、') || '无'}）`
  }
  return ours.sort().map((name) => join(path, name))
}

/**
 * The sha512 file that was downloaded with a file: beside it, with sha512 in its name.
 * @throws Failure 65 where one is called after the file, and has no sha512 of it
 */
export function checksumBeside(file: string, region: Region): Checksum | undefined {
  const name = basename(file)
  for (const from of readdirSync(dirname(file)).filter((each) => /sha512/i.test(each))) {
    const path = join(dirname(file), from)
    const found = statSync(path, { throwIfNoEntry: false })
    if (!found?.isFile() || found.size > 65536) continue
    const isOfThis = from.startsWith(name) || from.startsWith(name.replace(/\.tar$/, ''))
    const sha512 = sha512In(readFileSync(path, 'utf8'), name, isOfThis)
    if (sha512) return { of: name, region, sha512, from }
    if (from.startsWith(name))
      throw unfit`
        ${from} is named after ${name}, but does not contain its sha512
        ${from} 以 ${name} 命名，但其中没有它的 sha512`
  }
  return undefined
}

/** The sha512 of a file in `sha512sum`'s format; or the only one, in a file that is called after it. */
export function sha512In(listed: string, name: string, isOfThis = false): string | undefined {
  const lines = listed
    .split('\n')
    .map((line) => /^([0-9a-fA-F]{128})(?:[ \t]+\*?(.+?))?\s*$/.exec(line))
    .filter((line) => line !== null)
  const found = lines.find(([, , of]) => of !== undefined && basename(of) === name)
  return (found ?? (isOfThis && lines.length === 1 ? lines[0] : undefined))?.[1]!.toLowerCase()
}
