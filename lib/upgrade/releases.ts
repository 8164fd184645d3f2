import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import {
  commandFailed,
  EXIT,
  Failure,
  type FailureDetails,
  misconfigured,
  missing,
  tryLater,
} from '../base/failure.ts'
import { ofThisCluster } from '../cluster/cluster.ts'
import { type Release } from '../inputs/types.ts'
import { ask, onFailureDescribe } from '../run/ask.ts'
import { needed, owe, settleDebt, word } from '../run/order.ts'
import { firstTime, note, report, thisRun } from '../run/session.ts'
import { placeholderFor, setVariable } from '../run/variables.ts'
import { check, say } from '../run/words.ts'
import { chartVersion, history, type ReleaseState } from './history.ts'
import { deleteImmutableJobs, hookReasons, rollback, rollbackTarget, whatNext } from './rollback.ts'

declare module '../inputs/types.ts' {
  interface Release {
    /** from checkReleases(): what helm keeps of it, before anything is done */
    before?: ReleaseState
    /** from setLastDeployedRevision(release) */
    revision?: string
  }
}

/**
 * Reads the state of the module's releases. From here on a failure says what became of them.
 * @throws Failure 66 a release does not exist or was never deployed · 75 one is pending: nothing may
 * be done to it until a person has cured it · 64 --install where the release exists
 */
export const checkReleases = word('checkReleases', async () => {
  const { releases, flags, module, stateDirectory } = thisRun().inputs
  for (const { isLocked } of releases) needed(isLocked, 'lockReleases()', 'checkReleases()')
  if (!firstTime('checkReleases: begun')) return
  const names = releases.map(({ release, namespace }) => `${namespace}/${release}`).join(', ')
  const [en, zh] = flags.install
    ? [`check: ${names} does not exist yet`, `检查：${names} 尚不存在`]
    : [
        `check: ${names} is deployed, and no other helm is at work on it`,
        `检查：${names} 已部署，且没有其他 helm 正在操作`,
      ]
  const states = await check(
    en!,
    zh!,
    async () => {
      if (flags.values && !existsSync(resolve(stateDirectory, flags.values))) {
        throw missing`
          the values file ${flags.values} does not exist
          参数文件 ${flags.values} 不存在`
      }
      const found: ReleaseState[] = []
      for (const release of releases) found.push(await stateBefore(release))
      return found
    },
    releases.map(() => ({ revisions: [] })),
  )
  releases.forEach((release, index) => (release.before = states[index]!))
  onFailureDescribe(() => describeReleases(releases))
  if (flags.install)
    say(
      `an installation of ${module.name} takes its values from --values`,
      `安装 ${module.name} 时使用 --values 指定的参数`,
    )
})

async function stateBefore(release: Release): Promise<ReleaseState> {
  const state = await history(release)
  const { deployed, last } = state
  noteState(release, { ...last, chart: deployed?.chart })
  await refusePending(release, state)
  refuseOtherChart(release, state)
  if (thisRun().inputs.flags.install) refuseExisting(release, state)
  else if (!deployed) throw await notThere(release, state)
  else
    report(
      `  ${release.release}: revision ${deployed.revision}, ${deployed.chart}, ${deployed.status} ${deployed.updated}`,
    )
  return state
}

const noteState = (
  { release }: Release,
  { revision, status, chart }: { revision?: number; status?: string; chart?: string } = {},
) => note({ event: 'state', release, revision, status, chart })

async function refusePending(release: Release, { last, deployed }: ReleaseState) {
  if (!last || !/^(pending-|uninstalling)/.test(last.status)) return
  const cure = deployed ? await rollback(release, deployed.revision, last) : undefined
  const { release: name, namespace } = release
  const failure = tryLater`
    release ${name} is ${last.status} since ${last.updated} (revision ${last.revision}): another helm is at work on it, or was killed
    release ${name} 自 ${last.updated} 起处于 ${last.status}（revision ${last.revision}）：有其他 helm 正在操作，或曾被强行终止`
  throw cure
    ? failure.next`
      first make sure that no helm is at work on it anywhere; then\n${cure}\nand run the same command again
      请先确认任何机器上都没有 helm 正在操作它；然后执行上面的命令，再重新运行本脚本`
    : failure.next`
      there is no deployed revision to roll back to: decide by hand. See: helm history ${name} -n ${namespace}, helm status ${name} -n ${namespace}
      没有可回滚到的已部署 revision，须由人工判断。可用上述两条命令查看`
}

function refuseOtherChart({ release, chart }: Release, { deployed }: ReleaseState) {
  if (!deployed || new RegExp(`^${chart}-v?\\d`).test(deployed.chart)) return
  throw misconfigured`
    ${release} was deployed from another chart: ${deployed.chart}, not ${chart}
    ${release} 由另一个 chart 部署：${deployed.chart}，而不是 ${chart}`
}

function refuseExisting({ release }: Release, { deployed, revisions }: ReleaseState) {
  if (!deployed && revisions.every(({ status }) => /^(failed|uninstalled)$/.test(status))) return
  const what = deployed?.chart ?? revisions.at(-1)?.status
  throw new Failure(
    EXIT.usage,
    `--install is for a release that does not exist; ${release} does (${what})`,
    `--install 仅用于尚不存在的 release；${release} 已存在（${what}）`,
  ).next`
    leave --install and --values out
    去掉 --install 和 --values`
}

async function notThere({ release, namespace }: Release, { last }: ReleaseState): Promise<Failure> {
  const list = await ask(`helm list -n ${namespace} -q`)
  const others = list.stdout.split('\n').filter(Boolean)
  const failure = last
    ? missing`
      release ${release} in ${namespace} has no deployed revision; the last one is ${last.status}
      命名空间 ${namespace} 中的 release ${release} 没有已部署的 revision；最后一个为 ${last.status}`
    : missing`
      release ${release} does not exist in the namespace ${namespace}.${others.length > 0 ? ` There is: ${others.join(', ')}` : ''}
      命名空间 ${namespace} 中没有 release ${release}。${others.length > 0 ? `现有：${others.join('、')}` : ''}`
  return failure.said(last?.description).next`
    is it the right cluster? See what it has:\nhelm list -A ${ofThisCluster('--kube-context')}\nOnly if the module is to be installed in this cluster for the first time: upgrade with --install --values FILE
    请先用上面的命令确认集群是否正确；仅在确需首次安装该模块时，才使用 --install --values FILE`
}

/**
 * What became of the releases, for a failure: compared with the state at the start.
 * @param afterRollback commands that are needed behind the rollback
 */
export async function describeReleases(
  releases: Release[],
  afterRollback: string[] = [],
): Promise<FailureDetails> {
  const state: string[][] = []
  const next: string[] = []
  const jobs: string[] = []
  for (const release of releases) {
    const before = needed(release.before, 'checkReleases()', 'describeReleases()')
    const { last } = await history(release)
    const { release: name, restoreCrds } = release
    if (last?.revision === before.last?.revision && last?.status === before.last?.status) {
      state.push([
        `release ${name} is as it was: ` +
          (last ? `revision ${last.revision}, ${last.chart}, ${last.status}` : 'not installed'),
        `release ${name} 未变：` +
          (last ? `revision ${last.revision}，${last.chart}，${last.status}` : '未安装'),
      ])
    } else {
      const target = rollbackTarget(release, before)
      const { deployed } = before
      state.push([
        `release ${name} is at revision ${last?.revision}, ${last?.chart}, ${last?.status} ` +
          (deployed
            ? `(before: revision ${deployed.revision}, ${deployed.chart})`
            : '(before: not installed)'),
        `release ${name} 现为 revision ${last?.revision}，${last?.chart}，${last?.status}` +
          (deployed
            ? `（此前：revision ${deployed.revision}，${deployed.chart}）`
            : '（此前未安装）'),
      ])
      const hooks = last?.status === 'failed' ? await hookReasons(release) : ''
      if (hooks) state.push([hooks, ''])
      if (target) next.push(await rollback(release, target, last))
      jobs.push(...deleteImmutableJobs(release, last?.description))
    }
    if (restoreCrds) {
      state.push([
        `the CRDs may have been updated; to bring the saved ones back: ${restoreCrds}`,
        '部分 CRD 可能已更新；恢复命令见上',
      ])
    }
  }
  if (next.length > 0) next.push(...afterRollback)
  return {
    state: [state.map(([en]) => en).join('\n'), state.map(([, zh]) => zh).join('\n')],
    ...(next.length > 0 && { next: whatNext(next, jobs) }),
  }
}

/**
 * Sets `$revision`: the one whose values are backed up, the last *deployed* one, not a failed one after it.
 * @throws Failure 66 where there is none
 */
export const setLastDeployedRevision = word('setLastDeployedRevision', async (release: Release) => {
  owe(`publishBackup(${release.release})`)
  release.revision = await setVariable(
    'revision',
    placeholderFor('last_deployed_revision', release),
    async () => {
      const { deployed, last } = await history(release)
      if (!deployed) throw await notThere(release, { revisions: [], last })
      return String(deployed.revision)
    },
  )
})

/**
 * After the upgrade: the last revision must be deployed, at the exact version.
 * @throws Failure 1
 */
export const checkReleased = word('checkReleased', async (release: Release) => {
  const { release: name } = release
  needed(release.isDeployed, 'isDeployed(release)', 'checkReleased(release)')
  await check(
    `check: ${name} is deployed at the version above`,
    `检查：${name} 已部署为上述版本`,
    async () => {
      const { last } = await history(release)
      noteState(release, last)
      report(`  ${name}: revision ${last?.revision}, ${last?.chart}, ${last?.status}`)
      const { version } = release
      if (last?.status === 'deployed' && chartVersion(release, last) === version) return
      const failure = commandFailed`
        ${name} should be deployed at ${version}, but is ${last?.status} at ${last?.chart}
        ${name} 应部署为 ${version}，实际为 ${last?.chart}（${last?.status}）`
      Object.assign(failure.details, await describeReleases(thisRun().inputs.releases))
      throw failure
    },
  )
  settleDebt(`checkReleased(${name})`)
})
