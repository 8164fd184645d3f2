// The manual's section "Upgrading", from top to bottom, for every release of the module.
//   npx zx scripts/upgrade.mts --module mspider [--version VERSION]
//   npx zx scripts/upgrade.mts --module kairship --via package --chart PATH
//   npx zx scripts/upgrade.mts --module mspider --install --values FILE   (where there is no release yet)

import { chartSource, registryKeys, setVersion } from '../lib/upgrade/chart.ts'
import { checkCluster, lockReleases } from '../lib/cluster/cluster.ts'
import { checkImages, isDeployed } from '../lib/upgrade/images.ts'
import { checkReleased, checkReleases } from '../lib/upgrade/releases.ts'
import { exportVariable, ownStep, run, step } from '../lib/run/words.ts'
import { finish, start } from '../lib/run/session.ts'
import { command, option } from '../lib/base/shell.ts'
import { waitForWorkloads } from '../lib/upgrade/workloads.ts'

const { releases, flags } = await start(
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

// the commands of the step "Run helm upgrade" below: they are looked at before the first change
const upgrades = releases.map((each) => {
  const { release, namespace, backup } = each
  const { chart, options } = chartSource(each)
  const registry = registryKeys(each)
  const timeout = option('--timeout', flags.timeout)
  if (flags.install) {
    const install = command`
helm upgrade --install --create-namespace \
    -n ${namespace} ${release} ${chart} \
    --cleanup-on-fail \
    --version=$version \
    ${options} \
    ${registry.set} \
    ${timeout} \
    -f ${flags.values!}`
    return { each, registry, upgrade: install }
  }
  if (flags.via === 'package') {
    const upgrade = command`
helm upgrade ${release} ${chart} \
  -n ${namespace} \
  -f ./${backup} \
  ${registry.set} \
  ${timeout}`
    return { each, registry, upgrade }
  }
  const upgrade = command`
helm upgrade ${release} ${chart} \
  -n ${namespace} \
  -f ./${backup} \
  ${registry.set} \
  ${timeout} \
  ${options} \
  --version $version`
  return { each, registry, upgrade }
})

ownStep('Look at what will be deployed', '查看将要部署的内容')
for (const { each, registry, upgrade } of upgrades) {
  await setVersion(each)
  await checkImages(each, upgrade, registry)
}

// helm installs the CRDs of a chart, but never updates them
if (!flags.install && releases.some(({ crds }) => crds)) await import('./update-crds.mts')

for (const { each, registry, upgrade } of upgrades) {
  step(flags.install ? 'install' : 'upgrade')
  await setVersion(each)
  exportVariable('imageRegistry', registry.value)
  if (!(await isDeployed(each, upgrade, registry))) await run(upgrade)
  await checkReleased(each)
}

ownStep('Wait until the workloads are up', '等待工作负载就绪')
for (const { each } of upgrades) await waitForWorkloads(each)

await finish()
