import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { stringify } from 'yaml'
import { note, sha256 } from '../audit/write.ts'
import { EXIT, Failure } from '../base/failure.ts'
import { writeWhole } from '../base/files.ts'
import { type Release } from '../inputs/inputs.ts'
import { objectsIn, type KubernetesObject } from '../cluster/kubernetes.ts'
import { answer, check, report } from '../run/words.ts'
import { thisRun } from '../run/session.ts'
import { quote, shellLines, type ShellLines } from '../base/shell.ts'

/**
 * The chart's CRDs must be there and be nothing else.
 * @param chart the unpacked chart, from the module's directory
 * @returns `-f <directory>` for each directory; none where this version of the chart has no CRDs
 * @throws Failure 66 where the CRDs are missing, 78 where something else lies there
 */
export async function crdDirectories(chart: string, { crds }: Release): Promise<ShellLines> {
  const { inputs, dryRun } = thisRun()
  const all = crds!.directories.map((directory) => `${chart}/${directory}`)
  const found = await check(
    `check: ${all.join(' ')} holds CRDs and nothing else`,
    `检查：${all.join(' ')} 中只有 CRD`,
    async () => {
      const there: string[] = []
      for (const directory of all) {
        const path = resolve(inputs.stateDirectory, directory)
        if (!existsSync(path)) {
          if (crds!.mayBeMissing) continue
          throw new Failure(
            EXIT.missingInput,
            `the chart has no ${directory}`,
            `chart 中没有 ${directory}`,
            {
              state: ['no CRD was changed', '未更改任何 CRD'],
              next: [
                'is this the chart of the module? In a descriptor, crds.mayBeMissing says that only some versions have CRDs',
                '这是该模块的 chart 吗？若仅部分版本带有 CRD，可在模块描述中设置 crds.mayBeMissing',
              ],
            },
          )
        }
        for (const object of crdsIn(path)) {
          if (object.kind !== 'CustomResourceDefinition') {
            throw new Failure(
              EXIT.configuration,
              `${directory} holds a ${object.kind} (${object.metadata?.name}), which is not a CRD`,
              `${directory} 中含有 ${object.kind}（${object.metadata?.name}），不是 CRD`,
              {
                state: ['no CRD was changed', '未更改任何 CRD'],
              },
            )
          }
          report(`  ${object.metadata.name}`)
        }
        there.push(directory)
      }
      return there
    },
  )
  return shellLines(...(dryRun ? all : found!).map((directory) => `-f ${quote(directory)}`))
}

function crdsIn(path: string): KubernetesObject[] {
  return readdirSync(path)
    .filter((file) => /\.(ya?ml|json)$/.test(file) && statSync(join(path, file)).isFile())
    .flatMap((file) => objectsIn(readFileSync(join(path, file), 'utf8')))
}

/** The commands that bring back the CRDs as they were before this run. */
export const crdsToRestore: string[] = []

/** What the API server owns in an object; without it the saved object can be applied again. */
const SERVER_OWNED = [
  'resourceVersion',
  'uid',
  'creationTimestamp',
  'generation',
  'managedFields',
  'selfLink',
]

/**
 * Saves the CRDs as they are in the cluster, in a file that can be applied again; one that does not
 * exist yet is not in it.
 * @param directories the CRDs that are about to be applied
 * @throws Failure 73 when the file can't be written
 */
export async function saveCrds(directories: ShellLines, release: Release) {
  const { inputs, time } = thisRun()
  const path = `crds/${release.release}-${time}.yaml`
  await check(
    `the CRDs as they are now are saved to ${inputs.flags['dry-run'] ? `crds/${release.release}-{time_of_this_run}.yaml` : path}`,
    `保存当前的 CRD`,
    async () => {
      const text = await answer(
        `kubectl get ${directories.lines.join(' ')} --ignore-not-found -o yaml --request-timeout=20s`,
      )
      const objects = objectsIn(text).map((object) => {
        const { status: _status, ...rest } = object
        const metadata = Object.fromEntries(
          Object.entries(object.metadata).filter(([key]) => !SERVER_OWNED.includes(key)),
        )
        return { ...rest, metadata }
      })
      if (objects.length === 0) return report('  there are none yet · 尚无 CRD')
      const saved = objects.map((object) => stringify(object)).join('---\n')
      const file = join(inputs.stateDirectory, path)
      writeWhole(file, saved)
      note({
        event: 'crds',
        release: release.release,
        file: path,
        count: objects.length,
        sha256: sha256(saved),
      })
      crdsToRestore.push(`kubectl apply --server-side --force-conflicts -f ${quote(file)}`)
      report(`  ${objects.length} saved; to go back · 如需恢复:  ${crdsToRestore.at(-1)}`)
    },
  )
}
