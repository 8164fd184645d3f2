import { join } from 'node:path'
import { writeWhole } from '../base/files.ts'
import { lines, type ShellLines } from '../base/shell.ts'
import { answer } from '../run/ask.ts'
import { prepare } from '../run/command.ts'
import { needed, word } from '../run/order.ts'
import { thisRun } from '../run/session.ts'
import { type Node } from './nodes.ts'

declare module '../run/session.ts' {
  interface Run {
    /** was it written in this run? */
    hasSshConfig?: boolean
  }
}

/** Writes `ssh_config`, by a command that is shown; with --local there is nothing to write. */
export const prepareSshConfig = word('prepareSshConfig', async () => {
  const run = thisRun()
  const text = lines(sshConfig('prepareSshConfig()'))
  if (!run.inputs.flags.local)
    await prepare`
cat > ssh_config.$$ << 'EOF'
${text}
EOF
mv ssh_config.$$ ssh_config`
  run.hasSshConfig = true
})

/** Writes `ssh_config`, for questions of a script that changes nothing on the nodes. */
export function writeSshConfig() {
  const run = thisRun()
  writeWhole(join(run.inputs.stateDirectory, 'ssh_config'), `${sshConfig('writeSshConfig()')}\n`)
  run.hasSshConfig = true
}

/**
 * How ssh reaches the nodes, all that are listed; what the site file does not say is as in the
 * operator's own configuration, but nothing that would ask, or lead through another connection.
 */
function sshConfig(called: string): string {
  const option = (name: string, value?: string | number) =>
    value === undefined ? [] : [`  ${name} ${value}`]
  const hosts = needed(thisRun().nodes, 'findNodes()', called).flatMap((node) => [
    `Host ${node.name}`,
    ...option('HostName', node.address),
    ...option('User', node.user),
    ...option('Port', node.port),
    ...option('IdentityFile', node.identityFile),
    ...option('UserKnownHostsFile', node.knownHostsFile),
  ])
  return [
    ...hosts,
    'Host *',
    '  BatchMode yes',
    '  StrictHostKeyChecking yes',
    '  ConnectTimeout 10',
    '  ServerAliveInterval 15',
    '  ServerAliveCountMax 4',
    '  ControlMaster no',
    '  ControlPath none',
    '  RequestTTY no',
    '  ClearAllForwardings yes',
    '  IgnoreUnknown RemoteCommand',
    '  RemoteCommand none',
    '  Ciphers aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes256-ctr,chacha20-poly1305@openssh.com',
    '  LogLevel ERROR',
    '  Include ~/.ssh/config',
    '  Include /etc/ssh/ssh_config',
  ].join('\n')
}

/** sudo's own PATH may lack /usr/local/bin, where kubespray installs ctr. */
const NODE_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** The words before a command that is to run on a node: none, or sudo, for this machine (--local). */
export function onNode(node: Node): string[] {
  needed(thisRun().hasSshConfig, 'prepareSshConfig()', `a command on ${node.name}`)
  return [
    ...(thisRun().inputs.flags.local ? [] : ['ssh -F ssh_config $node']),
    ...(node.sudo ? [`sudo -n env PATH=${NODE_PATH}`] : []),
  ]
}

/** The same for a command that changes something there: one at a time on a node, whoever runs it. */
export function alone(node: Node): ShellLines {
  return lines([...onNode(node), 'flock -n -E 75 /run/lock/dce-upgrade-load.lock'].join(' '))
}

/** Asks a node something. @returns the lines of the answer, by the `== heading` above them */
export async function askParts(node: Node, script: string): Promise<Map<string, string[]>> {
  const said = await answer(
    `${[...onNode(node), 'bash -s'].join(' ')} << 'EOF'\nexport LC_ALL=C\nset -eu\n${script.trimStart()}\nEOF`,
  )
  const parts = new Map<string, string[]>()
  let part: string[] = []
  for (const line of said.split('\n')) {
    const [, name] = /^== (.*)$/.exec(line) ?? []
    if (name === undefined) part.push(line)
    else parts.set(name, (part = []))
  }
  parts.forEach((each) => each.at(-1) === '' && each.pop())
  return parts
}
