import { readSync } from 'node:fs'
import { parse } from 'yaml'
import { type Bilingual, bilingual, EXIT, Failure } from '../base/failure.ts'

/** A part of a file. */
export interface Region {
  /** bytes from the beginning of the file */
  offset: number
  /** bytes */
  size: number
}

/** A regular file in an archive: its name, and where its content is in the file. */
export interface Member extends Region {
  name: string
  /** all that the archive has of it, for a copy: its headers, its content, and zeros up to a full block */
  entry: Region
}

type Unfit = (...text: Bilingual) => Failure

/** An archive that is damaged or unfit: exit 65. */
export const unfit = (...text: Bilingual): Failure =>
  new Failure(EXIT.badBundle, ...bilingual(...text)).next`
    compare its sha512 with the one on the download page. If they differ, it was damaged in transit: download it again. If they match, report it to the vendor
    请与下载页的 sha512 比较：不一致则为传输损坏，请重新下载；一致则请联系厂商`

/** Reads bytes of an archive, as many as there are, up to `size`. */
export type Read = (offset: number, size: number) => Buffer

/** Reads from an open file. */
export const fromFile =
  (descriptor: number): Read =>
  (offset, size) => {
    const buffer = Buffer.alloc(size)
    return buffer.subarray(0, readSync(descriptor, buffer, 0, size, offset))
  }

const BLOCK = 512
const padded = (size: number) => Math.ceil(size / BLOCK) * BLOCK
/** PAX records that say nothing about which bytes belong to which file. */
const HARMLESS = /^(mtime|atime|ctime|uid|gid|uname|gname|comment|LIBARCHIVE\..*|SCHILY\..*)$/

/**
 * A tar archive in a part of an open file. Only the headers are read, so it takes milliseconds whatever
 * the size; libraries read an archive as a stream, all of it. It is strict, because what is checked must
 * be what other programs then read: nothing but regular files and directories, each name once, each
 * header's checksum right, the end marker there and nothing after it. (One name twice with the very same
 * content is let through: so charts-syncer writes an image that has two tags, go-containerregistry 0.14
 * pkg/v1/tarball/write.go.) A PAX or GNU long name header must come directly before its file: where a
 * PAX size precedes another of them, readers disagree (GHSA-vmf3-w455-68vh).
 * @param where the whole file, or a member of another archive
 * @param what how a failure calls it
 * @throws Failure 65 with the entry and what is wrong with it
 */
export function archiveIn(read: Read, where: Region, what: string) {
  const unfitHere: Unfit = (...text) => {
    const [en, zh] = bilingual(...text)
    return unfit(`${what}: ${en}`, `${what}：${zh}`)
  }
  const members = membersOf(read, where, unfitHere)

  /** A member by its name. @throws Failure 65 where it is missing */
  function member(name: string): Member {
    const found = members.find((each) => each.name === name)
    if (found) return found
    throw unfitHere(`${JSON.stringify(name)} is missing`, `缺少 ${JSON.stringify(name)}`)
  }

  /** The content of a small member. @throws Failure 65 where it is missing, or over 16 MiB */
  function content(name: string): Buffer {
    const { offset, size } = member(name)
    if (size <= 1 << 24) return read(offset, size)
    const quoted = JSON.stringify(name)
    throw unfitHere(`${quoted} is too large: ${size} bytes`, `${quoted} 过大：${size} 字节`)
  }

  /** What a JSON or YAML file says. @throws Failure 65 where it is missing, or is not what it should be */
  function parsed(name: string, form: 'JSON' | 'YAML'): any {
    const text = content(name).toString()
    try {
      return form === 'JSON' ? JSON.parse(text) : parse(text, { uniqueKeys: false, merge: true })
    } catch (error) {
      const { message } = error as Error
      throw unfitHere(`${name} is not ${form}: ${message}`, `${name} 不是有效的 ${form}`)
    }
  }

  return { what, members, member, content, parsed, unfit: unfitHere }
}

export type Archive = ReturnType<typeof archiveIn>

function membersOf(bytes: Read, where: Region, unfit: Unfit): Member[] {
  const members = new Map<string, Member>()
  const end = where.offset + where.size
  let offset = where.offset
  let firstHeader = offset
  /** what an extended header says of the file that comes next */
  let extended: Record<string, string> | undefined

  const bad: Unfit = (...text) => {
    const [en, zh] = bilingual(...text)
    const at = offset - where.offset
    return unfit(`at byte ${at}: ${en}`, `第 ${at} 字节处：${zh}`)
  }
  const read = (from: number, size: number): Buffer => {
    const buffer = from + size > end ? undefined : bytes(from, size)
    if (buffer?.length !== size) throw bad('it is cut off', '文件不完整')
    return buffer
  }

  for (;;) {
    const header = read(offset, BLOCK)
    if (!extended) firstHeader = offset
    if (header.every((byte) => byte === 0)) break
    const { type, size: plainSize, name: plainName } = parseHeader(header, bad)
    const begin = offset + BLOCK
    let size = plainSize
    if (/[xLg]/.test(type)) {
      if (extended)
        throw bad`
          two extended headers follow each other, which programs read differently
          连续出现两个扩展头，不同程序的解析结果不一致`
      if (size > 65536) throw bad('an extended header is too long', '扩展头过长')
      const data = read(begin, size)
      if (type === 'g') parsePax(data, HARMLESS, bad)
      else extended = type === 'L' ? { path: upToZero(data) } : parsePax(data, /^(path|size)$/, bad)
    } else {
      const { path: name = plainName, size: longSize } = extended ?? {}
      if (longSize !== undefined) size = Number(longSize)
      const quoted = JSON.stringify(name)
      const isDirectory = type === '5' && size === 0
      if (type !== '0' && type !== '\0' && !isDirectory)
        throw bad`
          ${quoted} is not a regular file (type ${JSON.stringify(type)})
          ${quoted} 不是普通文件（类型 ${JSON.stringify(type)}）`
      if (begin + size > end) throw bad(`${quoted} is cut off`, `${quoted} 不完整`)
      if (name.startsWith('/') || name.split('/').includes('..'))
        throw bad(`${quoted} leads elsewhere`, `${quoted} 指向其他位置`)
      const first = members.get(name)
      const isSame = ({ size: other, offset }: Member) =>
        other === size && size <= 1 << 24 && read(offset, size).equals(read(begin, size))
      if (first && !isSame(first)) throw bad(`${quoted} appears twice`, `${quoted} 重复出现`)
      if (!first && !isDirectory) {
        const entry = { offset: firstHeader, size: begin + padded(size) - firstHeader }
        members.set(name, { name, offset: begin, size, entry })
      }
      extended = undefined
    }
    offset = begin + padded(size)
  }
  if (extended) throw bad('an extended header without a file', '扩展头之后没有文件')
  // two blocks of zeros end an archive; GNU tar fills up to 10 KiB
  const rest = end - offset
  if (rest < 2 * BLOCK)
    throw bad('the end marker is missing: it is cut off', '缺少结束标记，文件不完整')
  if (rest > 1024 * 1024 || !read(offset, rest).every((byte) => byte === 0))
    throw bad('there is data after the end marker', '结束标记之后还有内容')
  return [...members.values()]
}

const upToZero = (bytes: Buffer) => bytes.toString().split('\0')[0]!

/** The sum of a header's bytes, those of the sum itself taken for blanks. */
const sumOf = (header: Buffer) =>
  header.reduce((sum, byte, at) => sum + (at >= 148 && at < 156 ? 32 : byte), 0)

function parseHeader(header: Buffer, bad: Unfit) {
  if (octalIn(header.subarray(148, 156)) !== sumOf(header))
    throw bad('a header is damaged (its checksum is wrong)', '文件头已损坏（校验和不符）')
  const magic = header.toString('latin1', 257, 265)
  if (!/^ustar(\0|  \0)/.test(magic)) throw bad('this is not a tar archive', '不是 tar 文件')
  const size = sizeIn(header.subarray(124, 136))
  if (!Number.isSafeInteger(size)) throw bad('its size is not a number', '大小字段无效')
  const prefix = magic.startsWith('ustar\0') ? upToZero(header.subarray(345, 500)) : ''
  const name = upToZero(header.subarray(0, 100))
  return {
    name: prefix ? `${prefix}/${name}` : name,
    type: header.toString('latin1', 156, 157),
    size,
  }
}

const octalIn = (field: Buffer): number =>
  parseInt(/^ *([0-7]+)[ \0]*$/.exec(field.toString('latin1'))?.[1] ?? '', 8)

/** Octal digits, or, from 8 GiB on, a binary number behind the byte 0x80 (GNU). */
const sizeIn = (field: Buffer): number =>
  field[0] === 0x80 ? Number(`0x${field.toString('hex', 1)}`) : octalIn(field)

/** The records of a PAX header: `LENGTH KEY=VALUE\n` each. */
function parsePax(data: Buffer, allowed: RegExp, bad: Unfit): Record<string, string> {
  const records: Record<string, string> = {}
  for (let at = 0; at < data.length;) {
    const blank = data.indexOf(32, at)
    const digits = data.toString('latin1', at, Math.max(at, blank))
    const end = at + Number(digits)
    const [, key, value] = /^([^=]+)=([^]*)\n$/.exec(data.toString('utf8', blank + 1, end)) ?? []
    if (!/^[1-9]\d*$/.test(digits) || end > data.length || key === undefined)
      throw bad('a PAX header is damaged', 'PAX 扩展头已损坏')
    if (key in records || !(allowed.test(key) || HARMLESS.test(key)))
      throw bad(`a PAX header has ${JSON.stringify(key)}`, `PAX 扩展头含有 ${JSON.stringify(key)}`)
    if (key === 'size' && !(/^\d+$/.test(value!) && Number.isSafeInteger(Number(value))))
      throw bad('its size is not a number', '大小字段无效')
    records[key] = value!
    at = end
  }
  return records
}

/**
 * The files as the beginning of a tar archive, without its end marker.
 * @param files path (less than 100 bytes) and content of each
 */
export function tarOf(files: Record<string, string | Buffer>): Buffer {
  const octal = (value: number, digits: number) => value.toString(8).padStart(digits, '0')
  const entries = Object.entries(files).flatMap(([name, text]) => {
    const data = Buffer.from(text)
    const header = Buffer.alloc(BLOCK)
    header.write(name, 0)
    header.write(octal(0o644, 7), 100)
    for (const at of [108, 116]) header.write(octal(0, 7), at) // owner, group
    header.write(octal(data.length, 11), 124)
    header.write(octal(0, 11), 136) // time
    header.write('0', 156)
    header.write('ustar\x0000', 257)
    header.write(`${octal(sumOf(header), 6)}\0 `, 148)
    return [header, data, Buffer.alloc(padded(data.length) - data.length)]
  })
  return Buffer.concat(entries)
}
