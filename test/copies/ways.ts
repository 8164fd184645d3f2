import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** A command line of a script at a site: together they take every statement that a dry run can take. */
export interface Way {
  name: string
  /** the script that is started */
  script: string
  args: string[]
  site: Site
  /** are there stand-ins for all that a real run of it needs? */
  isReal: boolean
}

type Site = keyof typeof REPOSITORIES

const REPOSITORIES = {
  login: 'kind: HARBOR\n  url: http://127.0.0.1:1/chartrepo/x\n  login: true',
  // no caFile: helm keeps its path, which is another one in each copy
  noLogin: 'kind: CHARTMUSEUM\n  url: https://127.0.0.1:1\n  login: false',
  oci: 'kind: OCI\n  url: oci://127.0.0.1:1/x\n  login: false\n  plainHttp: true',
  local: 'kind: LOCAL',
  nodes: 'kind: HARBOR\n  url: http://127.0.0.1:1/chartrepo/x\n  login: true',
  nodeList:
    'kind: LOCAL\nnodes:\n  list:\n    - name: node1\n      address: 127.0.0.1\n    - name: node2\n      address: 127.0.0.1\n      runtime: docker',
}

/** What helm's stand-in has of each release, and its charts: name and newest version. */
export const CHARTS = {
  mspider: '2.0.0',
  kairship: '2.0.0',
  skoala: '2.0.0',
  first: '2.0.0',
  second: '3.0.0',
}

/** A module with two releases: what is true of the one must not be taken for the other. */
const PAIR = {
  name: 'pair',
  title: { en: 'A pair', zh: '一对' },
  manuals: [],
  bundle: { directory: 'pair-offline', file: 'pair.bundle.tar' },
  containerRepository: '{project}/pair',
  releases: ['first', 'second'].map((name) => ({
    release: name,
    namespace: 'pair-system',
    repository: 'pair-release',
    chart: name,
    backup: `${name}.yaml`,
    ...(name === 'first' && { crds: { directories: ['crds'] } }),
    registryKeys: {
      repo: { 'global.imageRegistry': '{containerRegistry}' },
      package: { 'global.imageRegistry': '{containerRegistry}/{containerRepository}' },
    },
  })),
}

export const MODULE_OF: Record<string, { module: string; namespace: string }> = {
  mspider: { module: 'mspider', namespace: 'mspider-system' },
  kairship: { module: 'kairship', namespace: 'kairship-system' },
  skoala: { module: 'skoala', namespace: 'skoala-system' },
  first: { module: 'pair', namespace: 'pair-system' },
  second: { module: 'pair', namespace: 'pair-system' },
}

export const writePair = (copy: string) =>
  writeFileSync(join(copy, 'modules/pair.json'), JSON.stringify(PAIR))

export const way = (
  script: string,
  module: string,
  args: string[] = [],
  site: Site = 'login',
): Way => ({
  name: [script, module, site, ...args].join(' '),
  script,
  args: ['--module', module, ...args],
  site,
  isReal: !/-images$/.test(script) && site !== 'nodes',
})

/** where the charts are, from the copy */
const CHART = 'run/charts'

const UPGRADE_PAIR = way('upgrade', 'pair')
const UPGRADE_OCI = way('upgrade', 'skoala', [], 'oci')

/** For each script the command lines that lead through it. */
export const WAYS: Record<string, Way[]> = {
  'helm-repo': [
    way('helm-repo', 'pair'),
    way('helm-repo', 'mspider', [], 'noLogin'),
    way('helm-repo', 'skoala', [], 'oci'),
    UPGRADE_PAIR,
  ],
  'backup-values': [way('backup-values', 'pair'), UPGRADE_PAIR],
  'update-crds': [
    way('update-crds', 'pair'),
    way('update-crds', 'kairship', ['--via', 'package', '--chart', `${CHART}/kairship`]),
    way('update-crds', 'kairship', ['--via', 'package', '--chart', `${CHART}/kairship-2.0.0.tgz`]),
    way('update-crds', 'mspider'),
    UPGRADE_PAIR,
  ],
  upgrade: [
    UPGRADE_PAIR,
    way('upgrade', 'kairship', ['--via', 'package', '--chart', `${CHART}/kairship-2.0.0.tgz`]),
    way('upgrade', 'mspider', ['--install', '--values', 'run/values.yaml']),
    UPGRADE_OCI,
    way('upgrade', 'mspider', [], 'nodes'),
  ],
  'sync-images': [
    way('sync-images', 'skoala'),
    way('sync-images', 'skoala', [], 'noLogin'),
    way('sync-images', 'skoala', [], 'local'),
    way('sync-images', 'skoala', [], 'oci'),
    way('sync-images', 'pair', ['--all', '--bundle', 'run']),
  ].map((each) => ({
    ...each,
    args: each.args.includes('--all') ? each.args.slice(2) : each.args,
  })),
  'load-images': [
    way('load-images', 'skoala'),
    way('load-images', 'skoala', ['--local']),
    way('load-images', 'skoala', [], 'nodeList'),
    way('load-images', 'skoala', [], 'nodes'),
  ],
}

/** A site file, with what it names beside it. */
export function writeSite(directory: string, site: Site, registry: string, project: string) {
  mkdirSync(directory, { recursive: true })
  for (const file of ['kubeconfig', 'ca.crt']) writeFileSync(join(directory, file), '')
  writeFileSync(
    join(directory, 'site.yaml'),
    `name: stand-in
kubeconfig: ./kubeconfig
context: stand-in
architecture: amd64
containerRegistry: ${registry}
project: ${project}
imagesFrom: ${site.startsWith('node') ? 'nodes' : 'registry'}
chartRepository:
  ${REPOSITORIES[site]}
`,
  )
}
