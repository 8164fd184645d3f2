// The manual's section "Upgrading", via helm repo: check whether the helm repository exists, add it,
// update it, select the version.
//   npx zx scripts/helm-repo.mts --module mspider [--version VERSION]

import {
  chartSource,
  checkIndexIsFresh,
  repositoryIsKnown,
  setVersion,
  useCredentialHelper,
} from '../lib/upgrade/chart.ts'
import { run, say, step } from '../lib/run/words.ts'
import { finish, start } from '../lib/run/session.ts'
import { option } from '../lib/base/shell.ts'

const { releases, site } = await start(import.meta.url, ['version', 'release'], ['helm'])
const { kind, url, login, caFile } = site.chartRepository

for (const release of releases) {
  const { repository, chart } = release

  if (kind === 'OCI') {
    say(
      'an OCI repository is neither added nor updated nor searched',
      'OCI 仓库无需添加、更新和搜索',
    )
    useCredentialHelper()
    step('search-repo')
    await setVersion(release)
    await run`helm show chart ${chartSource(release).chart} --version $version ${chartSource(release).options}`
  } else {
    step('repo-list')
    // the manual greps for the name; the names and URLs are compared in the next step
    await run`helm repo list -o yaml`

    step('repo-add')
    if (!(await repositoryIsKnown(release))) {
      if (login) {
        await run`
printf %s "$CHART_REPO_PASSWORD" |
  helm repo add ${repository} ${url!} \
    --username "$CHART_REPO_USERNAME" --password-stdin \
    ${option('--ca-file', caFile)} \
    --force-update`
      } else {
        await run`
helm repo add ${repository} ${url!} \
  ${option('--ca-file', caFile)} \
  --force-update`
      }
    }

    step('repo-update')
    await run`helm repo update ${repository}`
    await checkIndexIsFresh(release)

    step('search-repo')
    await run`helm search repo ${repository}/${chart} --versions`
    await setVersion(release)
  }
}

await finish()
