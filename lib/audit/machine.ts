import { execFile } from 'node:child_process'
import { readFileSync, readdirSync, statSync } from 'node:fs'
import { userInfo } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { promisify } from 'node:util'
import { sha256 } from '../base/hash.ts'
import { ROOT } from '../base/root.ts'
import { type Inputs } from '../inputs/types.ts'
import { type Fact } from './write.ts'

const run = promisify(execFile)

/** The sha256 of the tools, by their paths. */
export async function toolsOfMachine(paths: string[]): Promise<Fact> {
  // without a path it would read its standard input
  if (paths.length === 0) return { event: 'tools', sha256: {} }
  const { stdout } = await run('sha256sum', paths)
  const lines = stdout.trimEnd().split('\n')
  // hash, two characters, path
  const sha256 = Object.fromEntries(lines.map((line) => [line.slice(66), line.slice(0, 64)]))
  return { event: 'tools', sha256 }
}

/** Whether the clock, and so each time in the audit, is synchronized: yes, no, or unknown without systemd. */
export async function clockOfMachine(): Promise<Fact> {
  const options = { timeout: 5000, env: { ...process.env, LC_ALL: 'C' } }
  const { stdout } = await run('timedatectl', ['status'], options).catch(() => ({ stdout: '' }))
  // systemd 219 calls it NTP synchronized, later ones System clock synchronized
  const [, synchronized = 'unknown'] = /synchronized: (yes|no)/.exec(stdout) ?? []
  return { event: 'clock', synchronized }
}

/** Who runs this, as far as the machine can tell. */
export function whoRuns() {
  const { SUDO_USER: sudoUser, SSH_CONNECTION: sshConnection } = process.env
  let loginUid: string | undefined
  try {
    loginUid = readFileSync('/proc/self/loginuid', 'utf8')
  } catch {
    // not every kernel keeps it
  }
  return { user: userInfo().username, uid: userInfo().uid, sudoUser, sshConnection, loginUid }
}

/**
 * The sha256 of all that decides what is run, since an engineer may have adapted a copy: the scripts
 * beside the started one, every file below lib/, schemas, ledgers, the descriptor and the site file.
 */
export function filesThatRun({ scriptPath, modulePath, sitePath }: Inputs): Record<string, string> {
  const ours = ['lib', 'modules/schemas', 'modules/manuals'].map((part) => join(ROOT, part))
  const code = [
    ...filesIn(dirname(scriptPath), false).filter((file) => /\.m?[jt]s$/.test(file)),
    ...ours.flatMap((directory) => filesIn(directory, true)),
  ]
  return Object.fromEntries(
    [...code, modulePath, sitePath].map((path) => [
      relative(ROOT, path),
      sha256(readFileSync(path)),
    ]),
  )
}

function filesIn(directory: string, recursive: boolean): string[] {
  const entries = readdirSync(directory, { recursive, withFileTypes: true })
  return (
    entries
      .map((entry) => join(entry.parentPath, entry.name))
      // a link may lead to a directory, or nowhere
      .filter((path) => statSync(path, { throwIfNoEntry: false })?.isFile())
      .sort()
  )
}
