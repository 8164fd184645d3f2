import { execFile } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { homedir } from 'node:os'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { alone, ending } from './processes.ts'
import { checkRequirements } from './requirements.ts'

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
    signal: ending.signal,
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
  'docker.io': '/usr/sbin/dockerd',
  sudo: '/usr/bin/sudo',
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
  systemd: '/usr/bin/systemd-analyze',
  rsyslog: '/usr/sbin/rsyslogd',
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

/**
 * Installs the Debian packages that are missing and builds the tools that are not in the cache.
 * @throws Error that names what is missing and can't be installed, before anything is begun
 */
export async function buildTools(): Promise<void> {
  const toBuild = () => tools.filter((tool) => !isBuilt(tool))
  checkRequirements({ cache, isToBuild: toBuild().length > 0, packages: missingPackages() })
  if (toolsAreBuilt() && !policyIsOurs()) return
  mkdirSync(`${cache}/tools`, { recursive: true })
  await alone(`${cache}/tools/lock`, async () => {
    // what an installation that was killed left behind
    if (policyIsOurs()) rmSync(policy)
    await installPackages()
    // what a build that was killed left behind
    for (const name of readdirSync(`${cache}/tools`)) {
      if (name.startsWith('.')) rmSync(`${cache}/tools/${name}`, { recursive: true })
    }
    const left = toBuild()
    const minutes = Math.ceil(left.reduce((sum, { seconds }) => sum + seconds, 0) / 60)
    say(
      `building ${left.length} tools, about ${minutes} minutes on two cores, once for this machine`,
    )
    for (const [index, tool] of left.entries()) await build(tool, `${index + 1} of ${left.length}`)
  })
}

const say = (text: string) => process.stderr.write(`${text}\n`)

async function build(tool: Tool, position: string): Promise<void> {
  ending.signal.throwIfAborted()
  const { name, version, seconds } = tool
  process.stderr.write(`  ${position}: ${name} ${version}, about ${seconds} s … `)
  const begun = Date.now()
  const aside = mkdtempSync(`${cache}/tools/.building-`)
  try {
    await tool.build(`${aside}/`)
    rmSync(directoryOf(tool), { recursive: true, force: true })
    renameSync(aside, directoryOf(tool))
  } finally {
    rmSync(aside, { recursive: true, force: true })
  }
  say(`${Math.round((Date.now() - begun) / 1000)} s`)
}

async function installPackages(): Promise<void> {
  const missing = missingPackages()
  if (missing.length === 0) return
  process.stderr.write(`installing ${missing.length} Debian packages: ${missing.join(' ')} … `)
  const begun = Date.now()
  try {
    await withoutServices(async () => {
      const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
      // what an installation that was killed left half done
      await run('dpkg', ['--configure', '-a'], { env })
      await run('apt-get', ['update', '-qq'], { env })
      const wait = '-oDPkg::Lock::Timeout=120'
      const args = ['install', wait, '-y', '-qq', '--no-install-recommends', ...missing]
      await run('apt-get', args, { env, maxBuffer: 1 << 26 })
    })
  } catch (error) {
    const command = `apt-get update && apt-get install --no-install-recommends ${missing.join(' ')}`
    throw new Error(
      `The lab needs Debian packages that could not be installed: ${missing.join(' ')}.\n` +
        `apt-get said: ${(error as { stderr?: string }).stderr?.trim() || (error as Error).message}\n` +
        `Run as root: ${command}`,
    )
  }
  say(`${Math.round((Date.now() - begun) / 1000)} s`)
}

const policy = '/usr/sbin/policy-rc.d'
const policyText = '#!/bin/sh\n# of the lab of dce-upgrade, while it installs packages\nexit 101\n'
const policyIsOurs = () => existsSync(policy) && readFileSync(policy, 'utf8') === policyText

/** Debian starts the service of a package that it installs, unless this file says no. */
async function withoutServices(install: () => Promise<void>): Promise<void> {
  if (existsSync(policy) || !existsSync(dirname(policy))) return install()
  writeFileSync(policy, policyText, { mode: 0o755 })
  try {
    await install()
  } finally {
    rmSync(policy)
  }
}
