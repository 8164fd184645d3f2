import { execFileSync } from 'node:child_process'
import { accessSync, constants, existsSync, statfsSync } from 'node:fs'
import { totalmem } from 'node:os'
import { dirname } from 'node:path'

/** What has to be there for the tools that are still to be built and installed. */
export interface Work {
  /** where the tools are kept */
  cache: string
  /** tools are to be built with Go */
  isToBuild: boolean
  /** Debian packages that are to be installed */
  packages: string[]
}

/** What a build takes in Go's caches and the lab's, and what a running lab takes, in GB. */
const GB = { disk: 10, memory: 3 }

/**
 * Looks for all that the lab needs and can't install by itself.
 * @throws Error that names everything that is missing, each with its cure
 */
export function checkRequirements({ cache, isToBuild, packages }: Work): void {
  const missing: string[] = []
  const need = (holds: boolean, what: string) => !holds && missing.push(what)
  const { platform, arch, versions } = process
  need(platform === 'linux' && arch === 'x64', `Linux on x86-64 (this is ${platform} on ${arch})`)
  need(
    Number(versions.node.split('.')[0]) >= 20,
    `Node.js 20 or later (this is ${versions.node}): https://nodejs.org`,
  )
  const isRoot = process.getuid?.() === 0
  need(isRoot, 'root, for namespaces, cgroups and mounts: run the same command as root (sudo -i)')
  if (packages.length > 0) {
    need(
      works('apt-get', '--version'),
      `Debian's apt-get, to install ${packages.join(' ')}: use Debian, or install these yourself`,
    )
  }
  if (isToBuild) {
    need(
      hasGo(),
      `Go 1.26 or later on PATH (${said('go', 'version') ?? 'there is none'}): https://go.dev/dl`,
    )
    const free = freeGigabytes(cache)
    need(
      free >= GB.disk,
      `${GB.disk} GB on the disk of ${cache} to build the tools (it has ${free.toFixed(1)}): make room, or set XDG_CACHE_HOME and GOCACHE to another disk`,
    )
  }
  const memory = totalmem() / 2 ** 30
  need(memory >= GB.memory, `${GB.memory} GB of memory (there are ${memory.toFixed(1)})`)
  if (isRoot) {
    need(
      isWritable('/sys/fs/cgroup'),
      'cgroups that can be written (/sys/fs/cgroup): in a container, start it with --privileged --cgroupns=host',
    )
    need(
      works('unshare', '--mount', 'true'),
      'mount namespaces (unshare --mount): in a container, start it with --privileged',
    )
  }
  if (missing.length > 0) {
    throw new Error(
      `The lab can't be built here. Missing · 缺少:\n${missing.map((each) => `  - ${each}`).join('\n')}`,
    )
  }
}

/** What a program prints, trimmed; undefined where it is missing or fails. */
function said(program: string, ...args: string[]): string | undefined {
  try {
    return execFileSync(program, args, { encoding: 'utf8', stdio: 'pipe' }).trim()
  } catch {
    return undefined
  }
}

const works = (program: string, ...args: string[]) => said(program, ...args) !== undefined

/** helm 3.22 and 4.3 are built with Go 1.26; from 1.21 on Go fetches a newer one itself, if it may. */
function hasGo(): boolean {
  const [, minor] = /go1\.(\d+)/.exec(said('go', 'version') ?? '') ?? []
  const mayFetch = said('go', 'env', 'GOTOOLCHAIN') !== 'local'
  return Number(minor) >= (mayFetch ? 21 : 26)
}

function freeGigabytes(directory: string): number {
  if (!existsSync(directory)) return freeGigabytes(dirname(directory))
  const { bavail, bsize } = statfsSync(directory)
  return (bavail * bsize) / 2 ** 30
}

function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK)
    return true
  } catch {
    return false
  }
}
