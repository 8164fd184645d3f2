import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { type Failure, misconfigured } from '../base/failure.ts'
import { writeWhole } from '../base/files.ts'
import { lock } from '../base/locks.ts'
import { quote } from '../base/shell.ts'
import { kubeconfigPath } from '../inputs/site.ts'
import { answer, ask, questionFailed } from '../run/ask.ts'
import { needed, word } from '../run/order.ts'
import { firstTime, note, report, thisRun } from '../run/session.ts'
import { check } from '../run/words.ts'
import { type KubernetesObject } from './kubernetes.ts'

/** The cluster's identity. */
interface Cluster {
  /** of the namespace kube-system */
  uid: string
  /** v1.33.4 */
  version: string
}

declare module '../run/session.ts' {
  interface Run {
    /** from checkCluster() */
    cluster?: Cluster
  }
}

declare module '../inputs/types.ts' {
  interface Release {
    /** from lockReleases() */
    isLocked?: true
  }
}

const REQUEST = '--request-timeout=20s'

/**
 * The site's context must be the current one, the cluster reachable, and the same as ever: its uid
 * is kept in state/<site>/cluster.json, so that a site file that was pointed at another cluster shows.
 * @throws Failure 78 wrong context or cluster · 69 not reachable · 77 not allowed
 */
export const checkCluster = word('checkCluster', async () => {
  if (!firstTime('checkCluster: begun')) return
  const run = thisRun()
  const { site } = run.inputs
  run.cluster = await check(
    `check: the current context is ${site.context}, and the cluster is the one that this site's records are of`,
    `检查：当前 context 为 ${site.context}，且集群与本站点记录一致`,
    async () => {
      await refuseOtherContext()
      const uid = await answer(
        `kubectl get namespace kube-system -o jsonpath={.metadata.uid} ${REQUEST}`,
      )
      const { serverVersion } = JSON.parse(await answer(`kubectl version -o json ${REQUEST}`))
      const version: string = serverVersion.gitVersion
      refuseOtherCluster(uid)
      const whoami = await ask(
        `kubectl auth whoami -o jsonpath={.status.userInfo.username} ${REQUEST}`,
      )
      const user = whoami.stdout || undefined
      note({ event: 'cluster', uid, version, context: site.context, user })
      return { uid, version }
    },
    { uid: '{cluster_uid}', version: '{cluster_version}' },
  )
})

/** @throws Failure 78 */
async function refuseOtherContext() {
  const { site, sitePath } = thisRun().inputs
  const kubeconfig = kubeconfigPath(site.kubeconfig, sitePath)
  if (!existsSync(kubeconfig))
    throw wrong(`the kubeconfig ${kubeconfig} does not exist`, `kubeconfig ${kubeconfig} 不存在`)
  const question = `kubectl config current-context --kubeconfig ${quote(kubeconfig)}`
  const current = await ask(question)
  if (current.exitCode !== 0 && !/current-context is not set/.test(current.stderr))
    throw questionFailed(question, current)
  const context = current.stdout.trim()
  if (context === site.context) return
  throw wrong(
    `the current context is ${context || 'not set'}; the site file says ${site.context}`,
    `当前 context ${context ? `为 ${context}` : '未设置'}，而站点配置为 ${site.context}`,
    await rightContext(kubeconfig, site.context),
  )
}

/** @throws Failure 78 where the records of this site are of another cluster */
function refuseOtherCluster(uid: string) {
  const { inputs, time } = thisRun()
  const { site, stateDirectory } = inputs
  const directory = dirname(stateDirectory)
  const path = join(directory, 'cluster.json')
  const known = existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')).uid : undefined
  if (known && known !== uid) {
    throw wrong(
      `this is another cluster: its uid is ${uid}, the records of the site "${site.name}" are of ${known}`,
      `这是另一个集群：其 uid 为 ${uid}，而站点 “${site.name}” 的记录属于 ${known}`,
      `# if the cluster was really replaced: mv ${quote(directory)} ${quote(`${directory}.${time}`)}`,
    )
  }
  if (!known) {
    report(
      `  the first run for the site ${site.name}: its cluster is recorded from now on in ${path}\n` +
        `  站点 ${site.name} 的首次运行：自此记录其集群`,
    )
    const since = new Date().toISOString()
    writeWhole(path, JSON.stringify({ uid, context: site.context, since }) + '\n')
  }
}

/** What to do where the current context is not the site's. */
async function rightContext(kubeconfig: string, context: string): Promise<string> {
  const file = quote(kubeconfig)
  const { stdout } = await ask(`kubectl config get-contexts -o name --kubeconfig ${file}`)
  const known = stdout.split('\n').filter(Boolean)
  if (!known.includes(context))
    return `# ${kubeconfig} has no context ${context}; it has: ${known.join(', ')}. Correct the site file`
  return `# which cluster is meant? If the site file is right:
kubectl config use-context ${quote(context)} --kubeconfig ${file}
# if the terminal is right: name the file of that site with --site`
}

/**
 * One script at a time works on a release; the lock lasts until the last command of it has ended.
 * @throws Failure 75 when another script holds it; it names the holder
 */
export const lockReleases = word('lockReleases', async () => {
  const { inputs, locks, cluster } = thisRun()
  const { uid } = needed(cluster, 'checkCluster()', 'lockReleases()')
  if (!firstTime('lockReleases: begun')) return
  const { releases, script, flags } = inputs
  const nameOf = ({ namespace, release }: (typeof releases)[number]) => `${namespace}/${release}`
  const names = releases.map(nameOf)
  await check(
    `lock: nobody else works on ${names.join(', ')}`,
    `加锁：没有其他人在操作 ${names.join('、')}`,
    async () => {
      for (const name of names.sort()) {
        const holder = { script, ...(flags.ticket && { ticket: flags.ticket }) }
        locks.push(lock(`release ${name} of the cluster ${uid}`, holder))
      }
    },
  )
  for (const release of releases) release.isLocked = true
})

/** The flags that lead a command from any terminal of this machine to this cluster. */
export function ofThisCluster(contextFlag: '--context' | '--kube-context'): string {
  const { site, sitePath } = thisRun().inputs
  const kubeconfig = kubeconfigPath(site.kubeconfig, sitePath)
  return `--kubeconfig ${quote(kubeconfig)} ${contextFlag} ${quote(site.context)}`
}

/** The command that deletes an object, for any terminal of this machine. */
export function deleteCommand({
  kind,
  metadata,
}: Pick<KubernetesObject, 'kind' | 'metadata'>): string {
  const { name, namespace } = metadata
  return `kubectl delete ${kind.toLowerCase()} ${name} -n ${namespace} ${ofThisCluster('--context')}`
}

function wrong(en: string, zh: string, cure?: string): Failure {
  const failure = misconfigured(en, zh)
  return cure
    ? failure.next(
        cure,
        '请先确认所指集群：若站点配置正确，请执行上面的命令；若终端当前的集群正确，请用 --site 指定该站点的配置文件',
      )
    : failure.next`
      correct the site file (--site)
      请修正站点配置文件（--site）`
}
