import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { processesOf } from '../support/interruptions.ts'
import { startProcess, stopProcess } from '../lab/lab.ts'
import { auditOf, lab } from '../support/lab-site.ts'
import {
  allOn,
  changeNodes,
  ctr,
  docker,
  idsOn,
  imagesIn,
  importOn,
  listed,
  load,
  machine,
  newBundle,
  nothingLeft,
  siteOf,
  type Machine,
} from '../support/load-site.ts'
import { ROOT, runProgram, scriptEnv, temporaryDirectory } from '../support/run-script.ts'

let one: Machine
let other: Machine
let dockerd: Machine

beforeAll(async () => {
  ;[one, other, dockerd] = await Promise.all([machine(), machine(), machine('docker')])
})

/** The commands that changed something on a node. */
const changes = (state: string) =>
  auditOf(state, 'skoala').filter(
    ({ event, command }) =>
      event === 'command' && /image (import|tag)|docker (load|tag)/.test(command),
  )

/** A key that no machine lets in. */
async function newKey(): Promise<string> {
  const key = join(temporaryDirectory(), 'key')
  await runProgram('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key])
  return key
}

test('a node that runs Docker gets them too', async () => {
  const site = siteOf([dockerd])
  const bundle = newBundle()
  const result = await load(site, bundle)
  expect(result.exitCode, result.output).toBe(0)
  await allOn(dockerd, bundle, site)
  nothingLeft(site)
  expect((await load(site, bundle)).stdout).toContain('nothing to do')
})

describe('only what a node lacks is sent', () => {
  test.each(['containerd', 'docker'] as const)(
    'of a second version that shares a large layer with the first, the small layers (%s)',
    async (runtime) => {
      const node = runtime === 'docker' ? dockerd : one
      const site = siteOf([node])
      const large = randomBytes(3_000_000)
      const images = (version: string) => ({
        'skoala-api': large,
        'skoala-ui': `of ${version}, ${Math.random()}`,
      })
      const old = newBundle(0, { version: '0.13.0', images: images('0.13.0') })
      const next = newBundle(0, { version: '0.14.0', images: images('0.14.0') })
      expect((await load(site, old)).exitCode).toBe(0)
      const result = await load(site, next)
      expect(result.exitCode, result.output).toBe(0)
      expect(result.stdout).toMatch(/: +2 of 2 images, \d kB of 3 MB/)
      await allOn(node, next, site)
      await allOn(node, old, site)
    },
  )

  test('an image that was removed from a node comes back from the layers that are left', async () => {
    const site = siteOf([one])
    const bundle = newBundle(1_000_000)
    expect((await load(site, bundle)).exitCode).toBe(0)
    const [source] = Object.keys(await imagesIn(bundle))
    const target = `${site.place}/${source!.split('/').at(-1)}`
    await ctr(one, 'image', 'rm', source!, target)
    const result = await load(site, bundle)
    expect(result.exitCode, result.output).toBe(0)
    expect(result.stdout).toMatch(/1 of 3 images, /)
    await allOn(one, bundle, site)
  })

  test('an image that has only lost its name of the site is not sent, only named', async () => {
    const site = siteOf([one])
    const bundle = newBundle()
    expect((await load(site, bundle)).exitCode).toBe(0)
    const [source] = Object.keys(await imagesIn(bundle))
    await ctr(one, 'image', 'rm', `${site.place}/${source!.split('/').at(-1)}`)
    const before = changes(site.state).length
    const result = await load(site, bundle)
    expect(result.exitCode, result.output).toBe(0)
    expect(changes(site.state).slice(before)).toHaveLength(1)
    await allOn(one, bundle, site)
  })

  test('a layer that is gone from the node’s content is sent again', async () => {
    const site = siteOf([one])
    const bundle = newBundle(500_000)
    expect((await load(site, bundle)).exitCode).toBe(0)
    const large = (await ctr(one, 'content', 'ls'))
      .split('\n')
      .find((line) => /\b500\.\d+kB/.test(line))
    await ctr(one, 'content', 'rm', large!.split(/\s/)[0]!)
    const result = await load(site, bundle)
    expect(result.exitCode, result.output).toBe(0)
    await allOn(one, bundle, site)
  })

  test('what was loaded by hand, as the manual has it, is only named', async () => {
    const site = siteOf([one, dockerd])
    const bundle = newBundle()
    const archive = join(temporaryDirectory(), 'images.tar')
    await runProgram('bash', ['-c', `tar -xOf "$0" images.tar > "$1"`, bundle, archive])
    await ctr(one, 'image', 'import', archive)
    await docker(dockerd, 'load', '-i', archive)
    const result = await load(site, bundle)
    expect(result.exitCode, result.output).toBe(0)
    expect(
      changes(site.state).map(({ command }) => / (import|load|tag) /.exec(command)![1]),
    ).toEqual(['tag', 'tag'])
    await allOn(one, bundle, site)
    await allOn(dockerd, bundle, site)
  })
})

describe('a node that fails has its own sentence and exit code, and the others are done', () => {
  /** Loads on a good node and a bad one. */
  async function withBad(
    bad: object,
    exitCode: number,
    sentence: RegExp,
    { bundle = newBundle(), more = [] as string[] } = {},
  ) {
    const good = { ...one }
    const site = siteOf([good])
    changeNodes(site, (nodes) => nodes.list.unshift({ ...listed(other), name: 'bad', ...bad }))
    const result = await load(site, bundle, more)
    expect(result.stderr).toMatch(sentence)
    expect(result.stderr).toContain('1 of 2 nodes failed')
    expect(result.stderr).toContain('1 of 2 nodes have every image')
    expect(result.exitCode, result.output).toBe(exitCode)
    await allOn(good, bundle, site)
    return { site, result, bundle }
  }

  test('it is down: 69', async () => {
    const { result } = await withBad(
      { port: 1 },
      69,
      /bad: ssh does not reach bad at root@127\.0\.0\.1 port 1/,
    )
    expect(result.stderr).toMatch(/check that the node is up/)
  })

  test('it has no such address: 69', () =>
    withBad(
      { address: 'nowhere.invalid' },
      69,
      /bad: ssh does not reach bad at root@nowhere\.invalid/,
    ))

  test('ssh refuses the login: 77', async () => {
    await withBad(
      { identityFile: await newKey() },
      77,
      /bad: the ssh login root@127\.0\.0\.1 was refused/,
    )
  })

  test('its host key is not known: 78', async () => {
    const knownHostsFile = join(temporaryDirectory(), 'known_hosts')
    writeFileSync(knownHostsFile, '')
    const { result } = await withBad(
      { knownHostsFile },
      78,
      /bad: the host key of 127\.0\.0\.1 is not/,
    )
    expect(result.stderr).toMatch(/ssh-keyscan -p \d+ 127\.0\.0\.1 >> /)
    expect(readFileSync(knownHostsFile, 'utf8')).toBe('')
  })

  test('its containerd is stopped: 69', async () => {
    onTestFinished(() => startProcess(lab, `${other.name}-containerd`))
    await stopProcess(lab, `${other.name}-containerd`)
    await withBad({}, 69, /bad: containerd on bad does not answer/)
  })

  test('its Docker is stopped: 69', async () => {
    onTestFinished(() => startProcess(lab, `${dockerd.name}-dockerd`))
    await stopProcess(lab, `${dockerd.name}-dockerd`)
    await withBad(
      listed(dockerd),
      69,
      new RegExp(`${dockerd.name}: docker on ${dockerd.name} does not answer`),
    )
  })

  test('its containerd does not serve the kubelet, but Docker: 78', async () => {
    const directory = temporaryDirectory()
    const config = join(directory, 'containerd.toml')
    writeFileSync(
      config,
      `version = 2\nroot = "${directory}/root"\nstate = "${directory}/state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n`,
    )
    const containerd = spawn('nsenter', [
      '--mount',
      `--target=${dockerd.containerdSocket.split('/')[2]}`,
      ...['containerd', '--config', config],
    ])
    const gone = new Promise((done) => containerd.once('close', done))
    onTestFinished(async () => {
      containerd.kill('SIGTERM')
      await gone
    })
    await vi.waitFor(() => ctr(dockerd, 'version'), { timeout: 20_000 })
    await withBad({ ...listed(dockerd), runtime: 'containerd' }, 78, /does not serve the kubelet/)
  })

  test('its disk has no room for the images, packed and unpacked: 73, and nothing is sent', async () => {
    const small = await machine('containerd', '30m')
    const { site } = await withBad(
      { ...listed(small) },
      73,
      /: \/var\/lib\/containerd has \d+ MB free; the images take up to \d+ MB/,
      { bundle: newBundle(8_000_000) },
    )
    expect(changes(site.state).every(({ variables }) => variables.node === one.name)).toBe(true)
    expect(await ctr(small, 'content', 'ls', '-q')).toBe('')
  })

  test('a different image already has a name of the bundle: 78, it stays; --replace-tags replaces it', async () => {
    const site = siteOf([other])
    const old = newBundle()
    expect((await load(site, old)).exitCode).toBe(0)
    const before = await idsOn(other)
    const next = newBundle()
    const refused = await load(site, next)
    expect(refused.exitCode, refused.output).toBe(78)
    expect(refused.stderr).toMatch(/a different image already has this name:/)
    expect(refused.stderr).toMatch(new RegExp(`${site.place}/skoala-api:v0\\.14\\.0  is sha256:`))
    expect(await idsOn(other)).toEqual(before)
    const replaced = await load(site, next, ['--replace-tags'])
    expect(replaced.exitCode, replaced.output).toBe(0)
    await allOn(other, next, site)
  })

  test('somebody else loads images there, from another machine: 75', async () => {
    const holder = spawn('nsenter', [
      '--mount',
      `--target=${other.containerdSocket.split('/')[2]}`,
      ...['flock', '-o', '/run/lock/dce-upgrade-load.lock', 'sleep', '60'],
    ])
    onTestFinished(() => void holder.kill('SIGKILL'))
    await vi.waitFor(async () => {
      const free = await runProgram('nsenter', [
        '--mount',
        `--target=${other.containerdSocket.split('/')[2]}`,
        ...['flock', '-n', '/run/lock/dce-upgrade-load.lock', 'true'],
      ])
      expect(free.exitCode).toBe(1)
    })
    await withBad({}, 75, /bad: somebody else is at work there: it is locked/)
  })

  test('the nodes fail in different ways: the exit code is of the one that a retry does not mend', async () => {
    const site = siteOf([one])
    const identityFile = await newKey()
    changeNodes(site, (nodes) => {
      const [node] = nodes.list
      nodes.list = [
        { ...node, name: 'down', port: 1 },
        { ...node, name: 'closed', identityFile },
      ]
    })
    const result = await load(site, newBundle())
    expect(result.exitCode, result.output).toBe(77)
    expect(result.stderr).toMatch(
      /down: ssh does not reach down[^]*closed: the ssh login .* was refused/,
    )
  })
})

test('a bundle for another architecture than the nodes’ is refused by each: 65', async () => {
  const site = siteOf([one], { architecture: 'arm64' })
  const before = await idsOn(one)
  const result = await load(site, newBundle(100, { architecture: 'arm64' }))
  expect(result.exitCode, result.output).toBe(65)
  expect(result.stderr).toMatch(/the node is amd64, and the bundle .* is for arm64/)
  expect(await idsOn(one)).toEqual(before)
})

test('a damaged bundle is refused before a node gets a byte: 65', async () => {
  const site = siteOf([one])
  const bundle = newBundle(100_000)
  const data = readFileSync(bundle)
  data[Math.floor(data.length / 2)]! ^= 4
  writeFileSync(bundle, data)
  const before = await idsOn(one)
  const result = await load(site, bundle)
  expect(result.exitCode, result.output).toBe(65)
  expect(changes(site.state)).toEqual([])
  expect(await idsOn(one)).toEqual(before)
})

test('--node loads on one node; a node that nobody lists is refused with those that are: 66', async () => {
  const site = siteOf([one, other])
  const bundle = newBundle()
  const result = await load(site, bundle, ['--node', other.name])
  expect(result.exitCode, result.output).toBe(0)
  await allOn(other, bundle, site)
  expect(Object.keys(await idsOn(one)).filter((name) => name.startsWith(site.place))).toEqual([])
  const unknown = await load(site, bundle, ['--node', 'node9'])
  expect(unknown.exitCode, unknown.output).toBe(66)
  expect(unknown.stderr).toContain(
    `does not list the node node9; it has: ${one.name}, ${other.name}`,
  )
})

test('--local loads on the machine that one stands on, without ssh and without the cluster', async () => {
  const site = siteOf([one])
  const bundle = newBundle()
  const args = ['scripts/load-images.mts', '--module', 'skoala', '--local']
  const pid = one.containerdSocket.split('/')[2]!
  const result = await runProgram(
    'nsenter',
    [
      `--mount=/proc/${pid}/ns/mnt`,
      '--wdns=/',
      '--',
      ...['sh', '-c', 'cd "$0" && exec "$@"', ROOT, join(ROOT, 'node_modules/.bin/zx'), ...args],
      ...['--site', site.site, '--bundle', bundle],
    ],
    { env: scriptEnv({ ...lab.env, KUBECONFIG: '/nowhere' }) },
  )
  expect(result.exitCode, result.output).toBe(0)
  await allOn(one, bundle, site)
  expect(changes(site.state).some(({ command }) => /\bssh\b/.test(command))).toBe(false)
})

test('with sudo: true every command on the node is run with sudo, which asks for no password', async () => {
  const site = siteOf([one])
  changeNodes(site, (nodes) => (nodes.sudo = true))
  const bundle = newBundle()
  const result = await load(site, bundle)
  expect(result.exitCode, result.output).toBe(0)
  await allOn(one, bundle, site)
  for (const { command } of changes(site.state))
    expect(command).toMatch(/\$node sudo -n env PATH=\S+ flock/)
})

test('two that load on one node at the same time: the second ends with 75 and names the first', async () => {
  const site = siteOf([one])
  const bundle = newBundle(20_000_000)
  const mark = `LOAD_RUN=${Math.random()}`
  const args = ['--module', 'skoala', '--site', site.site, '--bundle', bundle]
  const first = spawn(join(ROOT, 'node_modules/.bin/zx'), ['scripts/load-images.mts', ...args], {
    cwd: ROOT,
    env: scriptEnv({ ...lab.env, LOAD_RUN: mark.split('=')[1] }),
    stdio: 'ignore',
  })
  const ended = new Promise((done) => first.once('close', done))
  const importing = () =>
    processesOf(mark).some(({ command }) => /^ssh .* image import -/.test(command))
  await vi.waitFor(() => expect(importing()).toBe(true), { timeout: 60_000, interval: 10 })
  // so that it is at work as long as the second one takes
  let pid: number | undefined
  await vi.waitFor(() => expect((pid = importOn(one))).toBeDefined(), {
    timeout: 60_000,
    interval: 5,
  })
  process.kill(pid!, 'SIGSTOP')
  const second = await load(site, bundle)
  process.kill(pid!, 'SIGCONT')
  expect(second.exitCode, second.output).toBe(75)
  expect(second.stderr).toMatch(
    /loading on .* is locked by script load-images, module skoala, pid \d+/,
  )
  expect(await ended).toBe(0)
  await allOn(one, bundle, site)
})

test('--json says what became of each node; --quiet says nothing', async () => {
  const site = siteOf([one])
  const bundle = newBundle()
  const quiet = await load(site, bundle, ['--quiet'])
  expect(quiet).toMatchObject({ exitCode: 0, output: '' })
  const json = await load(site, bundle, ['--json'])
  expect(JSON.parse(json.stdout)).toMatchObject({
    script: 'load-images',
    exitCode: 0,
    nodes: [{ name: one.name, failure: null }],
  })
})

describe('what a node, a bundle or the cluster says comes into no shell', () => {
  test('an image name in a bundle: 65', async () => {
    const registry = 'v$(touch${IFS}pwned)x'
    const site = siteOf([one])
    const result = await load(site, newBundle(100, { registry }))
    expect(result.exitCode, result.output).toBe(65)
    expect(result.stderr).toContain('is not an image reference with a tag')
    expect(changes(site.state)).toEqual([])
  })

  test('the name of a lease on a node: it is not ours, and stays', async () => {
    const site = siteOf([one])
    const bundle = newBundle()
    expect((await load(site, bundle)).exitCode).toBe(0)
    const pwned = join(temporaryDirectory(), 'pwned')
    const id = '$(touch${IFS}' + pwned + ')'
    await ctr(one, 'leases', 'create', '--id', id)
    onTestFinished(async () => void (await ctr(one, 'leases', 'rm', id)))
    rememberImport(site.state, Date.now())
    const result = await load(site, bundle)
    expect(result.exitCode, result.output).toBe(0)
    expect(existsSync(pwned)).toBe(false)
    expect(await ctr(one, 'leases', 'ls', '-q')).toContain(id)
  })

  test('the address that a kubelet says of its node: 78', async () => {
    const standIn = join(temporaryDirectory(), 'stand-in-of-a-cluster-with-a-bad-node')
    mkdirSync(standIn)
    const pwned = join(standIn, 'pwned')
    const nodes = JSON.stringify({
      items: [
        {
          metadata: { name: 'node1' },
          status: {
            addresses: [
              { type: 'InternalIP', address: `127.0.0.1\nEOF\ntouch ${pwned}\ncat << 'EOF'` },
            ],
            nodeInfo: { operatingSystem: 'linux', containerRuntimeVersion: 'containerd://1.6.20' },
          },
        },
      ],
    })
    writeFileSync(join(standIn, 'nodes.json'), nodes)
    const site = siteOf([one])
    const { uid } = JSON.parse(readFileSync(join(site.state, 'cluster.json'), 'utf8'))
    const kubectl = `#!/bin/sh
case "$*" in
  *current-context*) echo lab ;;
  *kube-system*) printf %s ${uid} ;;
  version*) echo '{"serverVersion":{"gitVersion":"v1.33.4"}}' ;;
  *"get nodes"*) cat ${standIn}/nodes.json ;;
esac
`
    writeFileSync(join(standIn, 'kubectl'), kubectl, { mode: 0o755 })
    changeNodes(site, (nodes) => delete nodes.list)
    const result = await load(site, newBundle(), [], { PATH: `${standIn}:${lab.env['PATH']}` })
    expect(result.exitCode, result.output).toBe(78)
    expect(result.stderr).toContain('has a malformed name or address')
    expect(existsSync(pwned)).toBe(false)
  })
})

/** As if an import had begun on the first machine then, and been killed. */
function rememberImport(state: string, begin: number) {
  const file = join(state, `skoala/load/${one.name}.imports`)
  writeFileSync(file, JSON.stringify([Math.floor(begin / 1000)]))
}

test('of the leases on a node only that of the interrupted import is removed', async () => {
  const site = siteOf([one])
  const bundle = newBundle()
  expect((await load(site, bundle)).exitCode).toBe(0)
  const leases = () => ctr(one, 'leases', 'ls', '-q')
  const begin = Date.now()
  await ctr(one, 'leases', 'create', '--id', 'of-now')
  onTestFinished(async () => {
    if ((await leases()).includes('of-now')) await ctr(one, 'leases', 'rm', 'of-now')
  })
  rememberImport(site.state, begin - 3_600_000)
  expect((await load(site, bundle)).exitCode).toBe(0)
  expect(await leases()).toContain('of-now')
  rememberImport(site.state, begin)
  const result = await load(site, bundle)
  expect(result.exitCode, result.output).toBe(0)
  expect(await leases()).not.toContain('of-now')
  nothingLeft(site)
})

test('an image of somebody else that containerd cannot check does not matter', async () => {
  const foreign = newBundle(100)
  const archive = join(temporaryDirectory(), 'images.tar')
  await runProgram('bash', ['-c', `tar -xOf "$0" images.tar > "$1"`, foreign, archive])
  await ctr(other, 'image', 'import', archive)
  const [[name, config]] = Object.entries(await imagesIn(foreign)) as [[string, string]]
  await ctr(other, 'content', 'rm', config)
  // the CRI plugin lists it under its ID too
  onTestFinished(async () => void (await ctr(other, 'image', 'rm', name, config)))
  await expect(ctr(other, 'image', 'check')).rejects.toThrow()
  const site = siteOf([other])
  const bundle = newBundle()
  const result = await load(site, bundle)
  expect(result.exitCode, result.output).toBe(0)
})

test.each([
  ['once', 0],
  ['again and again', 1],
] as const)(
  'content that is gone when it is needed (%s): the node is asked again, and loading is done once more: %i',
  async (often, exitCode) => {
    const standIn = join(temporaryDirectory(), 'stand-in-of-a-node-that-loses-content')
    mkdirSync(standIn)
    const { stdout: real } = await runProgram('which', ['ssh'])
    const ssh = `#!/bin/sh
case "$*" in *"image import"*)
  if mkdir ${standIn}/lost 2> /dev/null || [ '${often}' != once ]; then
    cat > /dev/null
    echo 'ctr: content digest sha256:0123: not found' >&2
    exit 1
  fi
esac
exec ${real.trim()} "$@"
`
    writeFileSync(join(standIn, 'ssh'), ssh, { mode: 0o755 })
    const site = siteOf([one])
    const bundle = newBundle()
    const result = await load(site, bundle, [], { PATH: `${standIn}:${lab.env['PATH']}` })
    expect(result.exitCode, result.output).toBe(exitCode)
    expect(result.stdout.match(/content disappeared from the node; asking it again/g)).toHaveLength(
      1,
    )
    const imports = changes(site.state).filter(({ command }) => /image import/.test(command))
    expect(imports).toHaveLength(2)
    const files = readdirSync(join(site.state, 'skoala/load'))
    expect(files).toEqual(exitCode === 0 ? [] : [`${one.name}.imports`])
    const again = await load(site, bundle)
    expect(again.exitCode, again.output).toBe(0)
    await allOn(one, bundle, site)
    nothingLeft(site)
  },
)

test('a node whose turn comes late is asked again: a tag that was set meanwhile is not moved', async () => {
  const site = siteOf([one, other])
  const old = newBundle()
  expect((await load(siteOf([other]), old)).exitCode).toBe(0)
  const bundle = newBundle(8_000_000)
  const running = load(site, bundle, ['--parallel', '1'])
  let pid: number | undefined
  await vi.waitFor(() => expect((pid = importOn(one))).toBeDefined(), {
    timeout: 60_000,
    interval: 5,
  })
  process.kill(pid!, 'SIGSTOP')
  const [source, id] = Object.entries(await imagesIn(old))[0]!
  const target = `${site.place}/skoala-api:v0.14.0`
  await ctr(other, 'image', 'tag', source, target)
  await new Promise((done) => setTimeout(done, 6000))
  process.kill(pid!, 'SIGCONT')
  const result = await running
  expect(result.exitCode, result.output).toBe(78)
  expect(result.stderr).toContain(`${target}  is ${id}`)
  await allOn(one, bundle, site)
  expect((await idsOn(other))[target]).toBe(id)
})

test('two runs of one module, each for a node of its own, do not disturb each other', async () => {
  const site = siteOf([one, other])
  const bundle = newBundle(8_000_000)
  const [first, second] = await Promise.all([
    load(site, bundle, ['--node', one.name]),
    load(site, bundle, ['--node', other.name]),
  ])
  expect(first.exitCode, first.output).toBe(0)
  expect(second.exitCode, second.output).toBe(0)
  await allOn(one, bundle, site)
  await allOn(other, bundle, site)
})

test('of two bundles one has a damaged layer: the other is loaded, and the run ends with 65', async () => {
  const site = siteOf([one])
  const good = newBundle()
  const bad = newBundle(100_000, { version: '0.15.0' })
  const data = readFileSync(bad)
  data[Math.floor(data.length / 2)]! ^= 4
  const file = join(dirname(good), 'skoala-0.15.0.bundle.tar')
  writeFileSync(file, data)
  const result = await load(site, dirname(good))
  expect(result.exitCode, result.output).toBe(65)
  expect(result.stdout).toMatch(/NOT TAKEN · 未处理: .*does not have the hash in its name/)
  expect(result.stderr).toContain('the other bundles are in')
  await allOn(one, good, site)
})

test('what cannot be written on this machine: 73, and no node is changed', async () => {
  const site = siteOf([one])
  mkdirSync(join(site.state, 'skoala'), { recursive: true })
  writeFileSync(join(site.state, 'skoala/load'), '')
  const result = await load(site, newBundle())
  expect(result.exitCode, result.output).toBe(73)
  expect(changes(site.state)).toEqual([])
})
