import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import { basename } from 'node:path'
import { report } from '../run/session.ts'
import { digestInName, layersOf } from './images.ts'
import { type Bundle } from './structure.ts'
import { type Region, unfit } from './tar.ts'

declare module './structure.ts' {
  interface Bundle {
    /** the bundle being read ahead: the bytes that were read */
    reading?: Promise<number>
  }
}

const GIGABYTE = 1e9

/** For people: 412 MB. */
export const megabytes = (bytes: number) =>
  bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${Math.round(bytes / 1e6)} MB`

/**
 * Begins to read a bundle for `checkBundleContent`, while something else is waited for.
 * @returns ends it, where it turns out that nobody needs the bundle
 */
export function readAhead(bundle: Bundle): () => void {
  const end = new AbortController()
  bundle.reading = readContent(bundle, end.signal)
  bundle.reading.catch(() => {}) // told where it is awaited
  return () => end.abort()
}

/**
 * Reads all of a bundle, tells how far it is, and that it is right.
 * @throws Failure 65 naming what is damaged
 */
export async function verifyContent(bundle: Bundle) {
  const bytes = await (bundle.reading ?? readContent(bundle))
  report(`  ${megabytes(bytes)} read and verified · 已读取并校验`)
}

/**
 * Reads all of a bundle: each layer against the hash in its name, and the whole against the checksum that
 * was delivered with it.
 * @param signal ends it early
 * @returns the bytes that were read
 * @throws Failure 65 naming what is damaged
 */
export async function readContent(bundle: Bundle, signal?: AbortSignal): Promise<number> {
  const { file, images, checksum } = bundle
  const what = basename(file)
  let read = 0
  const handle = await open(file)
  // one for all pieces: a stream would leave each to the garbage collector
  const buffer = Buffer.alloc(1 << 20)
  const hashOf = async ({ offset, size }: Region, algorithm: 'sha256' | 'sha512') => {
    const hash = createHash(algorithm)
    for (let at = 0; at < size;) {
      signal?.throwIfAborted()
      const length = Math.min(buffer.length, size - at)
      const { bytesRead } = await handle.read(buffer, 0, length, offset + at)
      if (bytesRead === 0) break // cut off meanwhile: its hash is another one
      hash.update(buffer.subarray(0, bytesRead))
      at += bytesRead
      read += bytesRead
      if (read % GIGABYTE < bytesRead) report(`  ${megabytes(read)} read · 已读取`)
    }
    return hash.digest('hex')
  }
  try {
    for (const layer of layersOf(images)) {
      if ((await hashOf(layer, 'sha256')) === digestInName(layer.name, what)) continue
      const of = images.filter((image) => image.layers.includes(layer)).map(({ source }) => source)
      throw unfit`
        ${what}: the layer ${layer.name} (of ${of.join(', ')}) does not have the hash in its name
        ${what}：层 ${layer.name}（属于 ${of.join('、')}）与其名称中的哈希不符`
    }
    if (checksum && (await hashOf(checksum.region, 'sha512')) !== checksum.sha512)
      throw unfit`
        ${checksum.of} does not have the sha512 in ${checksum.from}
        ${checksum.of} 与 ${checksum.from} 中的 sha512 不符`
    return read
  } finally {
    await handle.close()
  }
}
