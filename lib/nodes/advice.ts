import { EXIT, Failure, misconfigured, notAllowed, unreachable } from '../base/failure.ts'
import { type Node } from './nodes.ts'

/**
 * What to do about a failure on a node, by the words of ssh, sudo, ctr and docker. Its exit code is that
 * of lib/base/tool-words.ts, unless something here fits better.
 */
export function meaningOf(node: Node, failure: Failure): Failure {
  const { exitCode, en, step } = failure
  if (exitCode > 128) return failure
  const { command, said = '', state } = failure.details
  const meanings = meaningsOn(node)
  // ssh's own exit code, whatever it said
  const isOfSsh = /exit code 255\b/.test(en) || (exitCode === EXIT.unreachable && !said.trim())
  const found = meanings.find(([words]) => words.test(said)) ?? (isOfSsh && meanings.at(-1))
  if (!found) return failure
  const [, meaning] = found
  Object.assign(meaning.details, { command, said, state })
  return Object.assign(meaning, { step })
}

/** The last one is that ssh does not reach it. */
function meaningsOn(node: Node): [words: RegExp, Failure][] {
  const { name, address, runtime, user, port, knownHostsFile } = node
  const at = `${user ? `${user}@` : ''}${address}`
  const portOption = port ? ` -p ${port}` : ''
  const program = runtime === 'docker' ? 'docker' : 'ctr'
  return [
    [
      /Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|No \S+ host key is known/i,
      misconfigured`
        the host key of ${address} is not the one in known_hosts, or missing there
        ${address} 的主机密钥不在 known_hosts 中，或与其不符`.next`
        compare its fingerprint, then:\nssh-keyscan${portOption} ${address} >> ${knownHostsFile ?? '~/.ssh/known_hosts'}
        请先核对指纹，再用上面的命令加入 known_hosts`,
    ],
    [
      /Permission denied \(|Too many authentication failures|no such identity|Load key/i,
      notAllowed(`the ssh login ${at} was refused`, `ssh 登录 ${at} 被拒绝`).next`
        use a key without a passphrase (identityFile in the site file, or an agent):\nssh-copy-id${portOption} ${at}
        需要无口令的密钥（站点配置中的 identityFile，或 ssh-agent）`,
    ],
    [
      /sudo: /,
      notAllowed`
        the user may not use sudo without a password on ${name}
        该用户在 ${name} 上不能免密使用 sudo`,
    ],
    [
      /permission denied.*(docker|containerd)|(docker|containerd).*permission denied/i,
      notAllowed`
        the user may not use ${runtime} on ${name}
        该用户无权使用 ${name} 上的 ${runtime}`.next`
        set user: root, or sudo: true, for nodes in the site file
        请在站点配置 nodes 中设置 user: root 或 sudo: true`,
    ],
    [
      /Cannot connect to the Docker daemon|failed to dial|containerd\.sock/i,
      unreachable(`${runtime} on ${name} does not answer`, `${name} 上的 ${runtime} 没有响应`).next`
        on ${name}: systemctl status ${runtime}
        请在 ${name} 上执行 systemctl status ${runtime}`,
    ],
    [
      /(ctr|docker): (command )?not found/,
      misconfigured`
        ${program} is missing on ${name}: is ${runtime} its runtime?
        ${name} 上没有 ${program}：其运行时是 ${runtime} 吗？`.next(
        'set runtime in the site file',
        '请在站点配置中设置 runtime',
      ),
    ],
    [
      /^ssh: |Connection (refused|closed|timed out|reset)|closed by remote host|Broken pipe|No route to host|Could not resolve hostname|kex_exchange_identification/m,
      unreachable`
        ssh does not reach ${name} at ${at}${port ? ` port ${port}` : ''}
        ssh 无法连接 ${name}（${at}）`.next`
        check that the node is up, and address, port and user in the site file (nodes)
        请确认节点已启动，且站点配置 nodes 中的地址、端口、用户正确`,
    ],
  ]
}
