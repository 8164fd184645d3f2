import { join } from 'node:path'
import { writeWhole } from '../base/files.ts'
import { lines, type ShellLines } from '../base/shell.ts'
import { answer } from '../run/ask.ts'
import { prepare } from '../run/command.ts'
import { needed, word } from '../run/order.ts'
import { thisRun } from '../run/session.ts'
import { type Node } from './nodes.ts'

/** Writes `ssh_config`, by a command that is shown; with --local there is nothing to write. */
export const prepareSshConfig = word('prepareSshConfig', async () => {
  const text = lines(sshConfig('prepareSshConfig()'))
  if (!thisRun().inputs.flags.local)
    await prepare`
cat > ssh_config.$$ << 'EOF'
${text}
EOF
mv ssh_config.$$ ssh_config`
})

/** Writes `ssh_config`, for questions of a script that changes nothing on the nodes. */
export function writeSshConfig() {
  const { stateDirectory } = thisRun().inputs
  writeWhole(join(stateDirectory, 'ssh_config'), `${sshConfig('writeSshConfig()')}\n`)
}

/**
 * How ssh reaches the nodes, all that are listed; what the site file does not say is as in the
 * operator's own configuration, a ProxyJump too, but nothing that would ask, or reuse an open connection.
 */
function sshConfig(called: string): string {
  const run = thisRun()
  const hosts = needed(run.nodes, 'findNodes()', called).flatMap((node) => {
    const options = {
      HostName: node.address,
      User: node.user,
      Port: node.port,
      IdentityFile: node.identityFile,
      UserKnownHostsFile: node.knownHostsFile,
    }
    const given = Object.entries(options).filter(([, value]) => value !== undefined)
    return [`Host ${node.name}`, ...given.map(([name, value]) => `  ${name} ${value}`)]
  })
  run.reached.add('ssh_config')
  return [...hosts, FOR_ALL].join('\n')
}

const FOR_ALL = `Host *
  BatchMode yes
  StrictHostKeyChecking yes
  ConnectTimeout 10
  ServerAliveInterval 15
  ServerAliveCountMax 4
  ControlMaster no
  ControlPath none
  RequestTTY no
  ClearAllForwardings yes
  IgnoreUnknown RemoteCommand
  RemoteCommand none
  Ciphers aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes256-ctr,chacha20-poly1305@openssh.com
  LogLevel ERROR
  Include ~/.ssh/config
  Include /etc/ssh/ssh_config`

/** sudo's own PATH may lack /usr/local/bin, where kubespray installs ctr. */
const NODE_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** A command as it is run on a node: through ssh, or here (--local), and through sudo where the site says so. */
function onNode(node: Node, command: string): string {
  const { reached, inputs } = thisRun()
  const isWritten = reached.has('ssh_config') || undefined
  needed(isWritten, 'prepareSshConfig()', `a command on ${node.name}`)
  return [
    ...(inputs.flags.local ? [] : ['ssh -F ssh_config $node']),
    ...(node.sudo ? [`sudo -n env PATH=${NODE_PATH}`] : []),
    command,
  ].join(' ')
}

/** The words before a command that changes something on a node: one at a time there, whoever runs it. */
export const alone = (node: Node): ShellLines =>
  lines(onNode(node, 'flock -n -E 75 /run/lock/dce-upgrade-load.lock'))

/** Asks a node something. @returns the lines of the answer, by the `== heading` above them */
export async function askParts(node: Node, script: string): Promise<Map<string, string[]>> {
  const said = await answer(
    `${onNode(node, 'bash -s')} << 'EOF'\nexport LC_ALL=C\nset -eu\n${script.trimStart()}\nEOF`,
  )
  const parts = said.split(/^== /m).slice(1)
  return new Map(
    parts.map((part) => {
      const [heading, ...lines] = part.trimEnd().split('\n')
      return [heading!, lines]
    }),
  )
}
