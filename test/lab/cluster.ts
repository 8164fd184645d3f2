// The lab's cluster: control plane and nodes.

import { execFile } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
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
  '/run/netns',
  '/var/lib/containerd',
  '/var/lib/cni',
  '/var/lib/kubelet',
  '/var/log/pods',
  '/var/log/containers',
]

/**
 * Starts a node: a real containerd, kubelet and sshd, in a mount namespace where the directories
 * that they insist on are the node's own.
 */
export async function startNode(
  lab: Lab,
  begin: Begin,
  node: { number: number; subnet: number; ports: [number, number]; delivered: Promise<void> },
): Promise<LabNode> {
  const name = `node${node.number}`
  const directory = `${lab.directory}/${name}`
  const [kubeletPort, sshPort] = node.ports
  mkdirSync(`${directory}/cni.d`, { recursive: true })

  const binds = nodeDirectories.map((path) => {
    mkdirSync(`${directory}/root${path}`, { recursive: true })
    return `mkdir -p ${path} && mount --bind ${directory}/root${path} ${path}`
  })
  const script = [...binds, `touch ${directory}/bound`, 'exec sleep infinity'].join(' && ')
  const namespace = await begin(name, {
    command: ['unshare', '--mount', '--propagation=private', 'sh', '-c', script],
    probe: ['test', '-e', `${directory}/bound`],
  })
  const namespaceOf = namespace.pid

  writeFileSync(`${directory}/containerd.toml`, containerdConfiguration(lab, directory))
  writeFileSync(`${directory}/cni.d/10-lab.conflist`, JSON.stringify(network(lab, node)))
  const containerdSocket = `${directory}/root/run/containerd/containerd.sock`
  await begin(`${name}-containerd`, {
    command: ['containerd', '--config', `${directory}/containerd.toml`],
    namespaceOf,
    probe: ['ctr', '--address', containerdSocket, 'version'],
  })
  await node.delivered
  const importing = ['-n', 'k8s.io', 'image', 'import', `${lab.directory}/pause.tar`]
  await run('ctr', ['--address', containerdSocket, ...importing])

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
      `--node-ip=10.${node.subnet}.${node.number}.1`,
    ],
    namespaceOf,
    port: kubeletPort,
  })

  const [hostKey, sshKey] = [`${directory}/ssh_host_key`, `${directory}/ssh_key`]
  for (const key of [hostKey, sshKey]) {
    await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', name, '-f', key])
  }
  const knownHosts = `${directory}/known_hosts`
  const hostKeyLine = readFileSync(`${hostKey}.pub`, 'utf8')
  writeFileSync(knownHosts, `[127.0.0.1]:${sshPort} ${hostKeyLine}`)
  mkdirSync('/run/sshd', { recursive: true })
  const options = [
    'ListenAddress=127.0.0.1',
    `AuthorizedKeysFile=${sshKey}.pub`,
    'StrictModes=no',
    'PidFile=none',
    'UsePAM=no',
  ].map((option) => `-o${option}`)
  await begin(`${name}-sshd`, {
    command: ['/usr/sbin/sshd', '-D', '-f/dev/null', `-p${sshPort}`, `-h${hostKey}`, ...options],
    namespaceOf,
    port: sshPort,
  })
  return { name, sshPort, sshKey, knownHosts, containerdSocket }
}

function containerdConfiguration(lab: Lab, directory: string): string {
  const cri = 'plugins."io.containerd.grpc.v1.cri"'
  return `version = 2
[${cri}]
  # without CAP_SYS_RESOURCE every sandbox fails otherwise
  restrict_oom_score_adj = true
  sandbox_image = "registry.k8s.io/pause:3.10"
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
