// The manual's section "Upgrading", from top to bottom, for every release of the module.
//   npx zx scripts/upgrade.mts --module mspider [--version VERSION]
//   npx zx scripts/upgrade.mts --module kairship --via package --chart PATH
//   npx zx scripts/upgrade.mts --module mspider --install --values FILE   (where there is no release yet)

import { checkCluster, lockReleases } from '../lib/cluster/cluster.ts'
import { command, finish, lines, option, ownStep, run, start, step } from '../lib/script.ts'
import { chartSource, registryKeys, setImageRegistry } from '../lib/upgrade/chart.ts'
import { checkImages } from '../lib/upgrade/images.ts'
import { checkReleased, checkReleases } from '../lib/upgrade/releases.ts'
import { isDeployed } from '../lib/upgrade/unchanged.ts'
import { setVersion } from '../lib/upgrade/version.ts'
import { waitForWorkloads } from '../lib/upgrade/workloads.ts'

const { releases, flags } = start(
  import.meta.url,
  ['via', 'chart', 'version', 'release', 'install', 'values', 'allow-downgrade'],
  ['helm', 'kubectl', 'flock', 'tar'],
)

ownStep('Before anything is changed', '变更前的检查')
await checkCluster()
await lockReleases()
await checkReleases()

if (flags.via === 'repo') await import('./helm-repo.mts')
if (!flags.install) await import('./backup-values.mts')

ownStep('Look at what will be deployed', '查看将要部署的内容')
for (const release of releases) {
  await setVersion(release)
  await checkImages(release, upgradeCommand(release))
}

// helm installs the CRDs of a chart, but never updates them
if (!flags.install && releases.some(({ crds }) => crds)) await import('./update-crds.mts')

for (const release of releases) {
  if (flags.install)
    step('install') // Install with helm upgrade --install
  else step('upgrade') // Run helm upgrade
  await setVersion(release)
  setImageRegistry(release)
  if (!(await isDeployed(release))) await run(upgradeCommand(release))
  await checkReleased(release)
}

ownStep('Wait until the workloads are up', '等待工作负载就绪')
for (const release of releases) await waitForWorkloads(release)

await finish()

/** The manual's command of the step above; it is looked at before the first change. */
function upgradeCommand(each: (typeof releases)[number]) {
  const { release, namespace, backup } = each
  const { chart, options } = chartSource(each)
  if (flags.install)
    return command`
helm upgrade --install --create-namespace \
    -n ${namespace} ${release} ${chart} \
    --cleanup-on-fail \
    --version=$version \
    ${options} \
    ${registryKeys(each).set} \
    ${option('--timeout', flags.timeout)} \
    -f ${flags.values!}`
  // the manual's two tabs differ in this: a chart package has its own version
  const exact = flags.via === 'repo' ? lines('--version $version') : lines()
  return command`
helm upgrade ${release} ${chart} \
  -n ${namespace} \
  -f ./${backup} \
  ${registryKeys(each).set} \
  ${option('--timeout', flags.timeout)} \
  ${options} \
  ${exact}`
}
