import { existsSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type Bundle, type BundleImage } from '../bundle/structure.ts'
import { megabytes, readAhead, setSource } from '../bundle/of-this-run.ts'
import { EXIT, Failure, UNCHANGED } from '../base/failure.ts'
import { writeWhole } from '../base/files.ts'
import {
  askNode,
  contentAfter,
  manifestOf,
  noteContent,
  targetReference,
  unpackedSize,
  type NodeContent,
} from './content.ts'
import { imagePlace } from '../inputs/inputs.ts'
import { lockNode, onEachNode, type Node } from './nodes.ts'
import { aloneOnNode } from './ssh.ts'
import { check, onFailureDescribe, report, run } from '../run/words.ts'
import { lastTimeDone, thisRun } from '../run/session.ts'
import { quote, shellLines, type ShellLines } from '../base/shell.ts'
import { tarOf, type Member } from '../bundle/tar.ts'

/** What a node needs of a bundle. */
interface Plan {
  content: NodeContent
  /** when the node was asked, in milliseconds since 1970 */
  askedAt: number
  /** images that are not there, or not whole */
  load: BundleImage[]
  /** images that have not their name of this site */
  tag: BundleImage[]
  /** names that stand for another image */
  different: { reference: string; found: string; wanted: string }[]
}

const plans = new Map<Node, Plan>()

/** What is to do on a node that has this. */
function planOf(bundle: Bundle, content: NodeContent): Plan {
  const { usable, ids } = content
  const isRight = (reference: string, { id }: BundleImage) => usable.get(reference) === id
  const tag = bundle.images.filter((image) => !isRight(targetReference(image), image))
  const load = tag.filter((image) => !isRight(image.source, image))
  const different = [
    ...tag.map((image) => ({ reference: targetReference(image), image })),
    ...load.map((image) => ({ reference: image.source, image })),
  ].flatMap(({ reference, image }) => {
    const found = ids.get(reference)
    return found && found !== image.id ? [{ reference, found, wanted: image.id }] : []
  })
  return { content, askedAt: Date.now(), load, tag, different }
}

/**
 * Asks each node what it has of a bundle.
 * @returns the nodes that lack something; those that can't be asked are told at the end
 */
export async function nodesThatLack(
  bundle: Bundle | undefined,
  nodes: (Node | undefined)[],
): Promise<(Node | undefined)[]> {
  // where the last run loaded this very file, there will be nothing to do
  const isNew = bundle && statSync(bundle.file).mtimeMs > lastTimeDone()
  const endReading = isNew && readAhead(bundle)
  const lacking = await onEachNode(nodes, async (node) => {
    const lacks = await check(
      'only where the node has not every image of the bundle: its image ID under its name, complete and unpacked',
      '仅当节点缺少离线包中的镜像时执行：按名称比较镜像 ID，且内容完整并已解包',
      async () => {
        // of an import that was interrupted, or is at work right now
        if (existsSync(importsFile(node!))) await lockNode(node)
        const plan = await makePlan(bundle!, node!, 'before')
        const { images } = bundle!
        const there = images.length - plan.tag.length
        const done = plan.tag.length === 0
        report(
          `  ${there} of ${images.length} images are there` +
            (done ? ': nothing to do · 均已就绪，无需加载' : ` · 已就绪 ${there}/${images.length}`),
        )
        if (!done) refuseUnfit(plan, bundle!)
        return !done
      },
    )
    return lacks ?? true
  })
  if (endReading && lacking.length === 0) endReading()
  return lacking
}

/** Asks a node, cleans up after an import that was interrupted there, and plans what is to do. */
async function makePlan(bundle: Bundle, node: Node, when: 'before' | 'again'): Promise<Plan> {
  let content = await askNode(node, bundle)
  if (when === 'before' && (await removeLeases(content, node)))
    content = await askNode(node, bundle)
  noteContent(content, bundle, node, when)
  const plan = planOf(bundle, content)
  plans.set(node, plan)
  return plan
}

/** Seconds after which an answer of a node is old: tags, layers and room on its disk may have changed. */
const FRESH = 5

/**
 * Takes the node for this run; what it said some time ago, before other nodes were loaded, is asked
 * again.
 * @throws Failure 75 somebody else loads images there · 78, 73 as before
 */
export async function takeNode(bundle: Bundle | undefined, node: Node | undefined) {
  if (!node || !bundle) return
  await lockNode(node)
  if (Date.now() - plans.get(node)!.askedAt < FRESH * 1000) return
  refuseUnfit(await makePlan(bundle, node, 'again'), bundle)
}

/** The layers of these images that a node has not, each once. */
const missingLayers = (images: BundleImage[], { hasLayer }: NodeContent): Member[] => [
  ...new Set(images.flatMap((image) => image.layers.filter((_, index) => !hasLayer(image, index)))),
]

/** @throws Failure 78 where a name stands for another image · 73 where the disk has no room */
function refuseUnfit({ different, content, load }: Plan, bundle: Bundle) {
  if (different.length > 0 && !thisRun().inputs.flags['replace-tags']) {
    const list = different.map(
      ({ reference, found, wanted }) => `${reference}  is ${found}, in the bundle ${wanted}`,
    )
    throw new Failure(
      EXIT.configuration,
      `another image stands under a name that the bundle has:\n${list.join('\n')}`,
      '以上名称在该节点上已存在，但内容与离线包不同',
      {
        state: UNCHANGED,
        next: [
          'find out who put it there: a running workload may use it. To put the image of the bundle in its place: --replace-tags',
          '请先确认其来源，正在运行的工作负载可能在使用它。如需替换为离线包中的镜像：--replace-tags',
        ],
      },
    )
  }
  const layers = missingLayers(load, content)
  const needed = layers.reduce(
    (sum, layer) => sum + layer.size + unpackedSize(bundle.file, layer),
    0,
  )
  const { root, free, size } = content
  if (needed > free) {
    throw new Failure(
      EXIT.cannotWrite,
      `${root} has ${megabytes(free)} free; the images take up to ${megabytes(needed)}, packed and unpacked`,
      `${root} 剩余 ${megabytes(free)}，而镜像（压缩与解包后）最多需要 ${megabytes(needed)}`,
      { state: UNCHANGED, next: [`make room in ${root}`, `请清理 ${root} 所在磁盘`] },
    )
  }
  // the kubelet's default: imageGCHighThresholdPercent
  if (size > 0 && (size - free + needed) / size > 0.85) {
    report(
      `NOTE · 注意: the disk of ${root} will be more than 85 % full: the kubelet then removes images that no pod uses yet. Make room, or upgrade soon\n` +
        `  ${root} 所在磁盘使用率将超过 85%，kubelet 会清理未被使用的镜像。请清理磁盘，或尽快升级`,
    )
  }
}

const workDirectory = () => join(thisRun().inputs.stateDirectory, 'load')

/**
 * Sets `$source`, the bundle's file, and writes which parts of it the node lacks: `load/$node.tar` is
 * the begin of an archive, with the images' manifests, and `load/$node.parts` says which bytes of the
 * bundle follow it (offset and size of each configuration and layer, as they stand in it).
 */
export async function setParts(bundle: Bundle | undefined, node: Node | undefined) {
  await setSource(bundle)
  await check(
    'load/$node.tar and load/$node.parts: what the node lacks, as the begin of an archive, and the bytes of the bundle that follow it; layers that the node has are left out',
    'load/$node.tar 与 load/$node.parts：节点缺少的内容，即归档文件的开头及其后来自离线包的字节；节点已有的层不再传输',
    async () => writeParts(bundle!, node!),
  )
}

function writeParts(bundle: Bundle, node: Node) {
  const { load, content } = plans.get(node)!
  const layers = missingLayers(load, content)
  const bytes = layers.reduce((sum, { size }) => sum + size, 0)
  // an image that has two names has one configuration
  const members = new Set([...load.map(({ config }) => config), ...layers])
  const regions = [...members].map(({ entry }) => entry)
  regions.sort((one, other) => one.offset - other.offset)
  const file = join(workDirectory(), node.name)
  const files = node.runtime === 'docker' ? dockerArchive(load) : ociArchive(load, bundle)
  writeWhole(`${file}.tar`, tarOf(files))
  writeWhole(`${file}.parts`, regions.map(({ offset, size }) => `${offset} ${size}\n`).join(''))
  const [of, all] = [load.length, bundle.images.length]
  report(
    `  ${of} of ${all} images, ${megabytes(bytes)} of ${megabytes(bundle.bytes)} · 传输 ${of}/${all} 个镜像`,
  )
  onFailureDescribe(async () => describe(await askNode(node, bundle), bundle, node))
}

/** What `docker load` looks for besides configurations and layers; a layer that it has may be missing. */
const dockerArchive = (images: BundleImage[]) => ({
  'manifest.json': JSON.stringify(
    images.map(({ config, source, layers }) => ({
      Config: config.name,
      RepoTags: [source],
      Layers: layers.map(({ name }) => name),
    })),
  ),
})

/**
 * An OCI layout: containerd takes each further file for a blob, whatever it is called, and looks for
 * what is missing in its own content (containerd 1.6 images/archive/importer.go). A docker-archive must
 * hold every layer.
 */
function ociArchive(images: BundleImage[], bundle: Bundle): Record<string, string> {
  const manifests = images.map((image) => ({ image, ...manifestOf(image, bundle) }))
  return {
    'oci-layout': '{"imageLayoutVersion":"1.0.0"}',
    'index.json': JSON.stringify({
      schemaVersion: 2,
      manifests: manifests.map(({ image, mediaType, digest, text }) => ({
        mediaType,
        digest,
        size: text.length,
        annotations: { 'io.containerd.image.name': image.source },
      })),
    }),
    ...Object.fromEntries(
      manifests.map(({ digest, text }) => [`blobs/${digest.replace(':', '/')}`, text]),
    ),
  }
}

/** Are there images to load, or only names to give? A dry run goes on as if there were. */
export function mustLoad(node: Node | undefined): boolean {
  return !node || plans.get(node)!.load.length > 0
}

/**
 * Loads, and leaves nothing behind. An import of containerd that is killed leaves a lease, which keeps
 * what it has transferred for 24 hours: when an import begins is written down, so that the next run can
 * tell its lease from those of others. And what was there when the node was asked may be gone when it
 * is needed (`content digest … not found`; so too once after an import that was killed): then the node
 * is asked again, and gets what it lacks now.
 */
export async function withoutLeftovers(
  bundle: Bundle | undefined,
  node: Node | undefined,
  load: () => Promise<unknown>,
): Promise<void> {
  if (!node || !bundle) return void (await load())
  const before = importsOf(node)
  try {
    noteImport(node)
    await load().catch(async (failure: unknown) => {
      const said = failure instanceof Failure ? failure.details.said : undefined
      if (!/content digest sha256:\w+: not found/.test(said ?? '')) throw failure
      report(
        '  something that was there has gone: the node is asked again · 节点内容已变化，重新查询后再试',
      )
      await makePlan(bundle, node, 'again')
      writeParts(bundle, node)
      noteImport(node)
      return load()
    })
    setImports(node, before)
  } catch (failure) {
    // another loader is at work: what it leaves is not ours
    if (failure instanceof Failure && failure.exitCode === EXIT.tryLater) setImports(node, before)
    throw failure
  } finally {
    removeArchive(node)
  }
}

/** When imports began that have not ended well, in seconds since 1970 on the node's clock. */
const importsFile = ({ name }: Node) => join(workDirectory(), `${name}.imports`)

function importsOf(node: Node): number[] {
  const file = importsFile(node)
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : []
}

function setImports(node: Node, begins: number[]) {
  if (begins.length > 0) writeWhole(importsFile(node), JSON.stringify(begins))
  else rmSync(importsFile(node), { force: true })
}

function noteImport(node: Node) {
  const { clockAhead } = plans.get(node)!.content
  setImports(node, [...importsOf(node), Math.floor(Date.now() / 1000 + clockAhead)])
}

/**
 * Removes the leases of imports that were interrupted: ctr makes one when it begins.
 * @returns whether there were some
 */
async function removeLeases({ leases }: NodeContent, node: Node): Promise<boolean> {
  const begins = importsOf(node)
  if (begins.length === 0) return false
  const ours = leases.filter(({ created }) =>
    begins.some((begin) => created >= begin - 2 && created <= begin + 15),
  )
  if (ours.length > 0) {
    report(
      '  an import was interrupted here: its leases are removed · 上次导入被中断，清理其 lease',
    )
    await run`
${aloneOnNode(node)} ctr -n k8s.io leases rm --sync ${shellLines(ours.map(({ id }) => quote(id)).join(' '))}`
  }
  setImports(node, [])
  removeArchive(node)
  return ours.length > 0
}

const removeArchive = ({ name }: Node) => {
  for (const part of ['tar', 'parts'])
    rmSync(join(workDirectory(), `${name}.${part}`), { force: true })
}

/**
 * The commands that give the images their names of this site, one a line.
 * @param tag the command, without source and target
 */
export function tagCommands(tag: string, node: Node | undefined): ShellLines {
  const images = node
    ? plans.get(node)!.tag.map((image) => [quote(image.source), quote(targetReference(image))])
    : [['{name_in_the_bundle}', `${imagePlace(thisRun().inputs)}/{name}:{tag}`]]
  const lines = images
    .filter(([source, target]) => source !== target)
    .map(([source, target]) => `${tag} ${source} ${target}`)
  return shellLines([...new Set(lines)].join('\n'))
}

/**
 * Has the node every image now? That the commands ended with 0 is no proof.
 * @param said what `ctr image check` or `docker image ls` said
 * @throws Failure 1 naming those that it has not
 */
export async function checkLoaded(
  bundle: Bundle | undefined,
  node: Node | undefined,
  said: string,
) {
  await check(
    'check: the node has every image of the bundle, under its name, with the image ID of the bundle, complete and unpacked',
    '检查：节点上已有离线包的全部镜像，名称与镜像 ID 一致，内容完整且已解包',
    async () => {
      const content = contentAfter(said, node!, plans.get(node!)!.content)
      noteContent(content, bundle!, node!, 'after')
      const { tag } = planOf(bundle!, content)
      if (tag.length === 0) {
        report(`  ${bundle!.images.length} of ${bundle!.images.length} images are there · 均已就绪`)
        return
      }
      const lines = tag.map((image) => {
        const reference = targetReference(image)
        const id = content.ids.get(reference)
        const what = !id ? 'missing' : id === image.id ? 'not complete' : `another image, ${id}`
        return `${reference}: ${what}`
      })
      throw new Failure(
        EXIT.commandFailed,
        `the commands ended with 0, but not every image is right:\n${lines.join('\n')}`,
        '命令退出码为 0，但以上镜像不正确',
        describe(content, bundle!, node!),
      )
    },
  )
}

/** What a node has now, for a failure. */
function describe(content: NodeContent, bundle: Bundle, node: Node) {
  const { tag } = planOf(bundle, content)
  const all = bundle.images.length
  const state: [string, string] = [
    `${all - tag.length} of ${all} images are right on ${node.name}`,
    `${node.name} 上 ${all} 个镜像中有 ${all - tag.length} 个已就绪`,
  ]
  return { state }
}
