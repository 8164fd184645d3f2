import { closeSync, existsSync } from 'node:fs'
import { homedir, hostname } from 'node:os'
import { closest } from 'fastest-levenshtein'
import { EXIT, Failure, UNCHANGED } from '../base/failure.ts'
import { note } from '../audit/write.ts'
import { checkCluster } from '../cluster/cluster.ts'
import { type NodeSettings } from '../inputs/inputs.ts'
import { lock } from '../base/locks.ts'
import { endingFailure } from '../base/processes.ts'
import { answer, ask, check, exportVariable, report } from '../run/words.ts'
import { badBundles } from '../bundle/of-this-run.ts'
import { inPart, result, thisRun } from '../run/session.ts'
import { meaningOf, setNodes } from './ssh.ts'

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
      setNodes(all)
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

/**
 * What a kubelet says of its node is not believed: names and addresses come into commands.
 * @throws Failure as `answer` does, and 78 where a name or an address is none
 */
async function nodesOfCluster(settings: NodeSettings): Promise<Node[]> {
  const { items } = JSON.parse(await answer('kubectl get nodes -o json --request-timeout=20s'))
  const linux = items.filter(({ status }: any) => status.nodeInfo.operatingSystem === 'linux')
  return linux.map(({ metadata, status }: any): Node => {
    const { name } = metadata
    const found = status.addresses?.find(({ type }: any) => type === 'InternalIP')
    const address: string = found?.address ?? name
    if (!/^[a-z0-9][a-z0-9.-]*$/.test(name) || !/^[A-Za-z0-9.:-]+$/.test(address)) {
      throw new Failure(
        EXIT.configuration,
        `the cluster has a node ${JSON.stringify(name)} with the address ${JSON.stringify(address)}: that is no address`,
        `集群中节点 ${JSON.stringify(name)} 的地址 ${JSON.stringify(address)} 无效`,
        { state: UNCHANGED },
      )
    }
    const runtime: string = status.nodeInfo.containerRuntimeVersion
    return { ...settings, name, address, runtime: runtime.split(':')[0] as Runtime }
  })
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
  await atOnce(inputs.flags.parallel, waiting, async (node) => {
    await inPart(node.name, async () => {
      thisRun().variables['node'] = node.name
      try {
        if (await work(node)) chosen.add(node)
      } catch (failure) {
        if (!(failure instanceof Failure)) throw failure
        const told = meaningOf(node, failure)
        failures.set(node, told)
        report(`FAILED · 失败: ${told.en}`)
      } finally {
        unlockNode(node)
      }
    })
  })
  if (endingFailure()) throw failureOf(nodes as Node[])
  return (nodes as Node[]).filter((node) => chosen.has(node))
}

/**
 * Does some work for each item, so many at once; after a signal no more is begun.
 * @throws what `work` throws, when all that was begun has ended
 */
export async function atOnce<T>(count: number, items: T[], work: (item: T) => Promise<void>) {
  const waiting = [...items]
  const workers = Array.from({ length: count }, async () => {
    for (let item = waiting.shift(); item && !endingFailure(); item = waiting.shift())
      await work(item)
  })
  await Promise.allSettled(workers)
  await Promise.all(workers)
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

function unlockNode(node: Node) {
  const descriptor = locked.get(node)
  if (descriptor !== undefined) closeSync(descriptor)
  locked.delete(node)
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
  if (badBundles.length > 0) return // told next
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
  const first =
    [...all, ...badBundles].find(({ exitCode }) => !mayPass.includes(exitCode)) ?? all[0]
  const { exitCode } = interruption ?? first!
  const each = (text: (failure: Failure) => string | undefined) =>
    bad.flatMap(({ name }, index) => {
      const said = text(all[index]!)?.trim()
      return said ? [said.replace(/^/gm, `${name}: `)] : []
    })
  const [of, done] = [nodes.length, nodes.length - bad.length]
  const reasons = (text: (failure: Failure) => string) =>
    interruption ? [] : [...each(text), ...badBundles.map(text)]
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
