import { chmodSync, existsSync, readFileSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { closest, distance } from 'fastest-levenshtein'
import semver from 'semver'
import { parse } from 'yaml'
import { EXIT, Failure, UNCHANGED } from '../base/failure.ts'
import { writeWhole } from '../base/files.ts'
import { registryValues, type Release } from '../inputs/inputs.ts'
import { chartVersion, stateBefore } from './releases.ts'
import {
  answer,
  ask,
  check,
  placeholderFor,
  questionFailed,
  say,
  setVariable,
} from '../run/words.ts'
import { thisRun } from '../run/session.ts'
import { quote, shellLines, type ShellLines } from '../base/shell.ts'

/** The repository's place for a release's chart, and what helm needs to get there. */
export function chartSource(release: Release): { chart: string; options: ShellLines } {
  const { inputs } = thisRun()
  const { chartRepository: repository } = inputs.site
  const { chart } = inputs.flags
  if (inputs.flags.via === 'package') return { chart: chart!, options: shellLines() }
  if (repository.kind !== 'OCI')
    return { chart: `${release.repository}/${release.chart}`, options: shellLines() }
  const options = [
    ...(repository.plainHttp ? ['--plain-http'] : []),
    ...(repository.caFile ? [`--ca-file ${quote(repository.caFile)}`] : []),
  ]
  return { chart: `${repository.url}/${release.chart}`, options: shellLines(...options) }
}

/**
 * The login of an OCI repository: helm asks lib/bin/docker-credential-chart-repo, which reads the
 * environment, so that no password is written to a file.
 */
export function useCredentialHelper() {
  const { inputs, dryRun } = thisRun()
  const { kind, login, url } = inputs.site.chartRepository
  if (dryRun || kind !== 'OCI') return
  if (login) requireLogin()
  const host = url!.replace(/^oci:\/\//, '').split('/')[0]!
  const path = join(inputs.stateDirectory, '.helm/registry.json')
  writeWhole(path, JSON.stringify(login ? { credHelpers: { [host]: 'chart-repo' } } : {}) + '\n')
}

function requireLogin() {
  const missing = ['CHART_REPO_USERNAME', 'CHART_REPO_PASSWORD'].filter(
    (name) => !process.env[name],
  )
  if (missing.length === 0) return
  throw new Failure(
    EXIT.configuration,
    `the site file says that the chart repository asks for a login, but not set: ${missing.join(', ')}`,
    `站点配置要求 chart 仓库登录，但未设置环境变量 ${missing.join('、')}`,
    {
      state: UNCHANGED,
      next: [
        'export it; a cron job can source a file of mode 0600 first, systemd has EnvironmentFile=',
        '请设置并 export；定时任务可先 source 一个权限为 0600 的文件，systemd 可用 EnvironmentFile=',
      ],
    },
  )
}

/**
 * Is the repository known to helm under this name, with this URL and login? The list is the module's
 * own (HELM_REPOSITORY_CONFIG), so an answer of an operator's list can't mislead.
 */
export async function repositoryIsKnown({ repository }: Release): Promise<boolean> {
  const { inputs, env } = thisRun()
  const { url, login, caFile = '' } = inputs.site.chartRepository
  const known = await check(
    'only if the step above did not find it, with this URL and login',
    '仅当上一步未找到该名称、URL 和登录信息时执行',
    async () => {
      if (login) requireLogin()
      const path = env['HELM_REPOSITORY_CONFIG']!
      if (!existsSync(path)) return false
      chmodSync(path, 0o600)
      const { repositories = [] } = parse(readFileSync(path, 'utf8')) ?? {}
      const found = repositories.find(({ name }: { name: string }) => name === repository)
      return (
        found?.url === url &&
        (found.caFile ?? '') === caFile &&
        (found.username ?? '') === (login ? process.env['CHART_REPO_USERNAME'] : '') &&
        (found.password ?? '') === (login ? process.env['CHART_REPO_PASSWORD'] : '')
      )
    },
  )
  return known ?? false
}

/**
 * The index must be of now: helm 3 ends with 0 when the server is down (`helm repo update NAME`) and
 * searches the old one.
 * @throws Failure 69
 */
export async function checkIndexIsFresh({ repository }: Release) {
  const { env, startedAt } = thisRun()
  await check(
    'check: the index was fetched in this run',
    '检查：仓库索引已在本次运行中更新',
    async () => {
      const path = join(env['HELM_REPOSITORY_CACHE']!, `${repository}-index.yaml`)
      const fetched = existsSync(path) ? statSync(path).mtimeMs : 0
      // a file's time may lie a tick of the kernel's clock back
      if (fetched >= startedAt - 20) return
      throw new Failure(
        EXIT.unreachable,
        `the repository ${repository} could not be updated; helm's index of it is ${fetched ? 'old' : 'missing'}`,
        `无法更新仓库 ${repository}；helm 的索引${fetched ? '是旧的' : '不存在'}`,
        {
          state: UNCHANGED,
          next: [
            'see what helm said above; is the repository up?',
            '请查看上面 helm 的输出；仓库是否可用？',
          ],
        },
      )
    },
  )
}

/** The versions of this run, by release. */
const versions = new Map<string, string>()

/**
 * Finds the chart version of this run and refuses what must not be: one that does not exist, another
 * than the package has, or an older one than is deployed.
 * @returns the exact version: without --version the newest stable one of the repository
 * @throws Failure 66 unknown version or chart · 78 the package is of another version or chart, or older than what is deployed
 */
export async function setVersion(release: Release) {
  const { flags } = thisRun().inputs
  const what = flags.via === 'package' ? 'version_of_the_chart_package' : 'newest_stable_version'
  const placeholder = flags.version ?? placeholderFor(what, release)
  await setVariable('version', placeholder, async () => {
    const known = versions.get(release.release)
    if (known) return known
    const version =
      flags.via === 'package' ? await packageVersion(release) : await repositoryVersion(release)
    refuseDowngrade(release, version)
    versions.set(release.release, version)
    return version
  })
}

async function packageVersion(release: Release): Promise<string> {
  const { inputs } = thisRun()
  const path = inputs.flags.chart!
  if (!existsSync(resolve(inputs.stateDirectory, path))) {
    throw new Failure(
      EXIT.missingInput,
      `the chart ${path} does not exist`,
      `chart ${path} 不存在`,
      {
        state: UNCHANGED,
        next: [
          '--chart names a .tgz, or the directory that holds Chart.yaml',
          '--chart 应指向 .tgz 文件，或包含 Chart.yaml 的目录',
        ],
      },
    )
  }
  const question = `helm show chart ${quote(path)}`
  const ended = await ask(question)
  if (ended.exitCode !== 0) {
    const failure = questionFailed(question, ended)
    throw new Failure(
      EXIT.missingInput,
      `${path} is not a chart that helm can read`,
      `helm 无法读取 chart ${path}`,
      failure.details,
    )
  }
  const { name, version } = parse(ended.stdout, { schema: 'failsafe' })
  const unfit = (en: string, zh: string) =>
    new Failure(EXIT.configuration, en, zh, {
      state: UNCHANGED,
    })
  if (name !== release.chart) {
    throw unfit(
      `${path} is the chart ${name}; ${release.release} needs the chart ${release.chart}`,
      `${path} 是 chart ${name}；${release.release} 需要 chart ${release.chart}`,
    )
  }
  const wanted = inputs.flags.version
  if (wanted && wanted !== version) {
    throw unfit(
      `${path} is version ${version}; --version says ${wanted}`,
      `${path} 的版本为 ${version}，而 --version 为 ${wanted}`,
    )
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
  const near = version && versions.length > 0 ? closest(version, versions) : ''
  const guess = near && distance(near, version!) <= 2 ? ` Did you mean ${near}?` : ''
  const some = versions.slice(0, 10).join(', ')
  return new Failure(
    EXIT.missingInput,
    version
      ? `${place} has no version ${version}.` + (some && ` It has: ${some}.`) + guess
      : `${place} has no stable version.` + (some && ` It has: ${some}.`),
    version
      ? `${place} 没有版本 ${version}。` + (some && `现有：${some}。`)
      : `${place} 没有稳定版。` + (some && `现有：${some}。`),
    {
      state: UNCHANGED,
      next: [
        `has the bundle of ${chart} been synchronized to the repository?`,
        `${chart} 的离线包是否已同步到仓库？`,
      ],
    },
  )
}

function refuseDowngrade(release: Release, version: string) {
  const { flags } = thisRun().inputs
  const deployed = stateBefore(release).deployed
  if (!deployed) return
  const now = chartVersion(release, deployed)
  const older =
    semver.valid(version, true) && semver.valid(now, true) && semver.lt(version, now, true)
  if (!older) return
  if (flags['allow-downgrade'])
    return say(
      `a downgrade from ${now}, as --allow-downgrade says`,
      `按 --allow-downgrade 从 ${now} 降级`,
    )
  throw new Failure(
    EXIT.configuration,
    `${version} is older than ${now}, which is deployed`,
    `${version} 低于当前已部署的 ${now}`,
    {
      state: UNCHANGED,
      next: [
        'choose a newer --version; a downgrade that is meant needs --allow-downgrade',
        '请选择更新的 --version；确需降级请加 --allow-downgrade',
      ],
    },
  )
}

/** The registry keys of a release for its `helm upgrade`. */
export interface RegistryKeys {
  /** what `export imageRegistry=` gets */
  value: string
  /** `--set KEY=$imageRegistry`, a line for each key */
  set: ShellLines
  /** key and value */
  pairs: [key: string, value: string][]
}

/**
 * The registry keys with their values. The manual has one variable for all of them; a key whose value
 * has another form than the first one's is written out.
 */
export function registryKeys(release: Release): RegistryKeys {
  const pairs = registryValues(thisRun().inputs, release)
  const value = pairs[0]![1]
  const set = pairs.map(
    ([key, own]) => `--set ${key}=${own === value ? '$imageRegistry' : quote(own)}`,
  )
  return { value, set: shellLines(...set), pairs }
}
