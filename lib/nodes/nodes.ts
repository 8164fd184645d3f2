import { existsSync } from 'node:fs'
import { homedir, hostname } from 'node:os'
import { didYouMean } from '../base/did-you-mean.ts'
import { misconfigured, missing } from '../base/failure.ts'
import { checkCluster } from '../cluster/cluster.ts'
import { type NodeSettings } from '../inputs/types.ts'
import { answer, ask } from '../run/ask.ts'
import { word } from '../run/order.ts'
import { note, report, thisRun } from '../run/session.ts'
import { check } from '../run/words.ts'

export type Runtime = 'containerd' | 'docker'

/** A node that images are loaded on; files of this room add what becomes of it in this run. */
export interface Node extends NodeSettings {
  name: string
  /** where ssh reaches it; undefined for this machine (--local) */
  address?: string
  runtime: Runtime
}

declare module '../run/session.ts' {
  interface Run {
    /** all nodes that the site file, or the cluster, lists: those that ssh_config has */
    nodes?: Node[]
  }
}

/**
 * The nodes: those that the site file lists, else all that the cluster lists; with --node one of them;
 * with --local this machine. A dry run has one that stands for each.
 * @throws Failure 66 where there is none · 69, 77, 78 of the cluster
 */
export const findNodes = word('findNodes', async (): Promise<Node[]> => {
  const run = thisRun()
  const { site, flags } = run.inputs
  const { list, ...settings } = site.nodes ?? {}
  if (site.imagesFrom !== 'nodes')
    report(
      'NOTE · 注意: the site file says imagesFrom: registry; with imagesFrom: nodes the upgrade checks that the nodes have the images\n  站点配置为 imagesFrom: registry；设为 nodes 后，升级前会检查节点上是否有这些镜像',
    )
  const usual = { runtime: 'containerd' as const, ...settings }
  if (flags.local)
    return (run.nodes = [{ ...usual, name: run.dryRun ? '{this_machine}' : hostname() }])
  if (!list) await checkCluster()
  const [where, zh] = list ? ['the site file', '站点配置'] : ['the cluster', '集群']
  const [which, whichZh] = flags.node
    ? [`${flags.node}, as ${where} lists it`, `${zh}中的 ${flags.node}`]
    : [`all that ${where} lists`, `${zh}中列出的全部节点`]
  run.nodes = [{ ...usual, name: flags.node ?? '{each_node}', address: '{its_address}' }]
  return await check(
    `which nodes: ${which}`,
    `节点：${whichZh}`,
    async () => {
      const all = list?.map((each) => ({ ...usual, ...each })) ?? (await nodesOfCluster(settings))
      const names = all.map(({ name }) => name)
      const nodes = flags.node ? all.filter(({ name }) => name === flags.node) : all
      if (nodes.length === 0) throw notListed(names, where, zh)
      for (const { name, address, runtime } of nodes) report(`  ${name} (${address}): ${runtime}`)
      note({ event: 'nodes', nodes })
      if (list && !flags.node) await compareWithCluster(names)
      for (const { name, identityFile } of nodes) refuseMissingKey(name, identityFile)
      run.nodes = all
      return nodes
    },
    run.nodes,
  )
})

function notListed(names: string[], where: string, zh: string) {
  const { node } = thisRun().inputs.flags
  if (!node) return missing(`${where} does not list any node`, `${zh}中没有节点`)
  const guess = didYouMean(node, names)
  return missing`
    ${where} does not list the node ${node}; it has: ${names.join(', ')}.${guess.en}
    ${zh}中没有节点 ${node}，现有：${names.join('、')}。${guess.zh}`
}

/** Says where the site file lists other nodes than the cluster: pods of one that was forgotten would hang. */
async function compareWithCluster(listed: string[]) {
  const { exitCode, stdout } = await ask('kubectl get nodes -o name --request-timeout=10s')
  if (exitCode !== 0) {
    report(
      'NOTE · 注意: could not ask the cluster whether these are all of its nodes\n  无法查询集群，未核对以上是否为全部节点',
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
      `NOTE · 注意: the site file lists nodes that are not in the cluster: ${unknown.join(', ')}\n  站点配置中的以下节点不在集群中：${unknown.join('、')}`,
    )
}

/** @throws Failure 78 */
function refuseMissingKey(name: string, identityFile?: string) {
  const path = identityFile?.replace(/^~(?=\/)/, homedir())
  if (path === undefined || existsSync(path)) return
  throw misconfigured`
    the identityFile ${path} (for ${name}) does not exist
    identityFile ${path}（${name}）不存在`.next(
    'correct nodes in the site file',
    '请修正站点配置中的 nodes',
  )
}

/**
 * What a kubelet says of its node is not believed: names and addresses come into commands.
 * @throws Failure as `answer` does, and 78 for a malformed name or address
 */
async function nodesOfCluster(settings: NodeSettings): Promise<Node[]> {
  const { items } = JSON.parse(await answer('kubectl get nodes -o json --request-timeout=20s'))
  const linux = items.filter(({ status }: any) => status.nodeInfo.operatingSystem === 'linux')
  return linux.map(({ metadata, status }: any): Node => {
    const { name } = metadata
    const found = status.addresses?.find(({ type }: any) => type === 'InternalIP')
    const address: string = found?.address ?? name
    if (!/^[a-z0-9][a-z0-9.-]*$/.test(name) || !/^[A-Za-z0-9.:-]+$/.test(address)) {
      const [shownName, shownAddress] = [JSON.stringify(name), JSON.stringify(address)]
      throw misconfigured`
        the node ${shownName} of the cluster has a malformed name or address: ${shownAddress}
        集群中节点 ${shownName} 的名称或地址无效：${shownAddress}`
    }
    const runtime: string = status.nodeInfo.containerRuntimeVersion
    return { ...settings, name, address, runtime: runtime.split(':')[0] as Runtime }
  })
}
