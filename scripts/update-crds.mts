// The manual's step "Update CRDs": helm never updates the CRDs of a chart's crds/ directory.
//   npx zx scripts/update-crds.mts --module kairship [--version VERSION]
//   npx zx scripts/update-crds.mts --module kairship --via package --chart PATH

import { checkCluster, lockReleases } from '../lib/cluster/cluster.ts'
import { crdDirectories, saveCrds } from '../lib/upgrade/crds.ts'
import { chartSource, setVersion } from '../lib/upgrade/chart.ts'
import { type Release } from '../lib/inputs/inputs.ts'
import { checkReleases } from '../lib/upgrade/releases.ts'
import { run, say, step } from '../lib/run/words.ts'
import { finish, start } from '../lib/run/session.ts'
import { type ShellLines } from '../lib/base/shell.ts'

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

const found: { release: Release; crds: ShellLines }[] = []
for (const release of withCrds) {
  const { chart, options } = chartSource(release)
  const directory = `charts/${release.release}`
  step('update-crds')
  await setVersion(release)
  let unpacked = chart
  if (flags.via === 'repo') {
    // a fresh directory: unpacking over an old one would merge both
    await run`rm -rf ${directory} && mkdir -p ${directory}`
    await run`
helm pull ${chart} --version $version -d ${directory} \
  ${options} && tar -zxf ${directory}/*.tgz -C ${directory}`
    unpacked = `${directory}/${release.chart}`
  } else if (/\.(tgz|tar\.gz)$/.test(chart)) {
    await run`rm -rf ${directory} && mkdir -p ${directory}`
    await run`tar -zxf ${chart} -C ${directory}`
    unpacked = `${directory}/${release.chart}`
  }
  const crds = await crdDirectories(unpacked, release)
  if (crds.lines.length > 0) found.push({ release, crds })
}

for (const { release, crds } of found) {
  await saveCrds(crds, release)
  // all or none: a CRD that the API server refuses is found before the first one is changed
  await run`
kubectl apply ${crds} \
  --server-side --force-conflicts --dry-run=server`
  await run`
kubectl apply ${crds} \
  --server-side --force-conflicts`
  // an API server that was restarted meanwhile may take 5 minutes: it looks at its CRDs again by then
  // (Kubernetes 1.33 apiextensions-apiserver: crdHandler queues on an update, informers resync)
  await run`
kubectl wait ${crds} \
  --for=condition=Established --timeout=360s`
}

await finish()
