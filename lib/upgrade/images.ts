import { note } from '../audit/write.ts'
import { type RegistryKeys } from './chart.ts'
import { EXIT, Failure, UNCHANGED } from '../base/failure.ts'
import { imagePlace, type Release } from '../inputs/inputs.ts'
import { missingOnNode } from '../nodes/content.ts'
import { atOnce, findNodes, type Node } from '../nodes/nodes.ts'
import { meaningOf, writeSshConfig } from '../nodes/ssh.ts'
import { imageIdAt, siteRegistry } from '../registry/registry.ts'
import { stateBefore } from './releases.ts'
import { isTest, nameOf, objectsIn, type KubernetesObject } from '../cluster/kubernetes.ts'
import { answer, ask, check, questionFailed, report } from '../run/words.ts'
import { inPart, thisRun } from '../run/session.ts'
import { type Command } from '../base/shell.ts'

/** An image reference, where it stands, and its pull policy where one is given. */
export interface ImageUse {
  image: string
  pullPolicy?: string
  of: string
}

/**
 * Every image that objects name: the string `image` of a container, and of a custom resource, wherever
 * it stands.
 */
export function imagesOf(objects: KubernetesObject[]): ImageUse[] {
  const uses: ImageUse[] = []
  const visit = (value: unknown, of: string) => {
    if (value === null || typeof value !== 'object') return
    const { image, imagePullPolicy } = value as Record<string, unknown>
    if (typeof image === 'string' && image !== '') {
      uses.push({
        image,
        of,
        ...(typeof imagePullPolicy === 'string' && { pullPolicy: imagePullPolicy }),
      })
    }
    for (const inner of Object.values(value)) visit(inner, of)
  }
  for (const object of objects) {
    if (object.kind !== 'CustomResourceDefinition') visit(object, nameOf(object))
  }
  return uses
}

/** What `helm upgrade` takes and `helm template` does not (helm 3.10 to 4). */
const UPGRADE_ONLY =
  /\s(--install|-i|--cleanup-on-fail|--reuse-values|--reset-values|--reset-then-reuse-values|--rollback-on-failure|--history-max[= ]\d+)(?=\s|$)/g

/**
 * The chart as this very `helm upgrade` would render it: the same words, so that what somebody adds to
 * the command in a copy of the script is rendered too. `helm upgrade --dry-run` would fail where a
 * chart brings objects of a kind whose CRD comes with this upgrade (helm 3.19 pkg/action/upgrade.go
 * builds the objects even in a dry run).
 */
async function render(upgrade: Command, registry: RegistryKeys): Promise<string> {
  if (!/^helm upgrade\s/.test(upgrade.text) || /[;&|<>`]|\$\(/.test(upgrade.text)) {
    throw new Failure(
      EXIT.configuration,
      'the command that is looked at before the upgrade must be one `helm upgrade` and nothing else',
      '升级前检查的命令必须是单独一条 `helm upgrade`',
      { command: upgrade.text },
    )
  }
  const isInstall = /\s--install\b/.test(upgrade.text)
  const template = upgrade.text.replace(/^helm upgrade/, 'helm template').replace(UPGRADE_ONLY, '')
  // with it `lookup` in a chart finds what is in the cluster, as it will in the upgrade (helm 3.13)
  const help = await answer('helm template --help')
  const options = [
    ...(isInstall ? [] : ['--is-upgrade']),
    ...(help.includes('--dry-run=server') ? ['--dry-run=server'] : []),
    '--kube-version $kubeVersion --api-versions $apiVersions',
  ]
  const variables = { imageRegistry: registry.value, apiVersions: await apiVersions() }
  return await answer(`${template} \\\n  ${options.join(' ')}`, variables)
}

/** group/version and group/version/Kind of all that the cluster serves, as charts ask for it. */
async function apiVersions(): Promise<string> {
  // exit 1 where one aggregated API is down; the others are answered
  const question = 'kubectl api-resources --no-headers --request-timeout=20s'
  const ended = await ask(question)
  if (ended.exitCode > 1) throw questionFailed(question, ended)
  const { stdout } = ended
  const kinds = stdout.split('\n').flatMap((line) => {
    const [kind, , version] = line.trim().split(/\s+/).reverse()
    return kind && version ? [version, `${version}/${kind}`] : []
  })
  return [...new Set(['v1', ...kinds])].join(',')
}

const rendered = new Map<string, string>()

/**
 * Renders the chart with the values of this upgrade, shows every image reference, and refuses those
 * that the nodes would not find: outside the module's place in the site's registry, and, where images
 * were loaded on the nodes, those that are always pulled; or that the registry does not have.
 * @throws Failure 78 · 66, naming them
 */
export async function checkImages(release: Release, upgrade: Command, registry: RegistryKeys) {
  const { inputs } = thisRun()
  const { site, module, flags } = inputs
  const place = `${imagePlace(inputs)}/`
  const isRegistry = site.imagesFrom === 'registry'
  await check(
    `check: the chart is rendered with these values; every image must be in ${place}${isRegistry ? ', and the registry must have it' : ', and none always pulled'}`,
    `检查：用这些参数渲染 chart，所有镜像都必须位于 ${place}，${isRegistry ? '且镜像仓库中必须存在' : '且不得总是拉取'}`,
    async () => {
      const manifest = await render(upgrade, registry)
      rendered.set(release.release, manifest)
      const uses = imagesOf(objectsIn(manifest).filter((object) => !isTest(object)))
      for (const image of [...new Set(uses.map(({ image }) => image))].sort()) report(`  ${image}`)
      await noteOtherRegistry(release, uses)
      note({
        event: 'images',
        release: release.release,
        images: [...new Set(uses.map(({ image }) => image))].sort(),
      })
      const allowed = (image: string) => site.otherImages?.some((start) => image.startsWith(start))
      const inPlace = (image: string) =>
        image.startsWith(place) && !image.slice(place.length).includes('/')
      const outside = uses.filter(({ image }) => !inPlace(image) && !allowed(image))
      const always = site.imagesFrom === 'nodes' ? uses.filter(isAlwaysPulled) : []
      const list = (found: ImageUse[]) =>
        found.map(({ image, of }) => `${image}  (${of})`).join('\n')
      const keys = Object.keys(release.registryKeys[flags.via]).join(', ')
      if (outside.length > 0) {
        throw new Failure(
          EXIT.configuration,
          `these images are not in ${place}, where the module's images are at this site:\n${list(outside)}`,
          `以上镜像不在 ${place} 中，而本站点的该模块镜像应位于此处`,
          {
            state: UNCHANGED,
            next: [
              `is project right in the site file? If the value of ${keys} has another form at this site or for this chart (a chart of charts-syncer's local-repo is rewritten already): registryValues: {${module.name}: {${flags.via}: …}} in the site file; if the image is meant to be there: otherImages in the site file; if it is pinned in bak.yaml: see the values with helm get values ${release.release} -n ${release.namespace}`,
              `若本站点或该 chart 的 ${keys} 形式不同（charts-syncer 的 local-repo 中的 chart 已改写过）：在站点配置中设置 registryValues；若该镜像本应如此：在站点配置中设置 otherImages；若该值写死在 bak.yaml 中：用上面的 helm get values 查看`,
            ],
          },
        )
      }
      if (always.length > 0) {
        throw new Failure(
          EXIT.configuration,
          `the images were loaded on the nodes, but these have imagePullPolicy: Always, which pulls them from a registry:\n${list(always)}`,
          '镜像已加载到节点，但以上镜像的 imagePullPolicy 为 Always，会从镜像仓库拉取',
          {
            state: UNCHANGED,
            next: [
              `see which value sets it: helm get values ${release.release} -n ${release.namespace}`,
              '请用上述命令查看是哪个参数设置的',
            ],
          },
        )
      }
      await checkRegistryHas(uses)
    },
  )
  if (site.imagesFrom === 'nodes') await checkNodesHave(release)
}

/**
 * Have the nodes all of them? The kubelet removes images that no pod uses when the disk gets full. A
 * node that this machine does not reach is no reason to stop; then it is said that nobody looked.
 * @throws Failure 66 naming those that a node has not
 */
async function checkNodesHave({ release }: Release) {
  const { module } = thisRun().inputs
  const nodes = await findNodes()
  await check('check: every node has these images', '检查：每个节点上都有这些镜像', async () => {
    const uses = imagesOf(objectsIn(rendered.get(release)!).filter((object) => !isTest(object)))
    const images = [...new Set(uses.map(({ image }) => image))].sort()
    writeSshConfig()
    const missing: string[] = []
    await atOnce(8, nodes as Node[], (node) =>
      inPart(node.name, async () => {
        thisRun().variables['node'] = node.name
        try {
          const lacking = await missingOnNode(node, images)
          missing.push(...lacking.map((image) => `${node.name}: ${image}`))
        } catch (failure) {
          if (!(failure instanceof Failure) || failure.exitCode > 128) throw failure
          const { en, zh } = meaningOf(node, failure)
          report(
            `NOTE · 注意: nobody looked whether ${node.name} has these images: ${en}\n` +
              `  未检查 ${node.name} 上是否有这些镜像：${zh}`,
          )
        }
      }),
    )
    missing.sort()
    if (missing.length === 0) return
    throw new Failure(
      EXIT.missingInput,
      `these images are not on the nodes:\n${missing.join('\n')}`,
      '以上节点缺少这些镜像',
      {
        state: UNCHANGED,
        next: [
          `load them: npx zx scripts/load-images.mts --module ${module.name} --bundle …`,
          '请用上面的命令加载镜像',
        ],
      },
    )
  })
}

/**
 * Has the site's registry all of them? A registry that this machine does not reach, or that does not
 * let it in, is no reason to stop: the nodes may; then it is said that nobody looked.
 * @throws Failure 66 naming those that it does not have
 */
async function checkRegistryHas(uses: ImageUse[]) {
  const { site, module } = thisRun().inputs
  if (site.imagesFrom !== 'registry') return
  const known = process.env['REGISTRY_USERNAME'] && process.env['REGISTRY_PASSWORD']
  const server = siteRegistry({ ...site, containerRegistryLogin: known ? true : false })
  const place = `${site.containerRegistry}/`
  const ofSite = uses.map(({ image }) => image).filter((image) => image.startsWith(place))
  const images = [...new Set(ofSite)].sort()
  let missing: string[]
  try {
    const found = await Promise.all(
      images.map((image) => {
        const [, path, tag, digest] = /^(.*?)(?::([^:/@]+))?(?:@(.+))?$/.exec(
          image.slice(place.length),
        )!
        return imageIdAt(server, path!, digest ?? tag ?? 'latest')
      }),
    )
    missing = images.filter((_, index) => found[index] === undefined)
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    report(
      `NOTE · 注意: nobody looked whether the registry has these images: ${error.en}${known ? '' : '. With REGISTRY_USERNAME and REGISTRY_PASSWORD set, they are looked for'}\n` +
        `  未检查镜像仓库中是否有这些镜像：${error.zh}`,
    )
    return
  }
  if (missing.length === 0) return
  throw new Failure(
    EXIT.missingInput,
    `the registry ${site.containerRegistry} does not have these images:\n${missing.join('\n')}`,
    `镜像仓库 ${site.containerRegistry} 中没有以上镜像`,
    {
      state: UNCHANGED,
      next: [
        `bring them in: npx zx scripts/sync-images.mts --module ${module.name} --bundle …; or correct containerRegistry and project in the site file`,
        '请用上面的命令同步镜像；或修正站点配置中的 containerRegistry 和 project',
      ],
    },
  )
}

const deployedManifests = new Map<string, Promise<string>>()

/** The manifest of the revision that is deployed, asked for once. */
function deployedManifest(release: Release): Promise<string> {
  const { release: name, namespace } = release
  const { revision } = stateBefore(release).deployed!
  const known = deployedManifests.get(name)
  const found = known ?? answer(`helm get manifest ${name} -n ${namespace} --revision ${revision}`)
  deployedManifests.set(name, found)
  return found
}

/** Says so where the images come from another registry than those that are deployed. */
async function noteOtherRegistry(release: Release, uses: ImageUse[]) {
  if (!stateBefore(release).deployed) return
  const registries = (found: ImageUse[]) =>
    [...new Set(found.map(({ image }) => image.split('/')[0]!))].sort().join(', ')
  const now = registries(imagesOf(objectsIn(await deployedManifest(release))))
  const wanted = registries(uses)
  if (now === wanted) return
  report(
    `NOTE · 注意: the deployed images are in ${now}; those of this upgrade are in ${wanted}. Is containerRegistry right in the site file?\n` +
      `  已部署的镜像位于 ${now}，本次升级的镜像位于 ${wanted}。请确认站点配置中的 containerRegistry 是否正确`,
  )
}

/**
 * Is this upgrade there already: the same chart version, the registry keys, and the same objects as
 * those that are deployed? A value that differs between two renderings (a random password, a
 * certificate) is not counted; the rest of its object is.
 */
export async function isDeployed(
  release: Release,
  upgrade: Command,
  registry: RegistryKeys,
): Promise<boolean> {
  const { variables } = thisRun()
  const done = await check(
    'only if this chart with these values is not deployed already',
    '仅当该 chart 与参数尚未部署时执行',
    async () => {
      const { deployed, last } = stateBefore(release)
      if (
        !deployed ||
        deployed !== last ||
        deployed.chart !== `${release.chart}-${variables['version']}`
      )
        return false
      const where = `${release.release} -n ${release.namespace} --revision ${deployed.revision}`
      const set = JSON.parse(await answer(`helm get values ${where} -o json`))
      if (registry.pairs.some(([key, value]) => atPath(set, key) !== value)) return false
      const leaves = (manifest: string) =>
        leavesOf(objectsIn(manifest).filter((object) => !isTest(object)))
      const manifests = `${await deployedManifest(release)}\n---\n${await answer(`helm get hooks ${where}`)}`
      const now = leaves(manifests)
      const wanted = leaves(rendered.get(release.release)!)
      if (now.size !== wanted.size) return false
      const different = [...wanted.keys()].filter((path) => now.get(path) !== wanted.get(path))
      if (different.length === 0) return true
      const again = leaves(await render(upgrade, registry))
      return different.every((path) => now.has(path) && again.get(path) !== wanted.get(path))
    },
  )
  if (done)
    report(
      `  ${release.release} is deployed at this version with these values: nothing to do · 版本与参数均无变化，无需升级`,
    )
  return done ?? false
}

/** The kubelet pulls it at every start: so it is said, or it is the default for this tag. */
function isAlwaysPulled({ image, pullPolicy }: ImageUse): boolean {
  const [, tag] = /:([^:/@]+)$/.exec(image) ?? []
  const isLatest = !image.includes('@') && (tag === undefined || tag === 'latest')
  return pullPolicy === 'Always' || (pullPolicy === undefined && isLatest)
}

/** Every single value of the objects, by the object's name and the path inside it. */
function leavesOf(objects: KubernetesObject[]): Map<string, unknown> {
  const leaves = new Map<string, unknown>()
  const visit = (value: unknown, path: string) => {
    if (value === null || typeof value !== 'object') leaves.set(path, value)
    else if (Object.keys(value).length === 0) leaves.set(path, JSON.stringify(value))
    else for (const [key, inner] of Object.entries(value)) visit(inner, `${path} ${key}`)
  }
  for (const object of objects) visit(object, nameOf(object))
  return leaves
}

/** The value at a dotted path, as in `--set spidernet.image.registry=…`. */
function atPath(values: unknown, path: string): unknown {
  return path.split('.').reduce((value: any, key) => value?.[key], values)
}
