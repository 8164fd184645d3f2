import { join } from 'node:path'
import { EXIT, Failure } from '../base/failure.ts'
import { writeWhole } from '../base/files.ts'
import { type Node } from './nodes.ts'
import { thisRun } from '../run/session.ts'
import { shellLines, type ShellLines } from '../base/shell.ts'

let known: Node[] = []

/** All nodes that the site file, or the cluster, lists: `ssh_config` has them. */
export function setNodes(nodes: Node[]) {
  known = nodes
}

/** Writes `ssh_config`, for questions of a script that changes nothing on the nodes. */
export function writeSshConfig() {
  writeWhole(join(thisRun().inputs.stateDirectory, 'ssh_config'), `${sshConfig().lines}\n`)
}

/**
 * How ssh reaches the nodes, all that are listed; what the site file does not say is as in the
 * operator's own configuration, but nothing that would ask, or lead through another connection.
 */
export function sshConfig(): ShellLines {
  const settings = thisRun().inputs.site.nodes ?? {}
  const inDryRun: Node = {
    ...settings,
    name: '{each_node}',
    address: '{its_address}',
    runtime: 'containerd',
  }
  const option = (name: string, value?: string | number) =>
    value === undefined ? [] : [`  ${name} ${value}`]
  const lines = (thisRun().dryRun ? [inDryRun] : known).flatMap((node) => [
    `Host ${node.name}`,
    ...option('HostName', node.address),
    ...option('User', node.user),
    ...option('Port', node.port),
    ...option('IdentityFile', node.identityFile),
    ...option('UserKnownHostsFile', node.knownHostsFile),
  ])
  return shellLines(
    [
      ...lines,
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
    ].join('\n'),
  )
}

/** sudo's own PATH may lack /usr/local/bin, where kubespray installs ctr. */
const NODE_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** The words before a command that is to run on a node: nothing for the machine that one stands on. */
export function onNode(node: Node | undefined): string[] {
  const { site, flags } = thisRun().inputs
  const sudo = (node ?? site.nodes)?.sudo
  return [
    ...(flags.local ? [] : ['ssh -F ssh_config $node']),
    ...(sudo ? [`sudo -n env PATH=${NODE_PATH}`] : []),
  ]
}

/** The same for a command that changes something there: one at a time on a node, whoever runs it. */
export function aloneOnNode(node: Node | undefined): ShellLines {
  return shellLines([...onNode(node), 'flock -n -E 75 /run/lock/dce-upgrade-load.lock'].join(' '))
}

/** What the words of ssh, ctr and docker mean, and what to do. */
export function meaningOf(node: Node, failure: Failure): Failure {
  const { said = '', command } = failure.details
  const at = `${node.user ? `${node.user}@` : ''}${node.address}`
  const port = node.port ? ` -p ${node.port}` : ''
  const meanings: [RegExp, number, string, string, [string, string]?][] = [
    [
      /Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|No \S+ host key is known/i,
      EXIT.configuration,
      `the host key of ${node.address} is not the one in known_hosts, or not in it`,
      `${node.address} 的主机密钥不在 known_hosts 中，或与其不符`,
      [
        `compare its fingerprint, then:\nssh-keyscan${port} ${node.address} >> ${node.knownHostsFile ?? '~/.ssh/known_hosts'}`,
        '请先核对指纹，再用上面的命令加入 known_hosts',
      ],
    ],
    [
      /Permission denied \(|Too many authentication failures|no such identity|Load key/i,
      EXIT.notAllowed,
      `ssh does not let us in at ${at}`,
      `ssh 拒绝登录 ${at}`,
      [
        `a key without a passphrase is needed (identityFile in the site file, or an agent):\nssh-copy-id${port} ${at}`,
        '需要无口令的密钥（站点配置中的 identityFile，或 ssh-agent）',
      ],
    ],
    [
      /sudo: /,
      EXIT.notAllowed,
      `the user may not use sudo without a password on ${node.name}`,
      `该用户在 ${node.name} 上不能免密使用 sudo`,
    ],
    [
      /permission denied.*(docker|containerd)|(docker|containerd).*permission denied/i,
      EXIT.notAllowed,
      `the user may not use ${node.runtime} on ${node.name}`,
      `该用户无权使用 ${node.name} 上的 ${node.runtime}`,
      [
        'nodes in the site file: user: root, or sudo: true',
        '站点配置 nodes：user: root，或 sudo: true',
      ],
    ],
    [
      /Cannot connect to the Docker daemon|failed to dial|containerd\.sock/i,
      EXIT.unreachable,
      `${node.runtime} on ${node.name} does not answer`,
      `${node.name} 上的 ${node.runtime} 没有响应`,
      [
        `on ${node.name}: systemctl status ${node.runtime}`,
        `请在 ${node.name} 上执行 systemctl status ${node.runtime}`,
      ],
    ],
    [
      /(ctr|docker): (command )?not found/,
      EXIT.configuration,
      `${node.name} has no ${node.runtime === 'docker' ? 'docker' : 'ctr'}: is ${node.runtime} its runtime?`,
      `${node.name} 上没有 ${node.runtime === 'docker' ? 'docker' : 'ctr'}：其运行时是 ${node.runtime} 吗？`,
      ['runtime in the site file says what it is', '请在站点配置中设置 runtime'],
    ],
    [
      /^ssh: |Connection (refused|closed|timed out|reset)|closed by remote host|Broken pipe|No route to host|Could not resolve hostname|kex_exchange_identification/m,
      EXIT.unreachable,
      `ssh does not reach ${node.name} at ${at}${port && ` port ${node.port}`}`,
      `ssh 无法连接 ${node.name}（${at}）`,
      [
        'is the node up, and are address, port and user right in the site file (nodes)?',
        '请确认节点已启动，且站点配置 nodes 中的地址、端口、用户正确',
      ],
    ],
  ]
  if (failure.exitCode > 128) return failure
  // ssh's own exit code, whatever it said
  const isOfSsh = /exit code 255$/.test(failure.en)
  const isSilent = failure.exitCode === EXIT.unreachable && !said.trim()
  const meaning =
    meanings.find(([words]) => words.test(said)) ??
    (isOfSsh || isSilent ? meanings.at(-1) : undefined)
  if (!meaning) return failure
  const [, exitCode, en, zh, next] = meaning
  const told = new Failure(exitCode, en, zh, { command, said, state: failure.details.state, next })
  told.step = failure.step
  return told
}
