import { commandFailed, EXIT, Failure } from '../base/failure.ts'
import { writeWhole } from '../base/files.ts'
import { lines, quote, type ShellLines } from '../base/shell.ts'
import { megabytes } from '../bundle/content.ts'
import { tarOf } from '../bundle/tar.ts'
import { imagePlace } from '../inputs/site.ts'
import { type StepName } from '../manual/ledger.ts'
import { onFailureDescribe } from '../run/ask.ts'
import { run } from '../run/command.ts'
import { needed, settleDebt, word } from '../run/order.ts'
import { report, thisRun } from '../run/session.ts'
import { check } from '../run/words.ts'
import { dockerArchive, ociArchive } from './archive.ts'
import { askNode, contentAfter, noteContent, targetReference } from './content.ts'
import { importsOf, noteImport, removeArchive, setImports, workFile } from './leases.ts'
import { type Node, runs } from './nodes.ts'
import { debtOf, missingLayers, type Plan, planOf } from './plan.ts'
import { alone } from './ssh.ts'

declare module './nodes.ts' {
  interface Node {
    /** the records of imports, before that of this run */
    importsBefore?: number[]
  }
}

/** @throws Failure 70 where a word is called below another step's heading: the audit would say the wrong one */
function refuseElsewhere(step: StepName, called: string) {
  needed(thisRun().step.name === step || undefined, `step('${step}')`, called)
}

/**
 * Writes which parts of the bundle the node lacks: `load/$node.tar` is the begin of an archive, with the
 * images' manifests, and `load/$node.parts` says which bytes of the bundle follow it (offset and size of
 * each configuration and layer, as they are in it). They are removed when the node is done.
 *
 * What was there when the node was asked may be gone when it is needed (`content digest … not found`; so
 * too once after an import that was killed): then all is done once more, with what it lacks now. An
 * import of containerd that is killed leaves a lease, which keeps what it has transferred for 24 hours:
 * when an import begins is written down, so that the next run can tell its lease from those of others.
 */
export const cutImages = word('cutImages', async (plan: Plan) => {
  refuseElsewhere('unpack-bundle', 'cutImages(plan)')
  const { bundle, node } = plan
  await check(
    'load/$node.tar and load/$node.parts: what the node lacks, as the begin of an archive, and the bytes of the bundle that follow it; layers that the node has are left out',
    'load/$node.tar 与 load/$node.parts：节点缺少的内容，即归档文件的开头及其后来自离线包的字节；节点已有的层不再传输',
    async () => {
      writeParts(plan)
      node.importsBefore ??= importsOf(node)
      noteImport(node, plan.content)
      node.tryAgain = (failure) => failedToLoad(plan, failure)
      node.cleanUp = () => {
        removeArchive(node)
        node.importsBefore = node.tryAgain = node.cleanUp = undefined
      }
      onFailureDescribe(async () => {
        const now = planOf(bundle, node, await askNode(node, bundle))
        return { state: stateOf(now) }
      })
    },
  )
  plan.isCut = true
})

function writeParts(plan: Plan) {
  const { bundle, node, load } = plan
  const layers = missingLayers(plan)
  const bytes = layers.reduce((sum, { size }) => sum + size, 0)
  // an image that has two names has one configuration
  const members = new Set([...load.map(({ config }) => config), ...layers])
  const regions = [...members].map(({ entry }) => entry)
  regions.sort((one, other) => one.offset - other.offset)
  const files = node.runtime === 'docker' ? dockerArchive(load) : ociArchive(load, bundle)
  writeWhole(workFile(node, 'tar'), tarOf(files))
  writeWhole(
    workFile(node, 'parts'),
    regions.map(({ offset, size }) => `${offset} ${size}\n`).join(''),
  )
  const [of, all] = [load.length, bundle.images.length]
  report(
    `  ${of} of ${all} images, ${megabytes(bytes)} of ${megabytes(bundle.bytes)} · 传输 ${of}/${all} 个镜像`,
  )
}

/** Loading has failed. @returns what is said where it is tried once more */
function failedToLoad(plan: Plan, failure: unknown): string | undefined {
  if (!(failure instanceof Failure)) return
  // another loader is at work: what it leaves is not ours
  if (failure.exitCode === EXIT.tryLater) hasLoaded(plan.node)
  if (!/content digest sha256:\w+: not found/.test(failure.details.said ?? '')) return
  plan.askedAt = 0
  return '  content disappeared from the node; asking it again · 节点内容已变化，重新查询后再试'
}

/** The import of this run has ended, and left nothing behind. */
function hasLoaded(node: Node) {
  if (node.importsBefore) setImports(node, node.importsBefore)
  node.tryAgain = undefined
}

/** The words before the command that loads images on a node: one at a time there, whoever runs it. */
export const aloneOnNode = word('aloneOnNode', (node: Node): ShellLines => {
  refuseElsewhere('load-images', 'aloneOnNode(node)')
  needed(node.plan?.isCut, 'cutImages(plan)', 'aloneOnNode(node)')
  return alone(node)
})

/**
 * Gives the images their names of this site, and checks that the node has every image now.
 * @throws Failure 1 naming those that it has not
 */
export const tagImages = word('tagImages', async (plan: Plan) => {
  refuseElsewhere('tag-images', 'tagImages(plan)')
  const { bundle, node, load } = plan
  for (const runtime of load.length > 0 ? (['docker', 'containerd'] as const) : [])
    needed(node.askedFor?.has(runtime) || undefined, `runs(node, '${runtime}')`, 'tagImages(plan)')
  hasLoaded(node)
  const place = imagePlace(thisRun().inputs)
  if (runs(node, 'docker')) {
    const said = await run`
${alone(node)} bash -e -s << 'EOF'
${tagCommands('docker tag', plan)}
docker image ls --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}' --filter reference=${`${place}/*`}
EOF`
    await checkLoaded(plan, said)
  }
  if (runs(node, 'containerd')) {
    const said = await run`
${alone(node)} bash -e -s << 'EOF'
${tagCommands('ctr -n k8s.io image tag --force', plan)}
ctr -n k8s.io image check ${`name~="^${place}/"`} || true
EOF`
    await checkLoaded(plan, said)
  }
  settleDebt(debtOf(bundle, node))
})

/**
 * The commands that give the images their names of this site, one a line.
 * @param tag the command, without source and target
 */
function tagCommands(tag: string, { tag: images }: Plan): ShellLines {
  const word = thisRun().dryRun ? String : quote
  const commands = images
    .map((image) => [word(image.source), word(targetReference(image))])
    .filter(([source, target]) => source !== target)
    .map(([source, target]) => `${tag} ${source} ${target}`)
  return lines([...new Set(commands)].join('\n'))
}

/**
 * Has the node every image now? That the commands ended with 0 is no proof.
 * @param said what `ctr image check` or `docker image ls` said
 * @throws Failure 1 naming those that it has not
 */
async function checkLoaded({ bundle, node, content: before }: Plan, said: string) {
  await check(
    'check: the node has every image of the bundle, under its name, with the image ID of the bundle, complete and unpacked',
    '检查：节点上已有离线包的全部镜像，名称与镜像 ID 一致，内容完整且已解包',
    async () => {
      const content = contentAfter(said, node, before)
      noteContent(content, bundle, node, 'after')
      const now = planOf(bundle, node, content)
      const all = bundle.images.length
      if (now.tag.length === 0) {
        report(`  ${all} of ${all} images are there · 均已就绪`)
        return
      }
      throw commandFailed`
        the commands ended with 0, but these images are not right:
        命令退出码为 0，但以下镜像不正确：`
        .items(
          now.tag.map((image) => {
            const reference = targetReference(image)
            const id = content.ids.get(reference)
            const what = !id ? 'missing' : id === image.id ? 'not complete' : `another image, ${id}`
            return `${reference}: ${what}`
          }),
        )
        .state(...stateOf(now))
    },
  )
}

/** What a node has now, for a failure. */
function stateOf({ bundle, node, tag }: Plan): [en: string, zh: string] {
  const all = bundle.images.length
  return [
    `${all - tag.length} of ${all} images are right on ${node.name}`,
    `${node.name} 上 ${all} 个镜像中有 ${all - tag.length} 个已就绪`,
  ]
}
