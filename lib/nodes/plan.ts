import { statSync } from 'node:fs'
import { cannotWrite, misconfigured, tryLater } from '../base/failure.ts'
import { megabytes, readAhead } from '../bundle/content.ts'
import { type BundleImage } from '../bundle/images.ts'
import { type Bundle } from '../bundle/structure.ts'
import { type Member } from '../bundle/tar.ts'
import { needed, owe, word } from '../run/order.ts'
import { lastTimeDone } from '../run/outcome.ts'
import { report, thisRun } from '../run/session.ts'
import { check } from '../run/words.ts'
import { unpackedSize } from './archive.ts'
import { askNode, type NodeContent, noteContent, targetReference, usableId } from './content.ts'
import { lockNode, nodesThat } from './each-node.ts'
import { importsOf, removeLeases } from './leases.ts'
import { type Node, type Runtime } from './nodes.ts'

/** What a node needs of a bundle. */
export interface Plan {
  bundle: Bundle
  node: Node
  content: NodeContent
  /** when the node was asked, in milliseconds since 1970 */
  askedAt: number
  /** images that are missing, or not whole */
  load: BundleImage[]
  /** images that have not their name of this site */
  tag: BundleImage[]
  /** the runtimes that the script asked for: `runs(node, …)` */
  askedFor: Set<Runtime>
  /** were the files written that `images-for-node` reads? */
  isCut?: true
}

declare module './nodes.ts' {
  interface Node {
    /** the newest */
    plan?: Plan
  }
}

/** What is to do on a node that has this. */
export function planOf(bundle: Bundle, node: Node, content: NodeContent): Plan {
  const tag = bundle.images.filter(
    (image) => usableId(content, targetReference(image)) !== image.id,
  )
  const load = tag.filter((image) => usableId(content, image.source) !== image.id)
  return { bundle, node, content, askedAt: Date.now(), load, tag, askedFor: new Set() }
}

/** Asks a node what it has, and plans what is to do. */
async function makePlan(bundle: Bundle, node: Node, when: 'before' | 'again'): Promise<Plan> {
  const content = await askNode(node, bundle)
  noteContent(content, bundle, node, when)
  return planOf(bundle, node, content)
}

/** In a dry run nothing is asked: a node lacks everything. */
const NOTHING = { images: new Map() } as NodeContent

/**
 * Asks each node what it has of a bundle, and refuses what can't be loaded there.
 * @returns the nodes that lack something; those that can't be asked are told at the end
 */
export const nodesThatLack = word(
  'nodesThatLack',
  async (bundle: Bundle, nodes: Node[]): Promise<Node[]> => {
    // where the last run loaded this very file, there will be nothing to do
    const isNew = !thisRun().dryRun && statSync(bundle.file).mtimeMs > lastTimeDone()
    const endReading = isNew ? readAhead(bundle) : undefined
    const lacking = await nodesThat(nodes, async (node) => {
      node.plan = await check(
        'only where the node has not every image of the bundle: its image ID under its name, complete and unpacked',
        '仅当节点缺少离线包中的镜像时执行：按名称比较镜像 ID，且内容完整并已解包',
        () => firstPlan(bundle, node),
        planOf(bundle, node, NOTHING),
      )
      return node.plan.tag.length > 0
    })
    for (const node of lacking) owe(debtOf(bundle, node))
    if (!lacking.some(mustLoad)) endReading?.()
    return lacking
  },
)

async function firstPlan(bundle: Bundle, node: Node): Promise<Plan> {
  // of an import that was interrupted, or is at work right now
  if (importsOf(node).length > 0) {
    lockNode(node)
    await removeLeases(node, await askNode(node, bundle))
  }
  const plan = await makePlan(bundle, node, 'before')
  const all = bundle.images.length
  const there = all - plan.tag.length
  report(
    `  ${there} of ${all} images are there` +
      (there === all ? ': nothing to do · 均已就绪，无需加载' : ` · 已就绪 ${there}/${all}`),
  )
  if (there < all) refuseUnfit(plan)
  return plan
}

/** What a plan makes necessary. */
export const debtOf = ({ chart, version }: Bundle, { name }: Node) =>
  `tagImages(plan): ${chart} ${version} on ${name}`

/** Are there images to load on a node, or only names to give? */
export const mustLoad = word(
  'mustLoad',
  ({ plan }: Node): boolean =>
    needed(plan, 'nodesThatLack(bundle, nodes)', 'mustLoad(node)').load.length > 0,
)

/** Seconds after which an answer of a node is old: tags, layers and room on its disk may have changed. */
const FRESH = 5

/**
 * Takes the node for this run, and gives the plan of what is to do there; what the node said some time
 * ago, before other nodes were loaded, is asked again.
 * @throws Failure 75 somebody else loads images there · 78, 73 as `nodesThatLack`
 */
export const planFor = word('planFor', async (bundle: Bundle, node: Node): Promise<Plan> => {
  const known = node.plan?.bundle === bundle ? node.plan : undefined
  const plan = needed(known, 'nodesThatLack(bundle, nodes)', 'planFor(bundle, node)')
  if (thisRun().dryRun) return plan
  lockNode(node)
  if (Date.now() - plan.askedAt < FRESH * 1000) return plan
  const fresh = (node.plan = await makePlan(bundle, node, 'again'))
  refuseUnfit(fresh)
  if (fresh.load.length > 0 && !bundle.isRight) {
    throw tryLater`
      images disappeared from the node while it waited for its turn; the bundle was not read for it
      等待期间节点上的镜像被清理，而离线包尚未读取校验`.next(
      'run the same command again',
      '请重新执行同一命令',
    )
  }
  return fresh
})

/** The layers of these images that a node has not, each once. */
export const missingLayers = ({ load, content }: Plan): Member[] => [
  ...new Set(
    load.flatMap((image) => image.layers.filter((_, index) => !content.hasLayer(image, index))),
  ),
]

/** @throws Failure 78 where a name is that of another image · 73 where the disk has no room */
function refuseUnfit(plan: Plan) {
  const { bundle, load, tag, content } = plan
  const names = [
    ...tag.map((image) => ({ ...image, reference: targetReference(image) })),
    ...load.map((image) => ({ ...image, reference: image.source })),
  ]
  const different = names.flatMap(({ reference, id }) => {
    const found = content.images.get(reference)?.id
    return found && found !== id ? [`${reference}  is ${found}, in the bundle ${id}`] : []
  })
  if (different.length > 0 && !thisRun().inputs.flags['replace-tags']) {
    throw misconfigured`
      a different image already has this name:
      以下名称在该节点上已指向其他镜像：`.items(different).next`
    find out who put it there: a running workload may use it. To overwrite it with the image of the bundle: --replace-tags
      请先确认其来源，正在运行的工作负载可能在使用它。如需替换为离线包中的镜像：--replace-tags`
  }
  const bytes = missingLayers(plan).reduce(
    (sum, layer) => sum + layer.size + unpackedSize(bundle.file, layer),
    0,
  )
  const { root, free, size } = content
  if (bytes > free) {
    throw cannotWrite`
      ${root} has ${megabytes(free)} free; the images take up to ${megabytes(bytes)}, packed and unpacked
      ${root} 剩余 ${megabytes(free)}，而镜像（压缩与解包后）最多需要 ${megabytes(bytes)}`.next(
      `make room in ${root}`,
      `请清理 ${root} 所在磁盘`,
    )
  }
  // the kubelet's default: imageGCHighThresholdPercent
  if (size > 0 && (size - free + bytes) / size > 0.85) {
    report(
      `NOTE · 注意: the disk of ${root} will be more than 85 % full: the kubelet then removes images that no pod uses yet. Make room, or upgrade soon\n` +
        `  ${root} 所在磁盘使用率将超过 85%，kubelet 会清理未被使用的镜像。请清理磁盘，或尽快升级`,
    )
  }
}
