// The manual's step "Update CRDs": helm never updates the CRDs of a chart's crds/ directory.
//   npx zx scripts/update-crds.mts --module kairship [--version VERSION]
//   npx zx scripts/update-crds.mts --module kairship --via package --chart PATH

import { checkCluster, lockReleases } from '../lib/cluster.ts'
import { crdDirectories, saveCrds } from '../lib/crds.ts'
import { chartSource, setVersion } from '../lib/charts.ts'
import { checkReleases } from '../lib/releases.ts'
import { run, say, step } from '../lib/run.ts'
import { finish, start } from '../lib/session.ts'

const { releases, flags, module } = await start(
  import.meta.url,
  ['via', 'chart', 'version', 'release', 'allow-downgrade'],
  ['helm', 'kubectl', 'flock', 'tar'],
)
await checkCluster()
await lockReleases()

const withCrds = releases.filter(({ crds }) => crds)
if (withCrds.length === 0) {
  say(
    `the manual of ${module.name} has no CRD step: nothing to do`,
    `${module.name} 的手册没有更新 CRD 的步骤，无需操作`,
  )
} else {
  await checkReleases()
  if (flags.via === 'repo') await import('./helm-repo.mts')
}

for (const release of withCrds) {
  const { chart, options } = chartSource(release)
  step('update-crds')
  let unpacked = chart
  if (flags.via === 'repo') {
    await setVersion(release)
    // a fresh directory: unpacking over an old one would merge both
    await run`rm -rf charts/${release.release} && mkdir -p charts/${release.release}`
    await run`
helm pull ${chart} --version $version -d charts/${release.release} \
  ${options} && tar -zxf charts/${release.release}/*.tgz -C charts/${release.release}`
    unpacked = `charts/${release.release}/${release.chart}`
  } else if (chart.endsWith('.tgz')) {
    await setVersion(release)
    await run`rm -rf charts/${release.release} && mkdir -p charts/${release.release}`
    await run`tar -zxf ${chart} -C charts/${release.release}`
    unpacked = `charts/${release.release}/${release.chart}`
  }
  const directories = await crdDirectories(unpacked, release)
  if (directories.lines.length === 0) continue
  await saveCrds(directories, release)
  // all or none: a CRD that the API server refuses is found before the first one is changed
  await run`
kubectl apply ${directories} \
  --server-side --force-conflicts --dry-run=server`
  await run`
kubectl apply ${directories} \
  --server-side --force-conflicts`
  await run`
kubectl wait ${directories} \
  --for=condition=Established --timeout=60s`
}

await finish()
