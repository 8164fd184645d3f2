import { execFile } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { homedir } from 'node:os'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { alone } from './processes.ts'

const run = promisify(execFile)
const here = import.meta.dirname

/** What the labs share: tools, and the vendor's delivery. */
export const cache = `${process.env.XDG_CACHE_HOME || `${homedir()}/.cache`}/dce-upgrade-lab`

interface Tool {
  name: string
  version: string
  /** how long it takes with empty caches on two cores */
  seconds: number
  build: (into: string) => Promise<unknown>
}

const go = (args: string[], environment: Record<string, string> = {}) =>
  run('go', args, {
    env: { ...process.env, CGO_ENABLED: '0', GOFLAGS: '-buildvcs=false', ...environment },
    maxBuffer: 1 << 26,
  })

const helm = (version: string, seconds: number): Tool => {
  const module = `helm.sh/helm/${version.split('.')[0]}`
  const flags = `-s -w -X ${module}/internal/version.version=${version}`
  return {
    name: 'helm',
    version,
    seconds,
    build: (into) =>
      go(['install', `-ldflags=${flags}`, `${module}/cmd/helm@${version}`], { GOBIN: into }),
  }
}

/** Without these it calls itself v0.0.0-master, and helm's and kubectl's version checks fail. */
const kubernetesVersion = 'v1.33.4'
const kubernetesFlags = [
  '-s',
  `-X k8s.io/component-base/version.gitVersion=${kubernetesVersion}`,
  '-X k8s.io/component-base/version.gitMajor=1',
  '-X k8s.io/component-base/version.gitMinor=33',
].join(' ')

const kubernetes = (name: string, seconds: number): Tool => ({
  name,
  version: kubernetesVersion,
  seconds,
  build: (into) => {
    const flags = ['-trimpath', `-ldflags=${kubernetesFlags}`, '-o', into]
    return go(['-C', `${here}/go/kubernetes`, 'build', ...flags, `k8s.io/kubernetes/cmd/${name}`])
  },
})

const tools: Tool[] = [
  helm('v3.22.0', 70),
  helm('v3.10.3', 70),
  helm('v4.3.1', 95),
  {
    name: 'charts-syncer',
    version: 'v0.20.3',
    seconds: 105,
    build: (into) => {
      const source = 'github.com/bitnami/charts-syncer'
      return go(['-C', `${here}/go/charts-syncer`, 'build', '-o', into, source])
    },
  },
  kubernetes('kubectl', 90),
  kubernetes('kubelet', 115),
  kubernetes('kube-apiserver', 60),
  kubernetes('kube-controller-manager', 25),
  kubernetes('kube-scheduler', 5),
]

/** Debian packages, each with a file that only it brings. */
const packages: Record<string, string> = {
  'etcd-server': '/usr/bin/etcd',
  'docker-registry': '/usr/bin/docker-registry',
  containerd: '/usr/bin/containerd',
  'containernetworking-plugins': '/usr/lib/cni/bridge',
  skopeo: '/usr/bin/skopeo',
  'openssh-server': '/usr/sbin/sshd',
  'openssh-client': '/usr/bin/ssh-keygen',
  iproute2: '/usr/bin/ip',
  openssl: '/usr/bin/openssl',
  conntrack: '/usr/sbin/conntrack',
  ethtool: '/usr/sbin/ethtool',
  socat: '/usr/bin/socat',
  iptables: '/usr/sbin/iptables',
  shellcheck: '/usr/bin/shellcheck',
}

const missingPackages = () => Object.keys(packages).filter((name) => !existsSync(packages[name]!))

const directoryOf = ({ name, version }: Tool) => `${cache}/tools/${name}-${version}`
const isBuilt = (tool: Tool) => existsSync(`${directoryOf(tool)}/${tool.name}`)

/** The directory that holds a tool, fit for PATH. Several versions of helm can be had. */
export function toolDirectory(name: string, version = ''): string {
  const tool = tools.find((tool) => tool.name === name && tool.version.startsWith(version))
  if (!tool) throw new Error(`the lab has no ${name} ${version}`)
  return directoryOf(tool)
}

/** Whether the lab could start at once: every tool built, every Debian package there. */
export const toolsAreBuilt = (): boolean => missingPackages().length === 0 && tools.every(isBuilt)

/** Installs the Debian packages that are missing and builds the tools that are not in the cache. */
export async function buildTools(): Promise<void> {
  if (toolsAreBuilt()) return
  mkdirSync(`${cache}/tools`, { recursive: true })
  await alone(`${cache}/tools/lock`, async () => {
    await installPackages()
    // what a build that was killed left behind
    for (const name of readdirSync(`${cache}/tools`)) {
      if (name.startsWith('.')) rmSync(`${cache}/tools/${name}`, { recursive: true })
    }
    for (const [index, tool] of tools.entries()) {
      if (!isBuilt(tool)) await build(tool, `${index + 1} of ${tools.length}`)
    }
  })
}

async function build(tool: Tool, position: string): Promise<void> {
  const { name, version, seconds } = tool
  process.stderr.write(`building ${name} ${version} (${position}, about ${seconds} s)… `)
  const begun = Date.now()
  const aside = mkdtempSync(`${cache}/tools/.building-`)
  try {
    await tool.build(`${aside}/`)
    rmSync(directoryOf(tool), { recursive: true, force: true })
    renameSync(aside, directoryOf(tool))
  } finally {
    rmSync(aside, { recursive: true, force: true })
  }
  process.stderr.write(`${Math.round((Date.now() - begun) / 1000)} s\n`)
}

async function installPackages(): Promise<void> {
  const missing = missingPackages()
  if (missing.length === 0) return
  process.stderr.write(`installing ${missing.join(' ')}\n`)
  try {
    await withoutServices(async () => {
      const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
      await run('apt-get', ['update', '-qq'], { env })
      const args = ['install', '-y', '-qq', '--no-install-recommends', ...missing]
      await run('apt-get', args, { env, maxBuffer: 1 << 26 })
    })
  } catch (error) {
    const command = `apt-get update && apt-get install --no-install-recommends ${missing.join(' ')}`
    throw new Error(
      `The lab needs Debian packages that could not be installed: ${missing.join(' ')}.\n` +
        `Run as root: ${command}`,
      { cause: error },
    )
  }
}

/** Debian starts the service of a package that it installs, unless this file says no. */
async function withoutServices(install: () => Promise<void>): Promise<void> {
  const policy = '/usr/sbin/policy-rc.d'
  if (existsSync(policy) || !existsSync(dirname(policy))) return install()
  writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 })
  try {
    await install()
  } finally {
    rmSync(policy)
  }
}
