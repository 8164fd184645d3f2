// The manual's step "Back up the --set parameters": the values of the last deployed revision, in a new
// file per run; bak.yaml is a link to the newest good one.
//   npx zx scripts/backup-values.mts --module mspider

import { checkBackup, isForeign } from '../lib/backups.ts'
import { checkCluster, lockReleases } from '../lib/cluster.ts'
import { setLastDeployedRevision } from '../lib/releases.ts'
import { run, setTime, step } from '../lib/run.ts'
import { finish, start } from '../lib/session.ts'

const { releases } = await start(import.meta.url, ['release'], ['helm', 'kubectl', 'flock'])
await checkCluster()
await lockReleases()

for (const each of releases) {
  const { release, namespace, backup } = each
  step('backup-values')
  await setLastDeployedRevision(each)
  await setTime()
  await run`mkdir -p backups/${release} && rm -f backups/${release}/*.yaml.new`
  await run`
helm get values ${release} -n ${namespace} -o yaml \
  --revision $revision > backups/${release}/$revision-$time.yaml.new`
  await checkBackup(each)
  if (await isForeign(backup)) await run`mv -T ${backup} backups/${release}/by-hand-$time.yaml`
  await run`
mv -T backups/${release}/$revision-$time.yaml.new backups/${release}/$revision-$time.yaml
ln -sfn backups/${release}/$revision-$time.yaml ${backup}.new && mv -T ${backup}.new ${backup}`
}

await finish()
