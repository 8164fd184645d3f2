import { misconfigured } from '../base/failure.ts'
import { type BundleImage, digestInName } from '../bundle/images.ts'
import { type Bundle } from '../bundle/structure.ts'
import { thisRun } from '../run/session.ts'
import { manifestOf } from './archive.ts'
import { type Node } from './nodes.ts'
import { askParts } from './ssh.ts'

/** Shell text that asks containerd what it has; it leaves its directory in `$root`. */
export const ASK_CONTAINERD = `
plugins=$(ctr --connect-timeout 5s plugins ls)
echo '== cri'; echo "$plugins" | grep -w 'io.containerd.grpc.v1 *cri' || true
echo '== images'; ctr -n k8s.io image check || true # it fails for an image of another platform
echo '== content'; ctr -n k8s.io content ls
echo '== leases'; ctr -n k8s.io leases ls
echo '== time'; date +%s
echo '== root'
root=$(sed -n "s/^root *= *['\\"]\\(.*\\)['\\"].*/\\1/p" /etc/containerd/config.toml 2>/dev/null) || true
root=\${root:-/var/lib/containerd}`

/**
 * @param ours the names that the bundle's images have, or get
 * @throws Failure 78
 */
export async function ofContainerd(
  node: Node,
  bundle: Bundle,
  ours: Set<string>,
  lines: (heading: string) => string[],
) {
  if (!lines('cri').some((line) => /\bok\b/.test(line))) {
    throw misconfigured`
      containerd on ${node.name} does not serve the kubelet (its CRI plugin is off): is Docker the runtime there?
      ${node.name} 上的 containerd 未启用 CRI 插件，kubelet 不使用它：运行时是否为 Docker？`.next(
      'set runtime: docker in the site file',
      '请在站点配置中设置 runtime: docker',
    )
  }
  const rows = rowsOf(lines('images'))
  // the CRI plugin also lists each image under its ID; ours are known by their manifests even before
  const idOf = new Map(bundle.images.map((image) => [manifestOf(image, bundle).digest, image.id]))
  for (const { name, digest } of rows) if (name.startsWith('sha256:')) idOf.set(digest, name)
  const ofUs = rows.filter(({ name }) => ours.has(name))
  const digests = ofUs.map(({ digest }) => digest)
  await askManifests(node, digests, idOf)
  const content = keptContent(
    rows.map(({ digest }) => digest),
    lines('content'),
  )
  return {
    ...containerdImages(ofUs, idOf),
    idOf,
    hasLayer: ({ layers }: BundleImage, index: number) =>
      content.has(`sha256:${digestInName(layers[index]!.name, bundle.file)}`),
    leases: lines('leases').flatMap((line) => {
      const [, id, time] = /^([\w.:+/=-]+)\s+(\d{4}-\S+)/.exec(line) ?? []
      return id ? [{ id, created: Date.parse(time!) / 1000 }] : []
    }),
    clockAhead: Number(lines('time')[0]) - Date.now() / 1000,
  }
}

/** The lines of `ctr image check`: name, type, digest, state, size, unpacked. */
export function rowsOf(lines: string[]) {
  return lines.flatMap((line) => {
    const [, name, digest, status, unpacked] =
      /^(\S+)\s+\S+\s+(sha256:[0-9a-f]{64})\s+(\w+).*\s(true|false)\s*$/.exec(line) ?? []
    const usable = status === 'complete' && unpacked === 'true'
    return name ? [{ name, digest: digest!, usable, unpacked: unpacked === 'true' }] : []
  })
}

/** @param idOf the digest that a reference stands for → image ID */
export function containerdImages(rows: ReturnType<typeof rowsOf>, idOf: Map<string, string>) {
  const withId = ({ name, digest }: { name: string; digest: string }) =>
    [name, idOf.get(digest) ?? 'unknown'] as const
  return {
    ids: new Map(rows.map(withId)),
    usable: new Map(rows.filter(({ usable }) => usable).map(withId)),
  }
}

/**
 * What images refer to, by labels that containerd's garbage collection goes by. The rest is of an import
 * or a pull that has not ended, and may be gone in a moment.
 * @param images the digests that images stand for
 * @param listed the lines of `ctr content ls`: digest, size, age, labels
 */
function keptContent(images: string[], listed: string[]): Set<string> {
  const references = new Map(
    listed.map((line) => {
      const labels = line.match(/containerd\.io\/gc\.ref\.content[^=,]*=sha256:[0-9a-f]{64}/g) ?? []
      return [line.split(/\s/)[0]!, labels.map((label) => label.split('=')[1]!)]
    }),
  )
  const kept = new Set<string>()
  const keep = (digest: string) => {
    if (kept.has(digest) || !references.has(digest)) return
    kept.add(digest)
    references.get(digest)!.forEach(keep)
  }
  images.forEach(keep)
  return kept
}

/** Finds the image IDs of further manifests in the node's content; an index leads to one. */
async function askManifests(node: Node, digests: string[], idOf: Map<string, string>) {
  const waiting = new Map<string, string>() // the digest to read → the digest that it is asked for
  for (const digest of digests) if (!idOf.has(digest)) waiting.set(digest, digest)
  for (let depth = 0; depth < 2 && waiting.size > 0; depth++) {
    const script = [...waiting.keys()]
      .map((digest) => `echo '== ${digest}'; ctr -n k8s.io content get ${digest} || true; echo`)
      .join('\n')
    const parts = await askParts(node, script)
    for (const [digest, of] of [...waiting]) {
      waiting.delete(digest)
      try {
        const { config, manifests } = JSON.parse(parts.get(digest)!.join('\n'))
        const { architecture } = thisRun().inputs.site
        const next = manifests?.find(
          ({ platform }: any) => platform?.os === 'linux' && platform.architecture === architecture,
        )
        if (config?.digest) idOf.set(of, config.digest)
        else if (/^sha256:[0-9a-f]{64}$/.test(next?.digest)) waiting.set(next.digest, of)
      } catch {
        // it stays unknown
      }
    }
  }
}
