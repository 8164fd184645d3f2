// The manual's section "Upgrading", via helm repo: check whether the helm repository exists, add it,
// update it, select the version.
//   npx zx scripts/helm-repo.mts --module mspider [--version VERSION]

import { finish, option, prepare, start, step } from '../lib/script.ts'
import { chartSource } from '../lib/upgrade/chart.ts'
import {
  checkIndexIsFresh,
  repositoryIsKnown,
  useOciRepository,
} from '../lib/upgrade/repository.ts'
import { setVersion } from '../lib/upgrade/version.ts'

const { releases, site } = start(import.meta.url, ['version', 'release'], ['helm'])
const { kind, url, login, caFile } = site.chartRepository

for (const release of releases) {
  const { repository } = release
  const { chart, options } = chartSource(release)

  if (kind === 'OCI') {
    useOciRepository()
    step('search-repo') // Select the version to upgrade to
    await setVersion(release)
    await prepare`helm show chart ${chart} --version $version ${options}`
    continue
  }

  step('repo-list') // Check whether the helm repository exists
  // the manual greps for the name; the names and URLs are compared in the next step
  await prepare`helm repo list -o yaml`

  step('repo-add') // Add the helm repository
  if (!(await repositoryIsKnown(release))) {
    if (login)
      await prepare`
printf %s "$CHART_REPO_PASSWORD" |
  helm repo add ${repository} ${url!} \
    --username "$CHART_REPO_USERNAME" --password-stdin \
    ${option('--ca-file', caFile)} \
    --force-update`
    else
      await prepare`
helm repo add ${repository} ${url!} \
  ${option('--ca-file', caFile)} \
  --force-update`
  }

  step('repo-update') // Update the helm repository
  await prepare`helm repo update ${repository}`
  await checkIndexIsFresh(release)

  step('search-repo') // Select the version to upgrade to
  await prepare`helm search repo ${chart} --versions`
  await setVersion(release)
}

await finish()
