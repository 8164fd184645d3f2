// The manual's step "Back up the --set parameters": the values of the last deployed revision, in a new
// file per run; bak.yaml is a link to the newest good one.
//   npx zx scripts/backup-values.mts --module mspider

import { checkCluster, lockReleases } from '../lib/cluster/cluster.ts'
import { finish, lines, prepare, start, step } from '../lib/script.ts'
import { makeBackupDirectory, publishBackup } from '../lib/upgrade/backups.ts'
import { setLastDeployedRevision } from '../lib/upgrade/releases.ts'

const { releases } = start(import.meta.url, ['release'], ['helm', 'kubectl', 'flock'])
await checkCluster()
await lockReleases()

for (const each of releases) {
  const { release, namespace } = each
  const file = lines(`backups/${release}/$revision-$time.yaml.new`)
  step('backup-values') // Back up the --set parameters
  await setLastDeployedRevision(each)
  await makeBackupDirectory(each) // sets $time
  await prepare`
helm get values ${release} -n ${namespace} -o yaml \
  --revision $revision > ${file}`
  await publishBackup(each, file)
}

await finish()
