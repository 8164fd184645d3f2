import { closeSync, fsyncSync, openSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { parse } from 'yaml'
import { note, sha256 } from '../audit/write.ts'
import { EXIT, Failure } from '../base/failure.ts'
import { type Release } from '../inputs/inputs.ts'
import { answer, check, report } from '../run/words.ts'
import { thisRun } from '../run/session.ts'

/**
 * A backup that was just written is read back: it must be YAML, the values and nothing else, and the
 * same as what helm answers to a second question. Then it is on the disk for good.
 * @throws Failure 1 when it is not a good backup, 73 when it is not on the disk
 */
export async function checkBackup({ release, namespace }: Release) {
  await check(
    'check: the file is read back and compared with the values in the cluster',
    '检查：读回文件并与集群中的参数比较',
    async () => {
      const { inputs, variables } = thisRun()
      const { revision, time } = variables
      const path = `backups/${release}/${revision}-${time}.yaml.new`
      const file = join(inputs.stateDirectory, path)
      const bad = (en: string, zh: string, code: number = EXIT.commandFailed) =>
        new Failure(code, `${path} is not a good backup: ${en}`, `${path} 不是有效的备份：${zh}`, {
          state: [
            'every earlier backup is as it was; bak.yaml still names the newest good one',
            '此前的备份均未改变；bak.yaml 仍指向最近一次有效的备份',
          ],
        })
      const text = readFileSync(file, 'utf8')
      if (text.startsWith('USER-SUPPLIED VALUES:'))
        throw bad('it was made without -o yaml', '生成时缺少 -o yaml')
      let values: unknown
      try {
        values = parse(text)
      } catch (error) {
        throw bad(
          `it is not YAML: ${(error as Error).message}`,
          `不是 YAML：${(error as Error).message}`,
        )
      }
      if (
        text.trim() === '' ||
        (values !== null && (typeof values !== 'object' || Array.isArray(values)))
      ) {
        throw bad('it holds no values', '其中没有参数')
      }
      const said = await answer(
        `helm get values ${release} -n ${namespace} --revision ${revision} -o json`,
      )
      if (!isDeepStrictEqual(values, JSON.parse(said))) {
        throw bad('it differs from the values in the cluster', '与集群中的参数不一致')
      }
      for (const each of [file, dirname(file)]) {
        const descriptor = openSync(each, 'r')
        fsyncSync(descriptor)
        closeSync(descriptor)
      }
      note({
        event: 'backup',
        release,
        revision,
        file: path,
        sha256: sha256(text),
      })
      const count =
        values === null ? 'no user values at all' : `${Object.keys(values).length} top-level keys`
      report(`  good: ${count}`)
    },
  )
}
