import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { note } from '../audit/write.ts'
import { writeWhole } from '../base/files.ts'
import { EXIT, Failure, UNCHANGED } from '../base/failure.ts'
import { type KubernetesObject } from './kubernetes.ts'
import { lock } from '../base/locks.ts'
import { answer, ask, check, questionFailed, report } from '../run/words.ts'
import { firstTime, kubeconfigPath, thisRun } from '../run/session.ts'
import { quote } from '../base/shell.ts'

/** The cluster's identity: uid of the namespace kube-system, and its version (v1.33.4). */
export const cluster = { uid: '', version: '' }

/**
 * The site's context must be the current one, the cluster reachable, and the same as ever: its uid
 * is kept in state/<site>/cluster.json, so that a site file that was pointed at another cluster shows.
 * @throws Failure 78 wrong context or cluster · 69 not reachable · 77 not allowed
 */
export async function checkCluster() {
  if (!firstTime('checkCluster')) return
  const { inputs, variables, time } = thisRun()
  const { site, sitePath, stateDirectory } = inputs
  await check(
    `check: the current context is ${site.context}, and the cluster is the one that this site's records are of`,
    `检查：当前 context 为 ${site.context}，且集群与本站点记录一致`,
    async () => {
      const kubeconfig = kubeconfigPath(site.kubeconfig, sitePath)
      if (!existsSync(kubeconfig)) {
        throw wrong(
          `the kubeconfig ${kubeconfig} does not exist`,
          `kubeconfig ${kubeconfig} 不存在`,
        )
      }
      const question = `kubectl config current-context --kubeconfig ${quote(kubeconfig)}`
      const current = await ask(question)
      if (current.exitCode !== 0 && !/current-context is not set/.test(current.stderr))
        throw questionFailed(question, current)
      const context = current.stdout.trim()
      if (context !== site.context) {
        throw wrong(
          `the current context is ${context || 'none'}; the site file says ${site.context}`,
          `当前 context 为 ${context || '空'}，而站点配置为 ${site.context}`,
          await rightContext(kubeconfig, site.context),
        )
      }
      const request = '--request-timeout=20s'
      cluster.uid = await answer(
        `kubectl get namespace kube-system -o jsonpath={.metadata.uid} ${request}`,
      )
      const version = JSON.parse(await answer(`kubectl version -o json ${request}`))
      cluster.version = version.serverVersion.gitVersion
      const path = join(dirname(stateDirectory), 'cluster.json')
      const known = existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')).uid : undefined
      if (known && known !== cluster.uid) {
        throw wrong(
          `this is another cluster: its uid is ${cluster.uid}, the records of the site "${site.name}" are of ${known}`,
          `这是另一个集群：其 uid 为 ${cluster.uid}，而站点 “${site.name}” 的记录属于 ${known}`,
          `# if the cluster was really replaced: mv ${quote(dirname(stateDirectory))} ${quote(`${dirname(stateDirectory)}.${time}`)}`,
        )
      }
      if (!known) {
        report(
          `  the first run for the site ${site.name}: its cluster is recorded from now on in ${path}\n` +
            `  站点 ${site.name} 的首次运行：自此记录其集群`,
        )
        writeWhole(
          path,
          JSON.stringify({ uid: cluster.uid, context, since: new Date().toISOString() }) + '\n',
        )
      }
      const whoami = await ask(
        `kubectl auth whoami -o jsonpath={.status.userInfo.username} ${request}`,
      )
      note({
        event: 'cluster',
        uid: cluster.uid,
        version: cluster.version,
        context,
        user: whoami.stdout || undefined,
      })
      variables['kubeVersion'] = cluster.version
    },
  )
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
export async function lockReleases() {
  if (!firstTime('lockReleases')) return
  const { inputs, locks } = thisRun()
  const { releases, script, flags } = inputs
  const names = releases.map(({ namespace, release }) => `${namespace}/${release}`)
  await check(
    `lock: nobody else works on ${names.join(', ')}`,
    `加锁：没有其他人在操作 ${names.join('、')}`,
    async () => {
      for (const name of names.sort()) {
        const holder = { script, ...(flags.ticket && { ticket: flags.ticket }) }
        locks.push(lock(`release ${name} of the cluster ${cluster.uid}`, holder))
      }
    },
  )
}

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
  return new Failure(EXIT.configuration, en, zh, {
    state: UNCHANGED,
    next: cure ? [cure, ''] : ['correct the site file (--site)', '请修正站点配置文件（--site）'],
  })
}
