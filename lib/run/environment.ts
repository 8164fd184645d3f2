import { delimiter, join, relative } from 'node:path'
import { ROOT } from '../base/root.ts'
import { quote } from '../base/shell.ts'
import { kubeconfigPath } from '../inputs/site.ts'
import { type Inputs, type Site } from '../inputs/types.ts'

/** Settings of the operator's that would lead helm, bash or node elsewhere. */
const LEFT_OUT = [
  'HELM_KUBECONTEXT',
  'HELM_KUBEAPISERVER',
  'HELM_KUBETOKEN',
  'HELM_KUBECAFILE',
  'HELM_KUBEASUSER',
  'HELM_KUBEASGROUPS',
  'HELM_NAMESPACE',
  'HELM_KUBEINSECURE_SKIP_TLS_VERIFY',
  'HELM_KUBETLS_SERVER_NAME',
  'HELM_DEBUG',
  'BASH_ENV',
  'NODE_OPTIONS',
]

/** The environment of every command: the site's cluster, and a helm configuration of the module's own. */
export function environment({ site, sitePath, stateDirectory }: Inputs): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = { ...process.env, LC_ALL: 'C' }
  for (const name of LEFT_OUT) delete env[name]
  return {
    ...env,
    KUBECONFIG: [
      join(stateDirectory, '.helm/context.yaml'),
      kubeconfigPath(site.kubeconfig, sitePath),
    ].join(delimiter),
    HELM_REPOSITORY_CONFIG: join(stateDirectory, '.helm/repositories.yaml'),
    HELM_REPOSITORY_CACHE: join(stateDirectory, '.helm/cache'),
    HELM_REGISTRY_CONFIG: join(stateDirectory, '.helm/registry.json'),
    PATH: `${process.env['PATH']}${delimiter}${join(ROOT, 'lib/bin')}`,
  }
}

/** The kubeconfig that pins every command to the site's context. */
export const contextFile = ({ context }: Site) =>
  `apiVersion: v1\nkind: Config\ncurrent-context: ${JSON.stringify(context)}\n`

/** helm's registry configuration that asks lib/bin/docker-credential-chart-repo for the login of a repository. */
export function credentialHelpers(url: string): string {
  const host = url.replace(/^oci:\/\//, '').split('/')[0]!
  return JSON.stringify({ credHelpers: { [host]: 'chart-repo' } })
}

/**
 * The begin of a dry run's bash script: the environment that its commands run in.
 * @param tools the programs that the script needs: what belongs to none of them is left out
 */
export function headerOf(inputs: Inputs, tools: string[]): string {
  const { script, module, site, flags, sitePath, stateDirectory } = inputs
  const directory = quote(relative(process.cwd(), stateDirectory))
  const kubeconfig = /^[~/]/.test(site.kubeconfig)
    ? site.kubeconfig
    : relative(stateDirectory, kubeconfigPath(site.kubeconfig, sitePath))
  const hasHelm = tools.includes('helm')
  const isOci = hasHelm && site.chartRepository.kind === 'OCI' && site.chartRepository.login
  const programs = join(relative(process.cwd(), ROOT), 'lib/bin')
  const usesPrograms = isOci || tools.includes('images-for-node')
  return [
    '#!/usr/bin/env bash',
    `# ${script}: ${module.title.en} · ${module.title.zh} (${module.name})${inputs.takesVia ? `, via ${flags.via}` : ''}`,
    '# A dry run: nothing was run. What only a real run can know is written {like_this}.',
    '# 试运行（dry run）：未执行任何命令。只有实际执行时才能得知的值写作 {like_this}。',
    'set -euo pipefail',
    'umask 077',
    ...(usesPrograms ? [`export PATH=$PATH:$PWD/${quote(programs)}`] : []),
    `mkdir -p ${directory}${hasHelm || tools.includes('kubectl') ? '/.helm' : ''} && cd ${directory}`,
    ...(tools.includes('kubectl')
      ? [
          `# the context ${site.context}, whatever else the terminal uses${hasHelm ? '; a helm configuration of its own' : ''}`,
          `# 固定使用 context ${site.context}${hasHelm ? '；使用独立的 helm 配置' : ''}`,
          `printf 'apiVersion: v1\\nkind: Config\\ncurrent-context: %s\\n' ${quote(site.context)} > .helm/context.yaml`,
          `export KUBECONFIG=$PWD/.helm/context.yaml:${kubeconfig}`,
        ]
      : hasHelm
        ? ['# a helm configuration of its own', '# 使用独立的 helm 配置']
        : []),
    ...(hasHelm
      ? [
          'export HELM_REPOSITORY_CONFIG=$PWD/.helm/repositories.yaml',
          'export HELM_REPOSITORY_CACHE=$PWD/.helm/cache',
          'export HELM_REGISTRY_CONFIG=$PWD/.helm/registry.json',
        ]
      : []),
    // lib/bin/docker-credential-chart-repo gives helm the login from the environment
    ...(isOci
      ? [`echo ${quote(credentialHelpers(site.chartRepository.url!))} > .helm/registry.json`]
      : []),
    '',
  ].join('\n')
}
