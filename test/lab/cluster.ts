// The lab's cluster: control plane and nodes.

import { execFile } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { appendFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { stringify } from 'yaml'
import { bridgeOf, cgroupOf, password, type Lab, type LabNode } from './lab.ts'
import type { Process, Recipe } from './processes.ts'
import { toolDirectory } from './tools.ts'

const run = promisify(execFile)

/** The path of a tool. */
export const tool = (name: string) => `${toolDirectory(name)}/${name}`

/** Starts a process, and records it in the lab under a name. */
export type Begin = (name: string, recipe: Omit<Recipe, 'log'>) => Promise<Process>

/** Makes the key that all machines of the lab let in, and the one that they are known by. */
export async function makeSshKeys({ ssh }: Lab): Promise<void> {
  for (const key of [ssh.key, ssh.hostKey])
    await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'lab', '-f', key])
  writeFileSync(ssh.knownHosts, '')
}

/** Starts etcd and the control plane, and writes the kubeconfig. */
export async function startControlPlane(
  lab: Lab,
  begin: Begin,
  { subnet, ports }: { subnet: number; ports: [number, number, number] },
): Promise<void> {
  const { directory, kubeconfig } = lab
  const [client, peer, secure] = ports
  const token = password()
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const key = `${directory}/service-accounts.key`
  writeFileSync(key, privateKey.export({ type: 'pkcs1', format: 'pem' }), { mode: 0o600 })
  writeFileSync(`${directory}/tokens.csv`, `${token},admin,admin,system:masters\n`, { mode: 0o600 })
  const server = `https://127.0.0.1:${secure}`
  const configuration = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'lab', cluster: { server, 'insecure-skip-tls-verify': true } }],
    users: [{ name: 'admin', user: { token } }],
    contexts: [{ name: lab.context, context: { cluster: 'lab', user: 'admin' } }],
    'current-context': lab.context,
  }
  writeFileSync(kubeconfig, stringify(configuration), { mode: 0o600 })

  await begin('etcd', {
    command: [
      'etcd',
      `--data-dir=${directory}/etcd`,
      `--listen-client-urls=http://127.0.0.1:${client}`,
      `--advertise-client-urls=http://127.0.0.1:${client}`,
      `--listen-peer-urls=http://127.0.0.1:${peer}`,
      `--initial-advertise-peer-urls=http://127.0.0.1:${peer}`,
      `--initial-cluster=default=http://127.0.0.1:${peer}`,
    ],
    port: client,
  })
  await begin('apiserver', {
    command: [
      tool('kube-apiserver'),
      `--etcd-servers=http://127.0.0.1:${client}`,
      `--secure-port=${secure}`,
      '--bind-address=127.0.0.1',
      `--advertise-address=10.${subnet}.1.1`,
      `--cert-dir=${directory}/apiserver`,
      `--token-auth-file=${directory}/tokens.csv`,
      '--authorization-mode=RBAC',
      `--service-account-key-file=${key}`,
      `--service-account-signing-key-file=${key}`,
      '--service-account-issuer=https://lab',
      '--service-cluster-ip-range=10.96.0.0/16',
      '--allow-privileged=true',
    ],
    probe: [tool('kubectl'), `--kubeconfig=${kubeconfig}`, 'get', '--raw=/readyz'],
  })
  await begin('controller-manager', {
    command: [
      tool('kube-controller-manager'),
      `--kubeconfig=${kubeconfig}`,
      `--service-account-private-key-file=${key}`,
      '--leader-elect=false',
      '--secure-port=0',
    ],
  })
  await begin('scheduler', {
    command: [
      tool('kube-scheduler'),
      `--kubeconfig=${kubeconfig}`,
      '--leader-elect=false',
      '--secure-port=0',
    ],
  })
}

/** The directories that a node must have for itself, bound over the machine's. */
const nodeDirectories = [
  '/run/containerd',
  '/run/lock',
  '/run/netns',
  '/var/lib/containerd',
  '/var/lib/cni',
  '/var/lib/kubelet',
  '/var/log/pods',
  '/var/log/containers',
]

/**
 * Starts a machine that images can be loaded on: a mount namespace where the directories that a runtime
 * insists on are the machine's own, and a real sshd.
 * @param binds its own directories, in place of those of this machine
 * @param size of a disk of its own for them, such as 200m; else they are on this machine's
 */
async function startMachine(
  lab: Lab,
  begin: Begin,
  machine: { name: string; sshPort: number; address?: string; binds: string[]; size?: string },
): Promise<LabNode & { namespaceOf: number }> {
  const { name, sshPort, address, binds, size } = machine
  const directory = `${lab.directory}/${name}`
  mkdirSync(`${directory}/root`, { recursive: true })
  const mounts = binds.map((path) => {
    const own = `${directory}/root${path}`
    return `mkdir -p ${path} ${own} && mount --bind ${own} ${path}`
  })
  const script = [
    ...(size ? [`mount -t tmpfs -o size=${size} tmpfs ${directory}/root`] : []),
    ...mounts,
    'mkdir -p /run/sshd /run/lock',
    `touch ${directory}/bound`,
    'exec sleep infinity',
  ].join(' && ')
  const { pid: namespaceOf } = await begin(name, {
    command: ['unshare', '--mount', '--propagation=private', 'sh', '-c', script],
    probe: ['test', '-e', `${directory}/bound`],
  })
  const addresses = [`127.0.0.1:${sshPort}`, ...(address ? [`${address}:${lab.ssh.port}`] : [])]
  const hostKeyLine = readFileSync(`${lab.ssh.hostKey}.pub`, 'utf8')
  const hosts = addresses.map((each) => `[${each.replace(/:(\d+)$/, ']:$1')} ${hostKeyLine}`)
  appendFileSync(lab.ssh.knownHosts, hosts.join(''))
  const options = [
    ...addresses.map((each) => `ListenAddress=${each}`),
    `AuthorizedKeysFile=${lab.ssh.key}.pub`,
    'StrictModes=no',
    'PidFile=none',
    'UsePAM=no',
    'Subsystem=sftp internal-sftp',
  ].map((option) => `-o${option}`)
  await begin(`${name}-sshd`, {
    command: ['/usr/sbin/sshd', '-D', '-f/dev/null', `-h${lab.ssh.hostKey}`, ...options],
    namespaceOf,
    port: sshPort,
  })
  const containerdSocket = `/proc/${namespaceOf}/root/run/containerd/containerd.sock`
  return { name, sshPort, containerdSocket, namespaceOf }
}

/** Starts a real containerd on a machine. */
async function startContainerd(
  lab: Lab,
  begin: Begin,
  { name, containerdSocket, namespaceOf }: LabNode & { namespaceOf: number },
) {
  const directory = `${lab.directory}/${name}`
  // node2 is as kubespray sets up its nodes
  const discards = name === 'node2'
  writeFileSync(`${directory}/containerd.toml`, containerdConfiguration(lab, directory, discards))
  await begin(`${name}-containerd`, {
    command: ['containerd', '--config', `${directory}/containerd.toml`],
    namespaceOf,
    probe: ['ctr', '--address', containerdSocket, 'version'],
  })
}

/** Starts a node: a machine with a real containerd and a real kubelet. */
export async function startNode(
  lab: Lab,
  begin: Begin,
  node: { number: number; subnet: number; ports: [number, number]; delivered: Promise<void> },
): Promise<LabNode> {
  const name = `node${node.number}`
  const directory = `${lab.directory}/${name}`
  const [kubeletPort, sshPort] = node.ports
  mkdirSync(`${directory}/cni.d`, { recursive: true })
  writeFileSync(`${directory}/cni.d/10-lab.conflist`, JSON.stringify(network(lab, node)))
  const address = `10.${node.subnet}.${node.number}.1`
  const binds = nodeDirectories
  const machine = await startMachine(lab, begin, { name, sshPort, address, binds })
  await startContainerd(lab, begin, machine)
  const { namespaceOf, ...found } = machine
  await node.delivered
  const importing = ['-n', 'k8s.io', 'image', 'import', `${lab.directory}/pause.tar`]
  await run('ctr', ['--address', found.containerdSocket, ...importing])

  writeFileSync(
    `${directory}/kubelet.json`,
    JSON.stringify(kubeletConfiguration(`/${cgroupOf(lab.id)}/${name}`, kubeletPort)),
  )
  await begin(`${name}-kubelet`, {
    command: [
      tool('kubelet'),
      `--config=${directory}/kubelet.json`,
      `--kubeconfig=${lab.kubeconfig}`,
      `--cert-dir=${directory}/pki`,
      `--hostname-override=${name}`,
      `--node-ip=${address}`,
    ],
    namespaceOf,
    port: kubeletPort,
  })
  return found
}

/**
 * Starts a machine that is no node of the cluster, with nothing on it: a containerd, or a Docker daemon.
 * @param size of its disk, such as 200m
 */
export async function startSpare(
  lab: Lab,
  begin: Begin,
  spare: { name: string; sshPort: number; runtime: 'containerd' | 'docker'; size?: string },
): Promise<LabNode> {
  const isDocker = spare.runtime === 'docker'
  const binds = isDocker
    ? ['/run', '/var/lib/docker']
    : ['/run/containerd', '/run/lock', '/var/lib/containerd']
  const machine = await startMachine(lab, begin, { ...spare, binds })
  const { namespaceOf, ...found } = machine
  if (!isDocker) await startContainerd(lab, begin, machine)
  else {
    await begin(`${spare.name}-dockerd`, {
      command: ['dockerd', '--iptables=false', '--bridge=none'],
      namespaceOf,
      probe: ['docker', '--host', `unix:///proc/${namespaceOf}/root/run/docker.sock`, 'version'],
    })
  }
  return found
}

function containerdConfiguration(lab: Lab, directory: string, discards: boolean): string {
  const cri = 'plugins."io.containerd.grpc.v1.cri"'
  return `version = 2
[${cri}]
  # without CAP_SYS_RESOURCE every sandbox fails otherwise
  restrict_oom_score_adj = true
  sandbox_image = "registry.k8s.io/pause:3.10"
[${cri}.containerd]
  discard_unpacked_layers = ${discards}
[${cri}.cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "${directory}/cni.d"
[${cri}.registry.configs."${lab.registry.host}".auth]
  username = "${lab.registry.username}"
  password = "${lab.registry.password}"
${[lab.registry.host, lab.vendorRegistry]
  .map((host) => `[${cri}.registry.mirrors."${host}"]\n  endpoint = ["http://${host}"]`)
  .join('\n')}
`
}

const network = (lab: Lab, { number, subnet }: { number: number; subnet: number }) => ({
  cniVersion: '0.4.0',
  name: 'lab',
  plugins: [
    {
      type: 'bridge',
      bridge: bridgeOf(lab.id, number),
      isGateway: true,
      ipam: {
        type: 'host-local',
        ranges: [[{ subnet: `10.${subnet}.${number}.0/24` }]],
        routes: [{ dst: '0.0.0.0/0' }],
      },
    },
  ],
})

const kubeletConfiguration = (cgroupRoot: string, port: number) => ({
  apiVersion: 'kubelet.config.k8s.io/v1beta1',
  kind: 'KubeletConfiguration',
  authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
  authorization: { mode: 'AlwaysAllow' },
  containerRuntimeEndpoint: 'unix:///run/containerd/containerd.sock',
  cgroupDriver: 'cgroupfs',
  cgroupRoot,
  enforceNodeAllocatable: [],
  clusterDNS: ['10.96.0.10'],
  failSwapOn: false,
  address: '127.0.0.1',
  port,
  healthzPort: 0,
  readOnlyPort: 0,
  serializeImagePulls: false,
  registryPullQPS: 0,
  eventRecordQPS: 0,
  // the machine's disk may be as full as it likes
  imageGCHighThresholdPercent: 100,
  evictionHard: {
    'memory.available': '0%',
    'nodefs.available': '0%',
    'nodefs.inodesFree': '0%',
    'imagefs.available': '0%',
    'imagefs.inodesFree': '0%',
  },
})
