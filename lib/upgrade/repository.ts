import { chmodSync, existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'yaml'
import { unreachable } from '../base/failure.ts'
import { writeWhole } from '../base/files.ts'
import { type Release } from '../inputs/types.ts'
import { loginOf } from '../registry/http.ts'
import { credentialHelpers } from '../run/environment.ts'
import { owe, word } from '../run/order.ts'
import { thisRun } from '../run/session.ts'
import { check, say } from '../run/words.ts'

declare module '../run/session.ts' {
  interface Run {
    /** from useOciRepository() */
    usesOci?: true
  }
}

declare module '../inputs/types.ts' {
  interface Release {
    /** from checkIndexIsFresh(release) */
    hasFreshIndex?: true
  }
}

/** @throws Failure 78 where the environment has no login for the chart repository */
function ensureLogin() {
  loginOf({ address: thisRun().inputs.site.chartRepository.url!, login: 'CHART_REPO' })
}

/**
 * An OCI repository needs nothing but its login: helm asks lib/bin/docker-credential-chart-repo for it,
 * which reads the environment, so that no password is written to a file.
 * @throws Failure 78 where the environment has no login
 */
export const useOciRepository = word('useOciRepository', () => {
  const { inputs, dryRun } = thisRun()
  const { login, url } = inputs.site.chartRepository
  say('an OCI repository is neither added nor updated nor searched', 'OCI 仓库无需添加、更新和搜索')
  thisRun().usesOci = true
  if (dryRun) return
  if (login) ensureLogin()
  const path = join(inputs.stateDirectory, '.helm/registry.json')
  writeWhole(path, `${login ? credentialHelpers(url!) : '{}'}\n`)
})

/**
 * Is the repository known to helm under this name, with this URL and login? The list is the module's
 * own (HELM_REPOSITORY_CONFIG), so an answer of an operator's list can't mislead.
 */
export const repositoryIsKnown = word('repositoryIsKnown', async ({ repository }: Release) => {
  const { inputs, env } = thisRun()
  const { url, login, caFile = '' } = inputs.site.chartRepository
  return check(
    'only if the step above did not find it, with this URL and login',
    '仅当上一步未找到该名称、URL 和登录信息时执行',
    async () => {
      if (login) ensureLogin()
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
    false,
  )
})

/**
 * The index must be of now: helm 3 ends with 0 when the server is down (`helm repo update NAME`) and
 * searches the old one.
 * @throws Failure 69
 */
export const checkIndexIsFresh = word('checkIndexIsFresh', async (release: Release) => {
  const { env, startedAt } = thisRun()
  const { repository } = release
  await check(
    'check: the index was fetched in this run',
    '检查：仓库索引已在本次运行中更新',
    async () => {
      const path = join(env['HELM_REPOSITORY_CACHE']!, `${repository}-index.yaml`)
      const fetched = existsSync(path) ? statSync(path).mtimeMs : 0
      // a file's time may lie a tick of the kernel's clock back
      if (fetched >= startedAt - 20) return
      throw unreachable`
        the repository ${repository} could not be updated; helm's index of it is ${fetched ? 'old' : 'missing'}
        无法更新仓库 ${repository}；helm 的索引${fetched ? '未更新' : '不存在'}`.next`
        see what helm said above; is the repository up?
        请查看上面 helm 的输出；仓库是否可用？`
    },
  )
  release.hasFreshIndex = true
  owe(`setVersion(${release.release})`)
})
