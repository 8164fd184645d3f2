import { commandFailed, EXIT, Failure } from '../base/failure.ts'
import { writeWhole } from '../base/files.ts'
import { lines, quote, type ShellLines } from '../base/shell.ts'
import { megabytes } from '../bundle/content.ts'
import { tarOf } from '../bundle/tar.ts'
import { imagePlace } from '../inputs/site.ts'
import { type StepName } from '../manual/ledger.ts'
import { onFailureDescribe } from '../run/ask.ts'
import { run } from '../run/command.ts'
import { asScript, needed, settleDebt, word } from '../run/order.ts'
import { report, thisRun } from '../run/session.ts'
import { check, say } from '../run/words.ts'
import { dockerArchive, ociArchive } from './archive.ts'
import { askNode, contentAfter, noteContent, targetReference } from './content.ts'
import { nodesThat } from './each-node.ts'
import { importsOf, removeArchive, setImports, workFile } from './leases.ts'
import { type Node, type Runtime } from './nodes.ts'
import { debtOf, missingLayers, type Plan, planOf } from './plan.ts'
import { alone } from './ssh.ts'

declare module './nodes.ts' {
  interface Node {
    /** while one is at work or has failed: the records of imports before it */
    importsBefore?: number[]
  }
}

/** Does the lines of a script for each node, as `nodesThat` does. */
export const onEachNode = word(
  'onEachNode',
  async (nodes: Node[], work: (node: Node) => Promise<void>): Promise<void> => {
    await nodesThat(nodes, async (node) => {
      await loadOn(node, () => asScript(() => work(node)))
      return true
    })
  },
)

/**
 * What was there when the node was asked may be gone when it is needed (`content digest … not found`; so
 * too once after an import that was killed): then all is done once more, with what it lacks now.
 */
async function loadOn(node: Node, work: () => Promise<void>, isLastTime = false): Promise<void> {
  try {
    return await work()
  } catch (failure) {
    if (!(failure instanceof Failure) || !node.importsBefore) throw failure
    const isLost = /content digest sha256:\w+: not found/.test(failure.details.said ?? '')
    // another loader is at work: what it leaves is not ours
    if (failure.exitCode === EXIT.tryLater) endImport(node)
    if (!isLost || isLastTime) throw failure
  } finally {
    if (node.importsBefore) removeArchive(node)
  }
  report('  content disappeared from the node; asking it again · 节点内容已变化，重新查询后再试')
  node.plan!.askedAt = 0
  await loadOn(node, work, true)
}

/** The import of this run has ended, and left nothing behind. */
function endImport(node: Node) {
  if (!node.importsBefore) return
  setImports(node, node.importsBefore)
  removeArchive(node)
  node.importsBefore = undefined
}

/** Does the node run Docker, or containerd? In a dry run both; the remark above a command says for which. */
export const runs = word('runs', (node: Node, runtime: Runtime): boolean => {
  node.plan?.askedFor.add(runtime)
  if (!thisRun().dryRun && node.runtime !== runtime) return false
  const name = { docker: 'Docker', containerd: 'containerd' }[runtime]
  say(`where the node runs ${name}`, `若节点使用 ${name}`)
  return true
})

/** @throws Failure 70 where a word is called below another step's heading: the audit would say the wrong one */
function refuseElsewhere(step: StepName, called: string) {
  needed(thisRun().step.name === step || undefined, `step('${step}')`, called)
}

/**
 * Writes which parts of the bundle the node lacks: `load/$node.tar` is the begin of an archive, with the
 * images' manifests, and `load/$node.parts` says which bytes of the bundle follow it (offset and size of
 * each configuration and layer, as they are in it). They are removed when the node is done.
 *
 * An import of containerd that is killed leaves a lease, which keeps what it has transferred for 24
 * hours: when an import begins is written down, so that the next run can tell its lease from those of
 * others.
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
      const begin = Math.floor(Date.now() / 1000 + plan.content.clockAhead)
      setImports(node, [...importsOf(node), begin])
      onFailureDescribe(async () => ({
        state: stateOf(planOf(bundle, node, await askNode(node, bundle))),
      }))
    },
  )
  plan.isCut = true
})

function writeParts(plan: Plan) {
  const { bundle, node, load } = plan
  const layers = missingLayers(plan)
  const bytes = layers.reduce((sum, { size }) => sum + size, 0)
  // an image that has two names has one configuration
  const members = [...new Set([...load.map(({ config }) => config), ...layers])]
  const parts = members
    .map(({ entry }) => entry)
    .sort((one, other) => one.offset - other.offset)
    .map(({ offset, size }) => `${offset} ${size}\n`)
  const files = node.runtime === 'docker' ? dockerArchive(load) : ociArchive(load, bundle)
  writeWhole(workFile(node, 'tar'), tarOf(files))
  writeWhole(workFile(node, 'parts'), parts.join(''))
  const [of, all] = [load.length, bundle.images.length]
  report(
    `  ${of} of ${all} images, ${megabytes(bytes)} of ${megabytes(bundle.bytes)} · 传输 ${of}/${all} 个镜像`,
  )
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
  const runtimes = ['docker', 'containerd'] as const
  for (const runtime of load.length > 0 ? runtimes : [])
    needed(plan.askedFor.has(runtime) || undefined, `runs(node, '${runtime}')`, 'tagImages(plan)')
  endImport(node)
  const place = imagePlace(thisRun().inputs)
  const listing = {
    docker: `docker image ls --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}' --filter reference=${quote(`${place}/*`)}`,
    containerd: `ctr -n k8s.io image check ${quote(`name~="^${place}/"`)} || true`,
  }
  for (const runtime of runtimes) {
    if (!runs(node, runtime)) continue
    const said = await run`
${alone(node)} bash -e -s << 'EOF'
${tagCommands(runtime, plan)}
${lines(listing[runtime])}
EOF`
    await checkLoaded(plan, said)
  }
  settleDebt(debtOf(bundle, node))
})

/** The commands that give the images their names of this site, one a line. */
function tagCommands(runtime: Runtime, { tag }: Plan): ShellLines {
  const word = thisRun().dryRun ? String : quote
  const command = runtime === 'docker' ? 'docker tag' : 'ctr -n k8s.io image tag --force'
  const commands = tag
    .filter((image) => image.source !== targetReference(image))
    .map((image) => `${command} ${word(image.source)} ${word(targetReference(image))}`)
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
      if (now.tag.length === 0) return report(`  ${all} of ${all} images are there · 均已就绪`)
      throw commandFailed`
        the commands ended with 0, but these images are not right:
        命令退出码为 0，但以下镜像不正确：`
        .items(
          now.tag.map((image) => {
            const reference = targetReference(image)
            const { id } = content.images.get(reference) ?? {}
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
