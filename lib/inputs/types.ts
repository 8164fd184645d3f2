import { type Flags, type Via } from './flags.ts'

/** A helm release of a module: what `modules/schemas/module.schema.json` says of it. */
export interface Release {
  release: string
  namespace: string
  repository: string
  chart: string
  backup: string
  crds?: { directories: string[]; mayBeMissing?: boolean }
  registryKeys: Record<Via, Record<string, string>>
}

export interface Module {
  name: string
  title: { en: string; zh: string }
  manuals: string[]
  bundle: { directory: string; file: string }
  containerRepository: string
  releases: Release[]
}

/** How nodes are reached, and what they run. */
export interface NodeSettings {
  user?: string
  port?: number
  identityFile?: string
  knownHostsFile?: string
  sudo?: boolean
  runtime?: 'containerd' | 'docker'
}

export interface Site {
  name: string
  kubeconfig: string
  context: string
  architecture: 'amd64' | 'arm64'
  containerRegistry: string
  project: string
  containerRegistryLogin?: boolean
  containerRegistryCaFile?: string
  imagesFrom: 'registry' | 'nodes'
  chartRepository: {
    kind: 'HARBOR' | 'CHARTMUSEUM' | 'OCI' | 'LOCAL'
    url?: string
    login?: boolean
    caFile?: string
    plainHttp?: boolean
  }
  registryValues?: Record<string, Partial<Record<Via, Record<string, string>>>>
  otherImages?: string[]
  nodes?: NodeSettings & { list?: (NodeSettings & { name: string; address: string })[] }
}

export interface Inputs {
  /** the started script: its path, and its name without the ending */
  scriptPath: string
  script: string
  flags: Flags
  /** does the script go the one way or the other, --via repo or package? */
  takesVia: boolean
  module: Module
  /** the module's releases, or the one that --release names */
  releases: Release[]
  modulePath: string
  site: Site
  sitePath: string
  /** state/<site>/<module>/ beside the site file; commands run in it */
  stateDirectory: string
}
