import { closeSync } from 'node:fs'
import { EXIT, Failure } from '../base/failure.ts'
import { lock } from '../base/locks.ts'
import { asScript, needed, owe, settleDebt, word } from '../run/order.ts'
import { endingFailure, inPart, report, result, settle, thisRun } from '../run/session.ts'
import { exportVariable } from '../run/variables.ts'
import { type Node } from './nodes.ts'
import { meaningOf } from './tool-words.ts'

declare module './nodes.ts' {
  interface Node {
    /** what went wrong: it is left out of what comes after */
    failure?: Failure
    /** the descriptor of its lock */
    lock?: number
    /** did `onEachNode` come by? */
    wasReached?: boolean
    /** gets the failure of the work there; where it says something, the work is done once more */
    tryAgain?: (failure: unknown) => string | undefined
    /** is done when the work there has ended, well or not */
    cleanUp?: () => void
  }
}

/**
 * Does the lines of a script for each node, as many at once as --parallel says, and sets `$node`. A node
 * that fails is told at the end (`tellBadNodes`); the others go on. A dry run does it once.
 * @throws Failure 128+n after a signal · 70
 */
export const onEachNode = word(
  'onEachNode',
  async (nodes: Node[], work: (node: Node) => Promise<void>): Promise<void> => {
    await nodesThat(nodes, (node) =>
      asScript(async () => {
        await work(node)
        return true
      }),
    )
  },
)

/**
 * The same for lines of a word.
 * @returns the nodes for which the work gave true
 */
export async function nodesThat(
  nodes: Node[],
  work: (node: Node) => Promise<boolean>,
): Promise<Node[]> {
  const { dryRun, inputs, variables } = thisRun()
  owe('tellBadNodes(nodes)')
  for (const node of nodes) node.wasReached = true
  if (dryRun) {
    const [node] = nodes
    if (node && variables['node'] !== node.name) exportVariable('node', node.name)
    return node && (await work(node)) ? nodes : []
  }
  const chosen = new Set<Node>()
  const good = nodes.filter(({ failure }) => !failure)
  await atOnce(inputs.flags.parallel, good, (node) =>
    inPart(node.name, async () => {
      thisRun().variables['node'] = node.name
      try {
        if (await workOn(node, work)) chosen.add(node)
      } catch (failure) {
        if (!(failure instanceof Failure) || failure.exitCode === EXIT.bug) throw failure
        settle(failure, thisRun())
        node.failure = meaningOf(node, failure)
        report(`FAILED · 失败: ${node.failure.text('en')}`)
      } finally {
        unlockNode(node)
      }
    }),
  )
  if (endingFailure()) throw failureOf(nodes)
  return nodes.filter((node) => chosen.has(node))
}

async function workOn(
  node: Node,
  work: (node: Node) => Promise<boolean>,
  isLastTime = false,
): Promise<boolean> {
  try {
    return await work(node)
  } catch (failure) {
    const why = node.tryAgain?.(failure)
    if (isLastTime || !why) throw failure
    report(why)
    return await workOn(node, work, true)
  } finally {
    node.cleanUp?.()
  }
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

/** @throws Failure 75 where another script of this machine loads images there; it names the holder */
export function lockNode(node: Node) {
  if (node.lock !== undefined) return
  const { locks, inputs } = thisRun()
  const target = `loading on ${node.name} (${node.address ?? 'here'})`
  const holder = { script: inputs.script, module: inputs.module.name }
  node.lock = lock(target, holder)
  locks.push(node.lock)
}

function unlockNode(node: Node) {
  if (node.lock !== undefined) closeSync(node.lock)
  node.lock = undefined
}

/** Bundles of the directory that were not taken; `tellBadBundles` comes after `tellBadNodes`. */
const badBundles = (): Failure[] => thisRun().badBundles ?? []

/**
 * Ends a run in which a node failed; the others are done.
 * @throws Failure with the node's exit code; where nodes failed in different ways, with that of the
 *   first which a retry does not cure
 */
export const tellBadNodes = word('tellBadNodes', async (nodes: Node[]) => {
  settleDebt('tellBadNodes(nodes)')
  const failed = nodes.filter(({ failure }) => failure)
  result({
    nodes: nodes.map(({ name, failure }) => ({ name, failure: failure?.text('en') ?? null })),
  })
  if (failed.length > 0) throw failureOf(nodes)
  if (badBundles().length > 0) return // told next
  const isReached = nodes.every(({ wasReached }) => wasReached) || undefined
  needed(isReached, 'onEachNode(nodes, …)', 'tellBadNodes(nodes)')
  const all = nodes.length
  report(`${all} of ${all} nodes have every image · ${all} 个节点均已具备全部镜像`)
})

type Both = [en: string, zh: string]
const AGAIN: Both = [
  'run the same command again; what is already there is skipped',
  '重新执行同一命令，已就绪的内容会自动跳过',
]

/** The failures of the nodes as one. */
function failureOf(nodes: Node[]): Failure {
  const bad = nodes.flatMap(({ name, failure }) => (failure ? [{ name, failure }] : []))
  const all = [...bad.map(({ failure }) => failure), ...badBundles()]
  /** what each node's failure says, one below the other, behind the name of the node */
  const each = (text: (failure: Failure) => string | undefined) =>
    bad.flatMap(({ name, failure }) => {
      const said = text(failure)?.trim()
      return said ? [said.replace(/^/gm, `${name}: `)] : []
    })
  const both = (text: (lang: 0 | 1) => string[]): Both => [text(0).join('\n'), text(1).join('\n')]
  const states = (lang: 0 | 1) => each(({ details }) => details.state?.[lang])
  const [of, done] = [nodes.length, nodes.length - bad.length]
  const interruption = endingFailure()
  const mayPass: number[] = [EXIT.unreachable, EXIT.tryLater]
  const first = all.find(({ exitCode }) => !mayPass.includes(exitCode)) ?? all[0]
  const sentence = (lang: 'en' | 'zh', header: string) =>
    [header, ...each((failure) => failure[lang]), ...badBundles().map((bad) => bad[lang])].join(
      '\n',
    )
  const told = interruption
    ? new Failure(interruption.exitCode, interruption.en, interruption.zh).next(...AGAIN)
    : new Failure(
        first!.exitCode,
        sentence('en', `${bad.length} of ${of} nodes failed:`),
        sentence('zh', `${of} 个节点中有 ${bad.length} 个失败：`),
      ).items([
        ...each(({ details }) => details.items?.join('\n')),
        ...badBundles().flatMap(({ details }) => details.items ?? []),
      ])
  if (!interruption) {
    const summary = [
      `${done} of ${of} nodes have every image`,
      `${of} 个节点中有 ${done} 个已具备全部镜像`,
    ]
    const cause = ['fix the cause and ', '请排除原因后']
    told.state(...both((lang) => [...states(lang), summary[lang]!]))
    told.next(
      ...both((lang) => [
        ...each(({ details }) => details.next?.[lang]),
        `${cause[lang]}${AGAIN[lang]}`,
      ]),
    )
  } else if (bad.length > 0) told.state(...both(states))
  if (first) told.step = first.step
  told.details.command = each(({ details }) => lineOf(details.command)).join('\n')
  return told.said(each(({ details }) => details.said).join('\n'))
}

/** The line of a command that is run on the node. */
function lineOf(command = ''): string | undefined {
  const lines = command.trim().split('\n')
  return (lines.find((line) => /\bflock\b|\bbash -s\b/.test(line)) ?? lines[0])?.trim()
}
