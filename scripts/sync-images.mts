// The manual's "Synchronize images using chart-syncer": puts a bundle's images and chart into the
// site's registry and chart repository. What is there already is not pushed again.
//   npx zx scripts/sync-images.mts --module skoala --bundle FILE|DIRECTORY
//   npx zx scripts/sync-images.mts --all --bundle DIRECTORY --quiet      (from cron)

import { isForAll, modulesWithBundles } from '../lib/bundle/modules-with-bundles.ts'
import { checkBundleContent, findBundles, tellBadBundles } from '../lib/bundle/of-this-run.ts'
import { containerRepository } from '../lib/inputs/site.ts'
import {
  checkArrived,
  isInPlace,
  lockRepository,
  onlyImages,
  placeBundle,
  repositoryUrl,
  syncerVariables,
  watchSync,
} from '../lib/registry/sync.ts'
import { everyModule } from '../lib/run/every-module.ts'
import { finish, lines, ownStep, prepare, run, start, step } from '../lib/script.ts'

if (isForAll()) await everyModule(import.meta.url, modulesWithBundles)

const { module, site } = start(
  import.meta.url,
  ['bundle', 'replace-tags', 'all', 'quiet', 'json'],
  ['charts-syncer', 'flock'],
)
const { kind } = site.chartRepository

ownStep('Before anything is pushed', '推送前的检查')
await lockRepository()

for (const bundle of await findBundles()) {
  if (await isInPlace(bundle)) continue
  if (!(await checkBundleContent(bundle))) continue

  step('load-image-yaml') // Create load-image.yaml
  await placeBundle(bundle)
  // onlyImages: the chart is in the chart repository already, and goes where it is removed afterwards
  const repo =
    kind === 'LOCAL' || onlyImages(bundle)
      ? lines(`kind: LOCAL
    path: ${onlyImages(bundle) ? './local-repo' : '../local-repo'} # Local chart path`)
      : lines(`kind: ${kind} # Helm Chart repository type
    url: ${repositoryUrl()} # Helm repository address
    # auth: Helm repository username and password, from the environment (TARGET_REPO_AUTH_*)`)
  await prepare`
cat > load-image.yaml << 'EOF'
source:
  intermediateBundlesPath: ${module.bundle.directory} # The relative path to the directory where the charts-syncer command is executed, not the relative path between this YAML file and the offline package
target:
  containerRegistry: ${site.containerRegistry} # Container registry address
  containerRepository: ${containerRepository({ module, site })} # Container registry path
  repo:
    ${repo}
  # containers.auth: Container registry username and password, from the environment (TARGET_CONTAINERS_AUTH_*)
EOF`

  step('sync-images') // Synchronize the images with charts-syncer
  await watchSync(
    bundle,
    () => run`
(cd charts-syncer && \
${syncerVariables()} \
TMPDIR=$PWD/tmp \
charts-syncer sync --config ../load-image.yaml --workdir work)`,
  )
  await checkArrived(bundle)
}

await tellBadBundles()
await finish()
