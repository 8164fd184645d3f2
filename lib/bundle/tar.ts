import { readSync } from 'node:fs'
import { parse } from 'yaml'
import { bilingual, EXIT, Failure, type Bilingual } from '../base/failure.ts'

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

/** An archive with its members. */
export interface Archive {
  read: Read
  members: Member[]
  /** how a failure calls it */
  what: string
  /** a failure that is about it: exit 65 */
  unfit: (...text: Bilingual) => Failure
}

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

/** An archive in a part of a file. @throws Failure 65, as membersOf */
export const archiveIn = (read: Read, where: Region, what: string): Archive => ({
  read,
  members: membersOf(read, where, what),
  what,
  unfit: (...text) => {
    const [en, zh] = bilingual(...text)
    return unfit(`${what}: ${en}`, `${what}：${zh}`)
  },
})

/** A member by its name. @throws Failure 65 where it is missing */
export function memberOf({ members, unfit }: Archive, name: string): Member {
  const member = members.find((each) => each.name === name)
  if (member) return member
  throw unfit(`${JSON.stringify(name)} is missing`, `缺少 ${JSON.stringify(name)}`)
}

/** The content of a small member. @throws Failure 65 where it is missing, or over 16 MiB */
export function readMember(archive: Archive, name: string): Buffer {
  const { offset, size } = memberOf(archive, name)
  if (size <= 1 << 24) return archive.read(offset, size)
  const quoted = JSON.stringify(name)
  throw archive.unfit(`${quoted} is too large: ${size} bytes`, `${quoted} 过大：${size} 字节`)
}

/** What a JSON or YAML file says. @throws Failure 65 where it is missing, or is not what it should be */
export function parsedMember(archive: Archive, name: string, form: 'JSON' | 'YAML'): any {
  const text = readMember(archive, name).toString()
  try {
    return form === 'JSON' ? JSON.parse(text) : parse(text, { uniqueKeys: false, merge: true })
  } catch (error) {
    const { message } = error as Error
    throw archive.unfit(`${name} is not ${form}: ${message}`, `${name} 不是有效的 ${form}`)
  }
}

/**
 * The members of a tar archive in a part of an open file. Only the headers are read, so it
 * takes milliseconds whatever the size; libraries read an archive as a stream, all of it. It is strict,
 * because what is checked must be what other programs then read: nothing but regular files and
 * directories, each name once, each header's checksum right, the end marker there and nothing after
 * it. (One name twice with the very same content is let through: so charts-syncer writes an image that
 * has two tags, go-containerregistry 0.14 pkg/v1/tarball/write.go.) A PAX or GNU long
 * name header must come directly before its file: where a PAX size precedes another of them, readers
 * disagree (GHSA-vmf3-w455-68vh).
 * @param where the whole file, or a member of another archive
 * @param what how a failure calls it
 * @throws Failure 65 with the entry and what is wrong with it
 */
export function membersOf(bytes: Read, where: Region, what: string): Member[] {
  const members = new Map<string, Member>()
  const end = where.offset + where.size
  let offset = where.offset
  let pax: Record<string, string> | undefined
  let longName: string | undefined
  let firstHeader = offset

  const bad = (problem: string, zh: string) =>
    unfit`
      ${what}: at byte ${offset - where.offset}: ${problem}
      ${what}：第 ${offset - where.offset} 字节处：${zh}`
  const read = (from: number, size: number): Buffer => {
    const buffer = from + size > end ? undefined : bytes(from, size)
    if (buffer?.length !== size) throw bad('it is cut off', '文件不完整')
    return buffer
  }

  for (;;) {
    const header = read(offset, BLOCK)
    if (!pax && longName === undefined) firstHeader = offset
    if (header.every((byte) => byte === 0)) break
    const { type, size: plainSize, name: plainName } = parseHeader(header, bad)
    const begin = offset + BLOCK
    let size = plainSize
    if (type === 'x' || type === 'L' || type === 'g') {
      if (pax || longName !== undefined)
        throw bad(
          'two extended headers follow each other, which programs read differently',
          '连续出现两个扩展头，不同程序的解析结果不一致',
        )
      if (plainSize > 65536) throw bad('an extended header is too long', '扩展头过长')
      const data = read(begin, plainSize)
      if (type === 'g') parsePax(data, HARMLESS, bad)
      else if (type === 'L') longName = data.toString().replace(/\0.*$/s, '')
      else pax = parsePax(data, /^(path|size)$/, bad)
    } else {
      const name = longName ?? pax?.['path'] ?? plainName
      if (pax?.['size'] !== undefined) size = Number(pax['size'])
      const isDirectory = type === '5' && size === 0
      if (type !== '0' && type !== '\0' && !isDirectory)
        throw bad(
          `${JSON.stringify(name)} is not a regular file (type ${JSON.stringify(type)})`,
          `${JSON.stringify(name)} 不是普通文件（类型 ${JSON.stringify(type)}）`,
        )
      if (!Number.isSafeInteger(size)) throw bad('its size is not a number', '文件大小无效')
      if (begin + size > end)
        throw bad(`${JSON.stringify(name)} is cut off`, `${JSON.stringify(name)} 不完整`)
      if (name.startsWith('/') || name.split('/').includes('..'))
        throw bad(`${JSON.stringify(name)} leads elsewhere`, `${JSON.stringify(name)} 指向其他位置`)
      const first = members.get(name)
      const isSame = () =>
        first!.size === size &&
        size <= 1 << 24 &&
        read(first!.offset, size).equals(read(begin, size))
      if (first && !isSame())
        throw bad(`${JSON.stringify(name)} appears twice`, `${JSON.stringify(name)} 重复出现`)
      if (!first && !isDirectory) {
        const entry = { offset: firstHeader, size: begin + padded(size) - firstHeader }
        members.set(name, { name, offset: begin, size, entry })
      }
      pax = longName = undefined
    }
    offset = begin + padded(size)
  }
  if (pax || longName !== undefined)
    throw bad('an extended header without a file', '扩展头之后没有文件')
  // two blocks of zeros end an archive; GNU tar fills up to 10 KiB
  const rest = end - offset
  if (rest < 2 * BLOCK)
    throw bad('the end marker is missing: it is cut off', '缺少结束标记，文件不完整')
  if (rest > 1024 * 1024 || !read(offset, rest).every((byte) => byte === 0))
    throw bad('there is data after the end marker', '结束标记之后还有内容')
  return [...members.values()]
}

type Bad = (en: string, zh: string) => Failure

function parseHeader(header: Buffer, bad: Bad) {
  const text = (from: number, length: number) => {
    const field = header.subarray(from, from + length)
    const zero = field.indexOf(0)
    return field.subarray(0, zero < 0 ? length : zero).toString()
  }
  const sum = header.reduce((sum, byte, at) => sum + (at >= 148 && at < 156 ? 32 : byte), 0)
  const checksum = /^ *([0-7]{1,7})\0? *\0?$/.exec(header.subarray(148, 156).toString('latin1'))
  if (!checksum || parseInt(checksum[1]!, 8) !== sum)
    throw bad('a header is damaged (its checksum is wrong)', '文件头已损坏（校验和不符）')
  const magic = header.subarray(257, 265).toString('latin1')
  if (!/^(ustar\0|ustar  \0)/.test(magic)) throw bad('this is not a tar archive', '不是 tar 文件')
  const prefix = magic.startsWith('ustar\0') ? text(345, 155) : ''
  const name = text(0, 100)
  return {
    name: prefix ? `${prefix}/${name}` : name,
    type: header.subarray(156, 157).toString('latin1'),
    size: parseSize(header.subarray(124, 136), bad),
  }
}

/** Octal digits, or, from 8 GiB on, a binary number that begins with the bit 0x80 (GNU). */
function parseSize(field: Buffer, bad: Bad): number {
  if (field[0]! & 0x80) {
    const size = Number(BigInt('0x' + field.toString('hex')) & ((1n << 95n) - 1n))
    if (field[0] !== 0x80 || !Number.isSafeInteger(size))
      throw bad('its size is not a number', '大小字段无效')
    return size
  }
  const digits = /^ *([0-7]+)[ \0]*$/.exec(field.toString('latin1'))
  if (!digits) throw bad('its size is not a number', '大小字段无效')
  return parseInt(digits[1]!, 8)
}

/** The records of a PAX header: `LENGTH KEY=VALUE\n` each. */
function parsePax(data: Buffer, allowed: RegExp, bad: Bad): Record<string, string> {
  const records: Record<string, string> = {}
  for (let at = 0; at < data.length;) {
    const blank = data.indexOf(32, at)
    const digits = data.subarray(at, Math.max(at, blank)).toString('latin1')
    const end = at + Number(digits)
    const record = data.subarray(blank + 1, end).toString()
    const [, key, value] = /^([^=]+)=([^]*)\n$/.exec(record) ?? []
    if (!/^[1-9]\d*$/.test(digits) || end > data.length || key === undefined)
      throw bad('a PAX header is damaged', 'PAX 扩展头已损坏')
    if (key in records || !(allowed.test(key) || HARMLESS.test(key)))
      throw bad(`a PAX header has ${JSON.stringify(key)}`, `PAX 扩展头含有 ${JSON.stringify(key)}`)
    if (key === 'size' && !/^\d+$/.test(value!))
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
  return Buffer.concat(
    Object.entries(files).flatMap(([name, text]) => {
      const data = Buffer.from(text)
      const header = Buffer.alloc(BLOCK)
      const octal = (value: number, digits: number) => value.toString(8).padStart(digits, '0')
      header.write(name, 0)
      for (const at of [108, 116]) header.write(octal(0, 7), at) // owner, group
      header.write(octal(0o644, 7), 100)
      header.write(octal(data.length, 11), 124)
      header.write(octal(0, 11), 136) // time
      header.write('0', 156)
      header.write('ustar\x0000', 257)
      header.fill(' ', 148, 156)
      const sum = header.reduce((sum, byte) => sum + byte, 0)
      header.write(`${octal(sum, 6)}\0 `, 148)
      return [header, data, Buffer.alloc(padded(data.length) - data.length)]
    }),
  )
}
