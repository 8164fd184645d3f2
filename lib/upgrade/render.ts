import { misconfigured } from '../base/failure.ts'
import { type Command } from '../base/shell.ts'
import { type Release } from '../inputs/types.ts'
import { answer, ask, questionFailed } from '../run/ask.ts'
import { needed } from '../run/order.ts'
import { thisRun } from '../run/session.ts'
import { registryKeys } from './chart.ts'

/** @throws Failure 78 where more would be run than one `helm upgrade`: it could not be rendered */
export function ensureOneUpgrade({ text }: Command) {
  if (/^helm upgrade\s/.test(text) && !/[;&|<>`]|\$\(/.test(text)) return
  const failure = misconfigured`
    the command that is looked at before the upgrade must be one \`helm upgrade\` and nothing else
    升级前检查的命令必须是单独一条 \`helm upgrade\``
  failure.details.command = text
  throw failure
}

/** What `helm upgrade` takes and `helm template` does not (helm 3.10 to 4). */
const UPGRADE_ONLY =
  /\s(--install|-i|--cleanup-on-fail|--reuse-values|--reset-values|--reset-then-reuse-values|--rollback-on-failure|--history-max[= ]\d+)(?=\s|$)/g

/**
 * The chart as this very `helm upgrade` would render it: the same words, so that what somebody adds to
 * the command in a copy of the script is rendered too. `helm upgrade --dry-run` would fail where a
 * chart brings objects of a kind whose CRD comes with this upgrade (helm 3.19 pkg/action/upgrade.go
 * builds the objects even in a dry run).
 */
export async function render(release: Release, upgrade: Command): Promise<string> {
  const { version } = needed(thisRun().cluster, 'checkCluster()', 'checkImages(release)')
  const isInstall = /\s--install\b/.test(upgrade.text)
  const template = upgrade.text.replace(/^helm upgrade/, 'helm template').replace(UPGRADE_ONLY, '')
  // with it `lookup` in a chart finds what is in the cluster, as it will in the upgrade (helm 3.13)
  const help = await answer('helm template --help')
  const options = [
    ...(isInstall ? [] : ['--is-upgrade']),
    ...(help.includes('--dry-run=server') ? ['--dry-run=server'] : []),
    '--kube-version $kubeVersion --api-versions $apiVersions',
  ]
  const variables = {
    imageRegistry: registryKeys(release).value,
    kubeVersion: version,
    apiVersions: await apiVersions(),
  }
  return await answer(`${template} \\\n  ${options.join(' ')}`, variables)
}

/** group/version and group/version/Kind of all that the cluster serves, as charts ask for it. */
async function apiVersions(): Promise<string> {
  // exit 1 where one aggregated API is down; the others are answered
  const question = 'kubectl api-resources --no-headers --request-timeout=20s'
  const ended = await ask(question)
  if (ended.exitCode > 1) throw questionFailed(question, ended)
  const { stdout } = ended
  const kinds = stdout.split('\n').flatMap((line) => {
    const [kind, , version] = line.trim().split(/\s+/).reverse()
    return kind && version ? [version, `${version}/${kind}`] : []
  })
  return [...new Set(['v1', ...kinds])].join(',')
}
