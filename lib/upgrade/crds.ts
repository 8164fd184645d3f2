import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { stringify } from 'yaml'
import { misconfigured, missing } from '../base/failure.ts'
import { writeWhole } from '../base/files.ts'
import { sha256 } from '../base/hash.ts'
import { lines, quote, type ShellLines } from '../base/shell.ts'
import { type KubernetesObject, objectsIn } from '../cluster/kubernetes.ts'
import { type Release } from '../inputs/types.ts'
import { answer } from '../run/ask.ts'
import { prepare, run } from '../run/command.ts'
import { needed, owe, settleDebt, word } from '../run/order.ts'
import { note, report, thisRun } from '../run/session.ts'
import { check } from '../run/words.ts'
import { chartSource, isArchive } from './chart.ts'
import { needVersion } from './version.ts'

declare module '../inputs/types.ts' {
  interface Release {
    /** from makeChartDirectory(release): where the unpacked chart is, from the module's directory */
    unpackedChart?: string
    /** how many commands were run before the chart is unpacked into that directory */
    commandsBefore?: number
    /** from findCrds(release): `-f DIRECTORY` for each that the chart has */
    foundCrds?: ShellLines
    /** from saveCrds(release) */
    hasSavedCrds?: true
    /** from waitForCrds(release), or from findCrds(release) where the chart has none */
    hasCrds?: true
    /** the command that brings the CRDs back as they were before this run */
    restoreCrds?: string
    /** from tryCrds(release) */
    hasTriedCrds?: true
  }
}

/**
 * Makes a fresh directory for a chart that is unpacked: over an old one both would be merged. A chart
 * that is a directory stays where it is.
 */
export const makeChartDirectory = word('makeChartDirectory', async (release: Release) => {
  const { flags } = thisRun().inputs
  const { chart } = chartSource(release)
  const directory = `charts/${release.release}`
  const isPacked = flags.via === 'repo' || isArchive(chart)
  release.unpackedChart = isPacked ? `${directory}/${release.chart}` : chart
  if (isPacked) {
    await prepare`rm -rf ${directory} && mkdir -p ${directory}`
    release.commandsBefore = thisRun().commands.length
  }
  owe(`findCrds(${release.release})`)
})

/**
 * Finds the chart's CRDs: they must be there and be nothing else.
 * @returns whether there are some: only some versions of a chart may have CRDs
 * @throws Failure 66 where the CRDs are missing, 78 where something else is among them
 */
export const findCrds = word('findCrds', async (release: Release): Promise<boolean> => {
  const { inputs, commands } = thisRun()
  const { stateDirectory } = inputs
  const { directories, mayBeMissing } = release.crds!
  needed(release.before, 'checkReleases()', 'findCrds(release)')
  needVersion(release, 'findCrds(release)')
  const chart = needed(release.unpackedChart, 'makeChartDirectory(release)', 'findCrds(release)')
  const { commandsBefore } = release
  if (commandsBefore !== undefined) {
    const directory = `charts/${release.release}`
    const isUnpacked = commands.slice(commandsBefore).some((text) => text.includes(directory))
    const before = `the command that unpacks the chart into ${directory}`
    needed(isUnpacked || undefined, before, 'findCrds(release)')
  }
  const all = directories.map((directory) => `${chart}/${directory}`)
  const found = await check(
    `check: ${all.join(' ')} holds CRDs and nothing else`,
    `检查：${all.join(' ')} 中只有 CRD`,
    async () =>
      all.filter((directory) => {
        const path = resolve(stateDirectory, directory)
        if (existsSync(path)) refuseOthers(directory, crdsIn(path))
        else if (!mayBeMissing)
          throw missing`
            ${directory} is missing in the chart
            chart 中没有 ${directory}`.next`
            is this the chart of the module? In a descriptor, crds.mayBeMissing says that only some versions have CRDs
            这是该模块的 chart 吗？若仅部分版本带有 CRD，可在模块描述中设置 crds.mayBeMissing`
        return existsSync(path)
      }),
    all,
  )
  release.foundCrds = lines(...found.map((directory) => `-f ${quote(directory)}`))
  settleDebt(`findCrds(${release.release})`)
  if (found.length > 0) owe(`waitForCrds(${release.release})`)
  else release.hasCrds = true
  return found.length > 0
})

function crdsIn(path: string): KubernetesObject[] {
  return readdirSync(path)
    .filter((file) => /\.(ya?ml|json)$/.test(file) && statSync(join(path, file)).isFile())
    .flatMap((file) => objectsIn(readFileSync(join(path, file), 'utf8')))
}

/** @throws Failure 78 */
function refuseOthers(directory: string, objects: KubernetesObject[]) {
  for (const { kind, metadata } of objects) {
    if (kind !== 'CustomResourceDefinition')
      throw misconfigured`
        ${directory} holds a ${kind} (${metadata?.name}), which is not a CRD
        ${directory} 中含有 ${kind}（${metadata?.name}），不是 CRD`
    report(`  ${metadata.name}`)
  }
}

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
 * @throws Failure 73 when the file can't be written
 */
export const saveCrds = word('saveCrds', async (release: Release) => {
  const { inputs, time, dryRun } = thisRun()
  const crds = needed(release.foundCrds, 'findCrds(release)', 'saveCrds(release)')
  const path = `crds/${release.release}-${dryRun ? '{time_of_this_run}' : time}.yaml`
  await check(
    `the CRDs as they are now are saved to ${path}`,
    `将当前的 CRD 保存到 ${path}`,
    async () => {
      const text = await answer(
        `kubectl get ${crds.lines.join(' ')} --ignore-not-found -o yaml --request-timeout=20s`,
      )
      const objects = objectsIn(text).map((object) => {
        const { status: _status, ...rest } = object
        const metadata = Object.fromEntries(
          Object.entries(object.metadata).filter(([key]) => !SERVER_OWNED.includes(key)),
        )
        return { ...rest, metadata }
      })
      const count = objects.length
      if (count === 0) return report('  there are none yet · 尚无 CRD')
      const saved = objects.map((object) => stringify(object)).join('---\n')
      const file = join(inputs.stateDirectory, path)
      writeWhole(file, saved)
      note({ event: 'crds', release: release.release, file: path, count, sha256: sha256(saved) })
      release.restoreCrds = `kubectl apply --server-side --force-conflicts -f ${quote(file)}`
      report(`  ${count} saved; to go back · 如需恢复:  ${release.restoreCrds}`)
    },
  )
  release.hasSavedCrds = true
})

/** All or none: a CRD that the API server refuses is found before the first one is changed. */
export const tryCrds = word('tryCrds', async (release: Release) => {
  needed(release.hasSavedCrds, 'saveCrds(release)', 'tryCrds(release)')
  await prepare`
kubectl apply ${release.foundCrds!} \
  --server-side --force-conflicts --dry-run=server`
  release.hasTriedCrds = true
})

/** The directories of the CRDs that were saved and tried, as words of a command. */
export function triedCrds(release: Release): ShellLines {
  needed(release.hasTriedCrds, 'tryCrds(release)', 'triedCrds(release)')
  return release.foundCrds!
}

/** Waits until the API server serves the CRDs. */
export const waitForCrds = word('waitForCrds', async (release: Release) => {
  const crds = triedCrds(release)
  const isApplied = thisRun().commands.some(
    (text) =>
      /^\s*kubectl apply\b/.test(text) &&
      !text.includes('--dry-run') &&
      crds.lines.every((line) => text.includes(line)),
  )
  needed(isApplied || undefined, 'kubectl apply of these CRDs', 'waitForCrds(release)')
  // an API server that was restarted meanwhile may take 5 minutes: it looks at its CRDs again by then
  // (Kubernetes 1.33 apiextensions-apiserver: crdHandler queues on an update, informers resync)
  await run`
kubectl wait ${crds} \
  --for=condition=Established --timeout=360s`
  release.hasCrds = true
  settleDebt(`waitForCrds(${release.release})`)
})
