import { closeSync } from 'node:fs'
import { EXIT, Failure } from '../base/failure.ts'
import { lock } from '../base/locks.ts'
import '../bundle/of-this-run.ts'
import { needed, owe, settleDebt, word } from '../run/order.ts'
import { endingFailure, inPart, report, result, settle, thisRun } from '../run/session.ts'
import { exportVariable } from '../run/variables.ts'
import { type Node } from './nodes.ts'
import { meaningOf } from './advice.ts'

declare module './nodes.ts' {
  interface Node {
    /** what went wrong: it is left out of what comes after */
    failure?: Failure
    /** the descriptor of its lock */
    lock?: number
  }
}

/**
 * Works on each node, as many at once as --parallel says, and sets `$node`. A node that fails is told at
 * the end (`tellBadNodes`); the others go on. A dry run does it once.
 * @returns the nodes for which the work gave true
 * @throws Failure 128+n after a signal · 70
 */
export async function nodesThat(
  nodes: Node[],
  work: (node: Node) => Promise<boolean>,
): Promise<Node[]> {
  const { dryRun, inputs, variables } = thisRun()
  owe('tellBadNodes(nodes)')
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
        if (await work(node)) chosen.add(node)
      } catch (failure) {
        if (!(failure instanceof Failure) || failure.exitCode === EXIT.bug) throw failure
        settle(failure, thisRun())
        node.failure = meaningOf(node, failure)
        report(`FAILED · 失败: ${node.failure.text('en')}`)
      } finally {
        if (node.lock !== undefined) closeSync(node.lock)
        node.lock = undefined
      }
    }),
  )
  if (endingFailure()) throw failureOf(nodes)
  return nodes.filter((node) => chosen.has(node))
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
  node.lock = lock(`loading on ${node.name} (${node.address ?? 'here'})`, {
    script: inputs.script,
    module: inputs.module.name,
  })
  locks.push(node.lock)
}

/**
 * Ends a run in which a node failed; the others are done.
 * @throws Failure with the node's exit code; where nodes failed in different ways, with that of the
 *   first which a retry does not cure
 */
export const tellBadNodes = word('tellBadNodes', async (nodes: Node[]) => {
  settleDebt('tellBadNodes(nodes)')
  result({
    nodes: nodes.map(({ name, failure }) => ({ name, failure: failure?.text('en') ?? null })),
  })
  if (nodes.some(({ failure }) => failure)) throw failureOf(nodes)
  if (thisRun().badBundles?.length) return // told next
  const wereAsked = nodes.every(({ plan }) => plan) || undefined
  needed(wereAsked, 'nodesThatLack(bundle, nodes)', 'tellBadNodes(nodes)')
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
  const { badBundles = [] } = thisRun()
  const all = [...bad.map(({ failure }) => failure), ...badBundles]
  const mayPass: number[] = [EXIT.unreachable, EXIT.tryLater]
  const first = all.find(({ exitCode }) => !mayPass.includes(exitCode)) ?? all[0]
  /** what each node's failure says, one below the other, behind the name of the node */
  const each = (text: (failure: Failure) => string | undefined) =>
    bad.flatMap(({ name, failure }) => {
      const said = text(failure)?.trim()
      return said ? [said.replace(/^/gm, `${name}: `)] : []
    })
  const both = (text: (lang: 0 | 1) => string[]): Both => [text(0).join('\n'), text(1).join('\n')]
  const sentence = (lang: 'en' | 'zh', header: string) =>
    [header, ...each((failure) => failure[lang]), ...badBundles.map((bad) => bad[lang])].join('\n')
  const states = (lang: 0 | 1) => each(({ details }) => details.state?.[lang])
  const [of, done] = [nodes.length, nodes.length - bad.length]
  const interruption = endingFailure()
  const told = interruption
    ? new Failure(interruption.exitCode, interruption.en, interruption.zh, {
        state: bad.length > 0 ? both(states) : undefined,
        next: AGAIN,
      })
    : new Failure(
        first!.exitCode,
        sentence('en', `${bad.length} of ${of} nodes failed:`),
        sentence('zh', `${of} 个节点中有 ${bad.length} 个失败：`),
      )
        .items([
          ...each(({ details }) => details.items?.join('\n')),
          ...badBundles.flatMap(({ details }) => details.items ?? []),
        ])
        .state(
          [...states(0), `${done} of ${of} nodes have every image`].join('\n'),
          [...states(1), `${of} 个节点中有 ${done} 个已具备全部镜像`].join('\n'),
        )
        .next(
          ...both((lang) => [
            ...each(({ details }) => details.next?.[lang]),
            ['fix the cause and ', '请排除原因后'][lang] + AGAIN[lang],
          ]),
        )
  if (first) told.step = first.step
  told.details.command = each(({ details }) => lineOf(details.command)).join('\n')
  return told.said(each(({ details }) => details.said).join('\n'))
}

/** The line of a command that is run on the node. */
function lineOf(command = ''): string | undefined {
  const lines = command.trim().split('\n')
  return (lines.find((line) => /\bflock\b|\bbash -s\b/.test(line)) ?? lines[0])?.trim()
}
