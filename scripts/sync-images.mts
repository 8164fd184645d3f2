// The manual's "Synchronize images using chart-syncer": puts a bundle's images and chart into the
// site's registry and chart repository. What is there already is not pushed again.
//   npx zx scripts/sync-images.mts --module skoala --bundle FILE|DIRECTORY
//   npx zx scripts/sync-images.mts --all --bundle DIRECTORY --quiet      (from cron)

import { checkBundleContent, findBundles, tellBadBundles } from '../lib/bundle/of-this-run.ts'
import { everyModule } from '../lib/run/every-module.ts'
import { containerRepository } from '../lib/inputs/inputs.ts'
import { ownStep, run, say, step } from '../lib/run/words.ts'
import { finish, start, thisRun } from '../lib/run/session.ts'
import { shellLines } from '../lib/base/shell.ts'
import {
  caFiles,
  checkArrived,
  isInPlace,
  lockRepository,
  onlyImages,
  repositoryUrl,
  setBundle,
  watchSync,
} from '../lib/registry/sync.ts'

if (process.argv.includes('--all')) await everyModule(import.meta.url)

const { module, site } = await start(
  import.meta.url,
  ['bundle', 'replace-tags', 'all', 'quiet', 'json'],
  ['charts-syncer', 'flock'],
)
const directory = `charts-syncer/${module.bundle.directory}`
const { kind, login } = site.chartRepository

ownStep('Before anything is pushed', '推送前的检查')
await lockRepository()

for (const bundle of await findBundles()) {
  if (await isInPlace(bundle)) continue
  if (!(await checkBundleContent(bundle))) continue

  step('load-image-yaml')
  await setBundle(bundle)
  say(
    'in a directory of its own, under the name that charts-syncer reads; out of a download it is copied',
    '放入独立目录，并使用 charts-syncer 能识别的名称；若为外层下载文件，则从中复制',
  )
  if (bundle?.inDownload) {
    await run`
rm -rf charts-syncer && mkdir -p ${directory} charts-syncer/tmp
dd if=$source of=${directory}/$bundle status=none \
  bs=1M iflag=skip_bytes,count_bytes skip=$offset count=$size`
  } else {
    await run`
rm -rf charts-syncer && mkdir -p ${directory} charts-syncer/tmp
ln -sr $source ${directory}/$bundle`
  }

  if (caFiles().length > 0) await run`cat ${shellLines(...caFiles())} > charts-syncer/ca.crt`

  if (kind === 'LOCAL' || onlyImages(bundle)) {
    await run`
cat > load-image.yaml << 'EOF'
source:
  intermediateBundlesPath: ${module.bundle.directory} # relative to where charts-syncer runs, not to this file
target:
  containerRegistry: ${site.containerRegistry} # the image registry
  containerRepository: ${containerRepository(thisRun().inputs)} # the path in it
  repo:
    kind: LOCAL
    path: ${onlyImages(bundle) ? './local-repo' : '../local-repo'}
# containers.auth: in the environment, TARGET_CONTAINERS_AUTH_*
EOF`
  } else {
    await run`
cat > load-image.yaml << 'EOF'
source:
  intermediateBundlesPath: ${module.bundle.directory} # relative to where charts-syncer runs, not to this file
target:
  containerRegistry: ${site.containerRegistry} # the image registry
  containerRepository: ${containerRepository(thisRun().inputs)} # the path in it
  repo:
    kind: ${kind} # or any other kind of chart repository that charts-syncer supports
    url: ${repositoryUrl()} # the chart repository
# repo.auth and containers.auth: in the environment, TARGET_REPO_AUTH_* and TARGET_CONTAINERS_AUTH_*
EOF`
  }

  step('sync-images')
  const logins = shellLines(
    ...(login
      ? [
          'TARGET_REPO_AUTH_USERNAME="$CHART_REPO_USERNAME"',
          'TARGET_REPO_AUTH_PASSWORD="$CHART_REPO_PASSWORD"',
        ]
      : []),
    ...(site.containerRegistryLogin === false
      ? []
      : [
          'TARGET_CONTAINERS_AUTH_USERNAME="$REGISTRY_USERNAME"',
          'TARGET_CONTAINERS_AUTH_PASSWORD="$REGISTRY_PASSWORD"',
        ]),
    // Go trusts what is in it
    ...(caFiles().length > 0 ? ['SSL_CERT_FILE=$PWD/ca.crt'] : []),
  )
  await watchSync(
    () => run`
(cd charts-syncer && \
${logins} \
TMPDIR=$PWD/tmp \
charts-syncer sync --config ../load-image.yaml --workdir work)`,
  )
  await checkArrived(bundle)
}

await tellBadBundles()
await finish()
