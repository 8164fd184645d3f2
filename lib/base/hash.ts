import { createHash } from 'node:crypto'

/** The sha256 of some bytes, or of a text in UTF-8, as 64 hexadecimal digits. */
export function sha256(data: string | Buffer): string {
  return createHash('sha256').update(data).digest('hex')
}

/** The lines of some bytes; a line break at their end ends the last one. */
export function linesOf(bytes: Buffer): Buffer[] {
  const lines: Buffer[] = []
  for (let from = 0; from < bytes.length;) {
    const end = bytes.indexOf(10, from)
    lines.push(bytes.subarray(from, end < 0 ? undefined : end))
    from = end < 0 ? bytes.length : end + 1
  }
  return lines
}
