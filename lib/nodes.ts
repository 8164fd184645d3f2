import { existsSync } from 'node:fs'
import { homedir, hostname } from 'node:os'
import { join } from 'node:path'
import { closest } from 'fastest-levenshtein'
import { EXIT, Failure, UNCHANGED } from './failure.ts'
import { note } from './audit.ts'
import { checkCluster } from './cluster.ts'
import { writeWhole } from './files.ts'
import { type NodeSettings } from './inputs.ts'
import { lock } from './locks.ts'
import { endingFailure } from './processes.ts'
import { answer, ask, check, exportVariable, report } from './run.ts'
import { inPart, result, thisRun } from './session.ts'
import { shellLines, type ShellLines } from './shell.ts'

/** A node that images are loaded on. */
export interface Node extends NodeSettings {
  name: string
  /** where ssh reaches it; undefined for the machine that one stands on */
  address?: string
  runtime: Runtime
}

export type Runtime = 'containerd' | 'docker'

/**
 * The nodes: those that the site file lists, else all that the cluster lists; with --node one of them;
 * with --local the machine that one stands on. A dry run goes on as with one.
 * @throws Failure 66 where there is none · 69, 77, 78 of the cluster
 */
export async function findNodes(): Promise<(Node | undefined)[]> {
  const { inputs } = thisRun()
  const { site, flags } = inputs
  const { list, ...settings } = site.nodes ?? {}
  if (flags.local) {
    const here: Node = { name: hostname(), runtime: 'containerd', ...settings }
    return thisRun().dryRun ? [undefined] : [here]
  }
  if (!list) await checkCluster()
  const [where, zh] = list ? ['the site file', '站点配置'] : ['the cluster', '集群']
  const found = await check(
    flags.node
      ? `which nodes: ${flags.node}, as ${where} lists it`
      : `which nodes: all that ${where} lists`,
    flags.node ? `节点：${zh}中的 ${flags.node}` : `节点：${zh}中列出的全部节点`,
    async () => {
      const all = list
        ? list.map((each): Node => ({ runtime: 'containerd', ...settings, ...each }))
        : await nodesOfCluster(settings)
      const names = all.map(({ name }) => name)
      const nodes = flags.node ? all.filter(({ name }) => name === flags.node) : all
      if (nodes.length === 0) {
        throw new Failure(
          EXIT.missingInput,
          flags.node
            ? `${where} lists no node ${flags.node}; it has: ${names.join(', ')}. Did you mean ${closest(flags.node, names)}?`
            : `${where} lists no node`,
          flags.node
            ? `${zh}中没有节点 ${flags.node}，现有：${names.join('、')}`
            : `${zh}中没有节点`,
          { state: UNCHANGED },
        )
      }
      for (const { name, address, runtime } of nodes) report(`  ${name} (${address}): ${runtime}`)
      note({ event: 'nodes', nodes })
      if (list && !flags.node) await compareWithCluster(names)
      for (const { name, identityFile } of nodes) refuseMissingKey(name, identityFile)
      return nodes
    },
  )
  return found ?? [undefined]
}

/** Says where the site file lists other nodes than the cluster: pods of one that was forgotten would hang. */
async function compareWithCluster(listed: string[]) {
  const question = 'kubectl get nodes -o name --request-timeout=10s'
  const { exitCode, stdout } = await ask(question)
  if (exitCode !== 0) {
    report(
      'NOTE · 注意: the cluster could not be asked whether these are all of its nodes\n  无法查询集群，未核对以上是否为全部节点',
    )
    return
  }
  const inCluster = stdout.split('\n').flatMap((line) => line.match(/(?<=^node\/).+/) ?? [])
  const forgotten = inCluster.filter((name) => !listed.includes(name))
  const unknown = listed.filter((name) => !inCluster.includes(name))
  if (forgotten.length > 0)
    report(
      `NOTE · 注意: the cluster has nodes that the site file does not list: ${forgotten.join(', ')}. Pods that are scheduled there will not find the images\n` +
        `  集群中的以下节点未列入站点配置：${forgotten.join('、')}。调度到这些节点的 Pod 将找不到镜像`,
    )
  if (unknown.length > 0)
    report(
      `NOTE · 注意: the cluster has no node of these names: ${unknown.join(', ')}\n  集群中没有名为 ${unknown.join('、')} 的节点`,
    )
}

/** @throws Failure 78 */
function refuseMissingKey(name: string, identityFile?: string) {
  const path = identityFile?.replace(/^~(?=\/)/, homedir())
  if (path === undefined || existsSync(path)) return
  throw new Failure(
    EXIT.configuration,
    `the identityFile ${path} (for ${name}) does not exist`,
    `identityFile ${path}（${name}）不存在`,
    { state: UNCHANGED, next: ['correct nodes in the site file', '请修正站点配置中的 nodes'] },
  )
}

/** @throws Failure as `answer` does, and 78 where a node has another runtime */
async function nodesOfCluster(settings: NodeSettings): Promise<Node[]> {
  const { items } = JSON.parse(await answer('kubectl get nodes -o json --request-timeout=20s'))
  const linux = items.filter(({ status }: any) => status.nodeInfo.operatingSystem === 'linux')
  return linux.map(({ metadata, status }: any): Node => {
    const { name } = metadata
    const address = (type: string) =>
      status.addresses?.find((each: any) => each.type === type)?.address
    const version: string = status.nodeInfo.containerRuntimeVersion
    const runtime = version.split(':')[0]!
    if (runtime !== 'containerd' && runtime !== 'docker') {
      throw new Failure(
        EXIT.configuration,
        `the node ${name} runs ${version}; the manual knows Docker and containerd`,
        `节点 ${name} 的运行时为 ${version}；手册只涉及 Docker 和 containerd`,
        {
          state: UNCHANGED,
          next: [
            'name the nodes that run one of these in the site file: nodes: {list: …}',
            '请在站点配置的 nodes: {list: …} 中只列出使用这两种运行时的节点',
          ],
        },
      )
    }
    return { ...settings, name, address: address('InternalIP') ?? name, runtime }
  })
}

/** Writes `ssh_config`, for questions of a script that changes nothing on the nodes. */
export function writeSshConfig(nodes: Node[]) {
  writeWhole(join(thisRun().inputs.stateDirectory, 'ssh_config'), `${sshConfig(nodes).lines}\n`)
}

/** How ssh reaches the nodes; what the site file does not say is as in the operator's own configuration. */
export function sshConfig(nodes: (Node | undefined)[]): ShellLines {
  const settings = thisRun().inputs.site.nodes ?? {}
  const inDryRun: Node = {
    ...settings,
    name: '{each_node}',
    address: '{its_address}',
    runtime: 'containerd',
  }
  const option = (name: string, value?: string | number) =>
    value === undefined ? [] : [`  ${name} ${value}`]
  const lines = nodes.flatMap((node) => {
    const { name, address, user, port, identityFile, knownHostsFile } = node ?? inDryRun
    return [
      `Host ${name}`,
      ...option('HostName', address),
      ...option('User', user),
      ...option('Port', port),
      ...option('IdentityFile', identityFile),
      ...option('UserKnownHostsFile', knownHostsFile),
    ]
  })
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
      '  Ciphers aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes256-ctr,chacha20-poly1305@openssh.com',
      '  LogLevel ERROR',
      '  Include ~/.ssh/config',
      '  Include /etc/ssh/ssh_config',
    ].join('\n'),
  )
}

/** The words before a command that is to run on a node: nothing for the machine that one stands on. */
export function onNode(node: Node | undefined): string[] {
  const { site, flags } = thisRun().inputs
  const sudo = (node ?? site.nodes)?.sudo
  return [...(flags.local ? [] : ['ssh -F ssh_config $node']), ...(sudo ? ['sudo -n'] : [])]
}

/** The same for a command that changes something there: one at a time on a node, whoever runs it. */
export function aloneOnNode(node: Node | undefined): ShellLines {
  return shellLines([...onNode(node), 'flock -n -E 75 /run/lock/dce-upgrade-load.lock'].join(' '))
}

/** The nodes that something went wrong on. */
const failures = new Map<Node, Failure>()

/**
 * Does some work for each node, as many at once as --parallel says. A node that fails is told at the
 * end (`tellBadNodes`), and left out of what comes after; the others go on. A dry run does it once.
 * @returns the nodes for which the work gave true
 * @throws Failure 128+n after a signal
 */
export async function onEachNode(
  nodes: (Node | undefined)[],
  work: (node: Node | undefined) => Promise<boolean>,
): Promise<(Node | undefined)[]> {
  const { dryRun, inputs } = thisRun()
  if (dryRun) {
    const { local, node = local ? '{this_machine}' : '{each_node}' } = inputs.flags
    if (thisRun().variables['node'] !== node) exportVariable('node', node)
    return (await work(undefined)) ? nodes : []
  }
  const waiting = (nodes as Node[]).filter((node) => !failures.has(node))
  const chosen = new Set<Node>()
  const worker = async () => {
    for (let node = waiting.shift(); node && !endingFailure(); node = waiting.shift()) {
      const each = node
      try {
        await inPart(each.name, async () => {
          thisRun().variables['node'] = each.name
          if (await work(each)) chosen.add(each)
        })
      } catch (failure) {
        if (!(failure instanceof Failure)) throw failure
        failures.set(each, failure)
        report(`${each.name}: FAILED · 失败: ${failure.en}`)
      }
    }
  }
  await Promise.all(Array.from({ length: inputs.flags.parallel }, worker))
  if (endingFailure()) throw failureOf(nodes as Node[])
  return (nodes as Node[]).filter((node) => chosen.has(node))
}

/** the descriptors of the locks of nodes */
const locked = new Map<Node, number>()

/** @throws Failure 75 where another script of this machine loads images there; it names the holder */
export async function lockNode(node: Node | undefined) {
  if (!node) return
  const { locks, inputs } = thisRun()
  const target = `loading on ${node.name} (${node.address ?? 'here'})`
  const holder = { script: inputs.script, module: inputs.module.name }
  const descriptor = locked.get(node) ?? lock(target, holder)
  locked.set(node, descriptor)
  locks.push(descriptor)
}

/** The line of a command that is run on the node. */
function lineOf(command = ''): string | undefined {
  const lines = command.trim().split('\n')
  return (lines.find((line) => /\bflock\b|\bbash -s\b/.test(line)) ?? lines[0])?.trim()
}

/**
 * Ends a run in which a node failed; the others are done.
 * @throws Failure with the node's exit code; where nodes failed in different ways, with that of the
 *   first which a retry does not mend
 */
export async function tellBadNodes(nodes: (Node | undefined)[]) {
  if (thisRun().dryRun) return
  const all = nodes as Node[]
  result({
    nodes: all.map((node) => ({ name: node.name, failure: failures.get(node)?.en ?? null })),
  })
  if (failures.size > 0) throw failureOf(all)
  report(
    `${all.length} of ${all.length} nodes have every image · ${all.length} 个节点均已具备全部镜像`,
  )
}

/** The failures of the nodes as one. */
function failureOf(nodes: Node[]): Failure {
  const bad = nodes.filter((node) => failures.has(node))
  const all = bad.map((node) => failures.get(node)!)
  const interruption = endingFailure()
  const mayPass: number[] = [EXIT.unreachable, EXIT.tryLater]
  const first = all.find(({ exitCode }) => !mayPass.includes(exitCode)) ?? all[0]
  const { exitCode } = interruption ?? first!
  const each = (text: (failure: Failure) => string | undefined) =>
    bad.flatMap(({ name }, index) => {
      const said = text(all[index]!)?.trim()
      return said ? [said.replace(/^/gm, `${name}: `)] : []
    })
  const [of, done] = [nodes.length, nodes.length - bad.length]
  const reasons = (text: (failure: Failure) => string) => (interruption ? [] : each(text))
  const failure = new Failure(
    exitCode,
    [interruption?.en ?? `${bad.length} of ${of} nodes failed:`, ...reasons(({ en }) => en)].join(
      '\n',
    ),
    [
      interruption?.zh ?? `${of} 个节点中有 ${bad.length} 个失败：`,
      ...reasons(({ zh }) => zh),
    ].join('\n'),
    {
      command: each(({ details }) => lineOf(details.command)).join('\n'),
      said: each(({ details }) => details.said).join('\n'),
      state: [
        [
          ...each(({ details }) => details.state?.[0]),
          interruption ? '' : `${done} of ${of} nodes have every image`,
        ].join('\n'),
        [
          ...each(({ details }) => details.state?.[1]),
          interruption ? '' : `${of} 个节点中有 ${done} 个已具备全部镜像`,
        ].join('\n'),
      ],
      next: [
        [
          ...(interruption ? [] : each(({ details }) => details.next?.[0])),
          'run the same command again: what is there is kept',
        ].join('\n'),
        [
          ...(interruption ? [] : each(({ details }) => details.next?.[1])),
          '请重新执行同一命令，已就绪的内容会保留',
        ].join('\n'),
      ],
    },
  )
  if (first) failure.step = first.step
  return failure
}
