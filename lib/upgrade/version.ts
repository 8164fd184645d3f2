import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import semver from 'semver'
import { parse } from 'yaml'
import { didYouMean } from '../base/did-you-mean.ts'
import { type Failure, misconfigured, missing } from '../base/failure.ts'
import { quote } from '../base/shell.ts'
import { type Release } from '../inputs/types.ts'
import { answer, ask, questionFailed } from '../run/ask.ts'
import { needed, settleDebt, word } from '../run/order.ts'
import { firstTime, thisRun } from '../run/session.ts'
import { placeholderFor, setVariable } from '../run/variables.ts'
import { say } from '../run/words.ts'
import { chartSource } from './chart.ts'
import { chartVersion } from './history.ts'

declare module '../inputs/types.ts' {
  interface Release {
    /** from setVersion(release): the exact version of its chart in this run */
    version?: string
  }
}

/**
 * Sets `$version`: finds the chart version of this run and refuses what must not be, one that does not
 * exist, another than the package has, or an older one than is deployed. Without --version it is the
 * newest stable one of the repository.
 * @throws Failure 66 unknown version or chart · 78 the package is of another version or chart, or older than what is deployed
 */
export const setVersion = word('setVersion', async (release: Release) => {
  const { inputs, usesOci } = thisRun()
  const { flags, site } = inputs
  const what = flags.via === 'package' ? 'version_of_the_chart_package' : 'newest_stable_version'
  const placeholder = flags.version ?? placeholderFor(what, release)
  if (flags.via === 'repo' && site.chartRepository.kind === 'OCI')
    needed(usesOci, 'useOciRepository()', 'setVersion(release)')
  else if (flags.via === 'repo')
    needed(release.hasFreshIndex, 'checkIndexIsFresh(release)', 'setVersion(release)')
  release.version = await setVariable('version', placeholder, async () => {
    const version =
      release.version ??
      (flags.via === 'package' ? await packageVersion(release) : await repositoryVersion(release))
    refuseDowngrade(release, version)
    return version
  })
  settleDebt(`setVersion(${release.release})`)
})

/** @throws Failure 70 unless `$version` is that of the release */
export function needVersion({ version }: Release, called: string) {
  const isSet = version !== undefined && thisRun().variables['version'] === version
  return needed(isSet ? version : undefined, 'setVersion(release)', called)
}

async function packageVersion(release: Release): Promise<string> {
  const { inputs } = thisRun()
  const path = inputs.flags.chart!
  if (!existsSync(resolve(inputs.stateDirectory, path))) {
    throw missing`
      the chart ${path} does not exist
      chart ${path} 不存在`.next`
      --chart names a .tgz, or the directory that holds Chart.yaml
      --chart 应指向 .tgz 文件，或包含 Chart.yaml 的目录`
  }
  const question = `helm show chart ${quote(path)}`
  const ended = await ask(question)
  if (ended.exitCode !== 0) {
    const failure = missing`
      ${path} is not a chart that helm can read
      helm 无法读取 chart ${path}`
    Object.assign(failure.details, questionFailed(question, ended).details)
    throw failure
  }
  const { name, version } = parse(ended.stdout, { schema: 'failsafe' })
  if (name !== release.chart) {
    throw misconfigured`
      ${path} is the chart ${name}; ${release.release} needs the chart ${release.chart}
      ${path} 是 chart ${name}；${release.release} 需要 chart ${release.chart}`
  }
  const wanted = inputs.flags.version
  if (wanted && wanted !== version) {
    throw misconfigured`
      ${path} is version ${version}; --version says ${wanted}
      ${path} 的版本为 ${version}，而 --version 为 ${wanted}`
  }
  return version
}

async function repositoryVersion(release: Release): Promise<string> {
  const { inputs } = thisRun()
  const wanted = inputs.flags.version
  const { chart, options } = chartSource(release)
  if (inputs.site.chartRepository.kind === 'OCI') {
    // helm resolves a missing version to the newest stable tag (helm 3.10 pkg/registry/client.go)
    const asked = wanted ? ` --version ${quote(wanted)}` : ''
    const question = `helm show chart ${[quote(chart), ...options.lines].join(' ')}${asked}`
    const ended = await ask(question)
    if (/not found|NAME_UNKNOWN|could not locate a version/i.test(ended.stderr))
      throw unknownVersion(release, chart, [])
    if (ended.exitCode !== 0) throw questionFailed(question, ended)
    const { version } = parse(ended.stdout, { schema: 'failsafe' })
    if (wanted && wanted !== version) throw unknownVersion(release, chart, [version])
    return version
  }
  // fuzzy: mspider-release/mspider also finds mspider-release/mspider-agent
  const found: { name: string; version: string }[] = JSON.parse(
    await answer(`helm search repo ${quote(chart)} --versions --devel -o json`),
  )
  const versions = found.filter(({ name }) => name === chart).map(({ version }) => version)
  const bare = (version: string) => version.replace(/^v/, '')
  const version = wanted
    ? (versions.find((each) => each === wanted) ??
      versions.find((each) => bare(each) === bare(wanted)))
    : versions.find((each) => semver.prerelease(each, { loose: true }) === null)
  if (!version) throw unknownVersion(release, chart, versions)
  return version
}

function unknownVersion({ chart }: Release, place: string, versions: string[]): Failure {
  const { version } = thisRun().inputs.flags
  const guess = didYouMean(version ?? '', versions)
  const some = versions.slice(0, 10).join(', ')
  const failure = version
    ? missing`
      ${place} has no version ${version}.${some && ` It has: ${some}.`}${guess.en}
      ${place} 没有版本 ${version}。${some && `现有：${some}。`}${guess.zh}`
    : missing`
      ${place} has no stable version.${some && ` It has: ${some}.`}
      ${place} 没有稳定版。${some && `现有：${some}。`}`
  return failure.next`
    has the bundle of ${chart} been synchronized to the repository?
    ${chart} 的离线包是否已同步到仓库？`
}

/** @throws Failure 78 where the version is older than the deployed one, unless --allow-downgrade is given */
export function refuseDowngrade({ before, ...release }: Release, version: string) {
  const { flags } = thisRun().inputs
  if (!before?.deployed) return
  const now = chartVersion(release, before.deployed)
  const older =
    semver.valid(version, true) && semver.valid(now, true) && semver.lt(version, now, true)
  if (!older) return
  if (flags['allow-downgrade']) {
    if (firstTime(`downgrade of ${release.release}`))
      say(
        `a downgrade from ${now}, as --allow-downgrade says`,
        `按 --allow-downgrade 从 ${now} 降级`,
      )
    return
  }
  throw misconfigured`
    ${version} is older than ${now}, which is deployed
    ${version} 低于当前已部署的 ${now}`.next`
    choose a newer --version; a downgrade that is meant needs --allow-downgrade
    请选择更新的 --version；确需降级请加 --allow-downgrade`
}
