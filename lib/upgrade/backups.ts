import { closeSync, existsSync, fsyncSync, openSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { parse } from 'yaml'
import { type Bilingual, bilingual, commandFailed } from '../base/failure.ts'
import { sha256 } from '../base/hash.ts'
import { type ShellLines } from '../base/shell.ts'
import { type Release } from '../inputs/types.ts'
import { answer } from '../run/ask.ts'
import { prepare } from '../run/command.ts'
import { needed, settleDebt, word } from '../run/order.ts'
import { note, report, thisRun } from '../run/session.ts'
import { setVariable } from '../run/variables.ts'
import { check, say } from '../run/words.ts'

declare module '../inputs/types.ts' {
  interface Release {
    /** from publishBackup(release) */
    isBackedUp?: true
  }
}

/** Sets `$time`, when this run was started, and makes the directory of a release's backups. */
export const makeBackupDirectory = word('makeBackupDirectory', async ({ release }: Release) => {
  await setVariable('time', '{time_of_this_run}', async () => thisRun().time)
  await prepare`mkdir -p backups/${release} && rm -f backups/${release}/*.yaml.new`
})

/**
 * Makes a backup that was just written the one that the manual's name leads to: it is read back and
 * checked, and on the disk for good, before that. Earlier backups stay, and a file of somebody else too.
 * @param file where it was written, as the shell says it: backups/mspider/$revision-$time.yaml.new
 * @throws Failure 1 when it is not a good backup, 73 when it is not on the disk
 */
export const publishBackup = word('publishBackup', async (each: Release, file: ShellLines) => {
  const { release, backup, revision } = each
  const { variables, commands } = thisRun()
  const isOfRelease = revision !== undefined && variables['revision'] === revision
  needed(isOfRelease || undefined, 'setLastDeployedRevision(release)', 'publishBackup(release)')
  needed(variables['time'], 'makeBackupDirectory(release)', 'publishBackup(release)')
  const path = file.lines.join('')
  const isWritten = commands.some((text) => text.includes(path)) || undefined
  needed(isWritten, `the command that writes ${path}`, 'publishBackup(release)')
  await check(
    'check: the file is read back and compared with the values in the cluster',
    '检查：读回文件并与集群中的参数比较',
    () =>
      checkBackup(
        each,
        path.replace(/\$(\w+)/g, (_, name) => variables[name]!),
      ),
  )
  say(
    `a ${backup} that is a file of somebody else, not the link to the newest backup, is kept`,
    `若 ${backup} 是他人放置的文件，而不是指向最新备份的链接，则予以保留`,
  )
  await prepare`
if [ -e ${backup} ] && [ ! -L ${backup} ]; then mv -T ${backup} backups/${release}/by-hand-$time.yaml; fi`
  await prepare`
mv -T ${file} backups/${release}/$revision-$time.yaml
ln -sfn backups/${release}/$revision-$time.yaml ${backup}.new && mv -T ${backup}.new ${backup}`
  each.isBackedUp = true
  settleDebt(`publishBackup(${release})`)
})

/**
 * It must be YAML, the values and nothing else, and the same as what helm answers to a second question.
 * @param path from the module's directory
 */
async function checkBackup({ release, namespace, revision }: Release, path: string) {
  const file = join(thisRun().inputs.stateDirectory, path)
  const bad = (...text: Bilingual) => {
    const [en, zh] = bilingual(...text)
    return commandFailed`
      ${path} is not a good backup: ${en}
      ${path} 不是有效的备份：${zh}`.state`
      every earlier backup is as it was; bak.yaml still names the newest good one
      此前的备份均未改变；bak.yaml 仍指向最近一次有效的备份`
  }
  if (!existsSync(file))
    throw bad`
      it does not exist: the command above must write to the file that publishBackup(release, file) is given
      文件不存在：上面的命令必须写入 publishBackup(release, file) 所给的文件`
  const text = readFileSync(file, 'utf8')
  if (text.startsWith('USER-SUPPLIED VALUES:'))
    throw bad`
      it was made without -o yaml
      生成时缺少 -o yaml`
  let values: unknown
  try {
    values = parse(text)
  } catch (error) {
    const reason = (error as Error).message
    throw bad`
      it is not YAML: ${reason}
      不是 YAML：${reason}`
  }
  const isObject = typeof values === 'object' && !Array.isArray(values)
  if (text.trim() === '' || !isObject)
    throw bad`
    it holds no values
    其中没有参数`
  const said = await answer(
    `helm get values ${release} -n ${namespace} --revision ${revision} -o json`,
  )
  if (!isDeepStrictEqual(values, JSON.parse(said)))
    throw bad`
      it differs from the values in the cluster
      与集群中的参数不一致`
  for (const each of [file, dirname(file)]) {
    const descriptor = openSync(each, 'r')
    fsyncSync(descriptor)
    closeSync(descriptor)
  }
  note({ event: 'backup', release, revision, file: path, sha256: sha256(text) })
  const count = values ? `${Object.keys(values).length} top-level keys` : 'no user values at all'
  report(`  good: ${count}`)
}
