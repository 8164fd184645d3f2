// The manual's step "Back up the --set parameters": the values of the last deployed revision, in a new
// file per run; bak.yaml is a link to the newest good one.
//   npx zx scripts/backup-values.mts --module mspider

import { checkBackup } from '../lib/upgrade/backups.ts'
import { checkCluster, lockReleases } from '../lib/cluster/cluster.ts'
import { setLastDeployedRevision } from '../lib/upgrade/releases.ts'
import { run, say, setTime, step } from '../lib/run/words.ts'
import { finish, start } from '../lib/run/session.ts'

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
  say(
    `a ${backup} that is a file of somebody else, not the link to the newest backup, is kept`,
    `若 ${backup} 是他人放置的文件，而不是指向最新备份的链接，则予以保留`,
  )
  await run`
if [ -e ${backup} ] && [ ! -L ${backup} ]; then mv -T ${backup} backups/${release}/by-hand-$time.yaml; fi`
  await run`
mv -T backups/${release}/$revision-$time.yaml.new backups/${release}/$revision-$time.yaml
ln -sfn backups/${release}/$revision-$time.yaml ${backup}.new && mv -T ${backup}.new ${backup}`
}

await finish()
