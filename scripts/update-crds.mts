// The manual's step "Update CRDs": helm never updates the CRDs of a chart's crds/ directory.
//   npx zx scripts/update-crds.mts --module kairship [--version VERSION]
//   npx zx scripts/update-crds.mts --module kairship --via package --chart PATH

import { checkCluster, lockReleases } from '../lib/cluster/cluster.ts'
import { finish, prepare, run, say, start, step } from '../lib/script.ts'
import { chartSource, isArchive } from '../lib/upgrade/chart.ts'
import {
  findCrds,
  makeChartDirectory,
  saveCrds,
  triedCrds,
  tryCrds,
  waitForCrds,
} from '../lib/upgrade/crds.ts'
import { checkReleases } from '../lib/upgrade/releases.ts'
import { setVersion } from '../lib/upgrade/version.ts'

const { releases, flags, module } = start(
  import.meta.url,
  ['via', 'chart', 'version', 'release', 'allow-downgrade'],
  ['helm', 'kubectl', 'flock', 'tar'],
)
await checkCluster()
await lockReleases()

const withCrds = releases.filter((release) => release.crds)
if (withCrds.length === 0)
  say(
    `the manual of ${module.name} has no CRD step: nothing to do`,
    `${module.name} 的手册没有更新 CRD 的步骤，无需操作`,
  )
if (withCrds.length > 0) await checkReleases()
if (withCrds.length > 0 && flags.via === 'repo') await import('./helm-repo.mts')

const toUpdate: typeof releases = []
for (const release of withCrds) {
  const { chart, options } = chartSource(release)
  const directory = `charts/${release.release}`
  step('update-crds') // Update the CRDs
  await setVersion(release)
  await makeChartDirectory(release)
  if (flags.via === 'repo')
    await prepare`
helm pull ${chart} --version $version -d ${directory} \
  ${options} && tar -zxf ${directory}/*.tgz -C ${directory}`
  else if (isArchive(chart)) await prepare`tar -zxf ${chart} -C ${directory}`
  if (await findCrds(release)) toUpdate.push(release)
}

for (const release of toUpdate) {
  await saveCrds(release)
  await tryCrds(release)
  await run`
kubectl apply ${triedCrds(release)} \
  --server-side --force-conflicts`
  await waitForCrds(release)
}

await finish()
