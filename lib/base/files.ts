import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { cannotWrite } from './failure.ts'

/**
 * Writes a file so that it is either the old one or the new one, never half of it: aside, then renamed.
 * @throws Failure 73
 */
export function writeWhole(path: string, text: string | Buffer) {
  try {
    mkdirSync(dirname(path), { recursive: true })
    // two scripts of a module may write the same file at the same moment
    const aside = `${path}.${process.pid}.new`
    writeFileSync(aside, text, { flush: true })
    renameSync(aside, path)
  } catch (error) {
    const reason = (error as Error).message
    throw cannotWrite`
      ${path} cannot be written: ${reason}
      无法写入 ${path}：${reason}`
  }
}
