import { Failure, misconfigured, missing } from '../base/failure.ts'
import { type Command } from '../base/shell.ts'
import { isTest, type KubernetesObject, nameOf, objectsIn } from '../cluster/kubernetes.ts'
import { imagePlace } from '../inputs/site.ts'
import { type Release } from '../inputs/types.ts'
import { missingOnNode } from '../nodes/content.ts'
import { atOnce } from '../nodes/each-node.ts'
import { findNodes } from '../nodes/nodes.ts'
import { writeSshConfig } from '../nodes/ssh.ts'
import { meaningOf } from '../nodes/advice.ts'
import { imageIdAt, siteRegistry } from '../registry/registry.ts'
import { answer } from '../run/ask.ts'
import { mustComeFirst, needed, word } from '../run/order.ts'
import { inPart, note, report, thisRun } from '../run/session.ts'
import { check } from '../run/words.ts'
import { ensureOneUpgrade, render } from './render.ts'
import { needVersion, refuseDowngrade } from './version.ts'

declare module '../inputs/types.ts' {
  interface Release {
    /** from checkImages(release, command): the command that was looked at, and what it renders */
    rendered?: { command: Command; manifest: string }
    /** the manifest of the revision that is deployed, asked for once */
    deployedManifest?: string
  }
}

/** An image reference, the object that has it, and its pull policy where one is given. */
export interface ImageUse {
  image: string
  pullPolicy?: string
  of: string
}

/** Every image that objects name: the string `image` of a container, and of a custom resource, at any depth. */
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

const namesOf = (uses: ImageUse[]) => [...new Set(uses.map(({ image }) => image))].sort()

/**
 * Renders the chart as this `helm upgrade` would, shows every image reference, and refuses those that
 * the nodes would not find: outside the module's place in the site's registry, and, where images were
 * loaded on the nodes, those that are always pulled; or that registry or nodes do not have.
 * @throws Failure 78 · 66, naming them
 */
export const checkImages = word('checkImages', async (release: Release, upgrade: Command) => {
  const { inputs, reached } = thisRun()
  const called = 'checkImages(release)'
  needed(release.before, 'checkReleases()', called)
  refuseDowngrade(release, needVersion(release, called))
  ensureOneUpgrade(upgrade)
  if (reached.has('saveCrds')) throw mustComeFirst(called, 'saveCrds(release)')
  const place = `${imagePlace(inputs)}/`
  const isRegistry = inputs.site.imagesFrom === 'registry'
  const manifest = await check(
    `check: the chart is rendered with these values; every image must be in ${place}${isRegistry ? ', and the registry must have it' : ', and none always pulled'}`,
    `检查：用这些参数渲染 chart，所有镜像都必须位于 ${place}，${isRegistry ? '且镜像仓库中必须存在' : '且不得总是拉取'}`,
    async () => {
      const rendered = await render(release, upgrade)
      const uses = imagesOf(objectsIn(rendered).filter((object) => !isTest(object)))
      const images = namesOf(uses)
      for (const image of images) report(`  ${image}`)
      await noteOtherRegistry(release, uses)
      note({ event: 'images', release: release.release, images })
      refuseOutside(release, uses, place)
      if (isRegistry) await checkRegistryHas(uses)
      else refuseAlwaysPulled(release, uses)
      return rendered
    },
    '',
  )
  if (!isRegistry) await checkNodesHave(manifest)
  release.rendered = { command: upgrade, manifest }
  reached.add(upgrade.text)
})

const placesOf = (uses: ImageUse[]) => uses.map(({ image, of }) => `${image}  (${of})`)

/** @throws Failure 78 */
function refuseOutside(release: Release, uses: ImageUse[], place: string) {
  const { site, module, flags } = thisRun().inputs
  const isAllowed = (image: string) => site.otherImages?.some((start) => image.startsWith(start))
  const isInPlace = (image: string) =>
    image.startsWith(place) && !image.slice(place.length).includes('/')
  const outside = uses.filter(({ image }) => !isInPlace(image) && !isAllowed(image))
  if (outside.length === 0) return
  const keys = Object.keys(release.registryKeys[flags.via]).join(', ')
  throw misconfigured`
    these images are not in ${place}, where the module's images are at this site:
    以下镜像不在 ${place} 中，而本站点的该模块镜像应位于此处：`.items(placesOf(outside)).next`
    is project right in the site file? If the value of ${keys} has another form at this site or for this chart (a chart of charts-syncer's local-repo is rewritten already): registryValues: {${module.name}: {${flags.via}: …}} in the site file; if the image is meant to be there: otherImages in the site file; if it is pinned in bak.yaml: see the values with helm get values ${release.release} -n ${release.namespace}
    若本站点或该 chart 的 ${keys} 形式不同（charts-syncer 的 local-repo 中的 chart 已改写过）：在站点配置中设置 registryValues；若该镜像本应如此：在站点配置中设置 otherImages；若该值写死在 bak.yaml 中：用上面的 helm get values 查看`
}

/** @throws Failure 78 */
function refuseAlwaysPulled({ release, namespace }: Release, uses: ImageUse[]) {
  const always = uses.filter(isAlwaysPulled)
  if (always.length === 0) return
  throw misconfigured`
    the images were loaded on the nodes, but these have imagePullPolicy: Always, which pulls them from a registry:
    镜像已加载到节点，但以下镜像的 imagePullPolicy 为 Always，会从镜像仓库拉取：`.items(
    placesOf(always),
  ).next`
    see which value sets it: helm get values ${release} -n ${namespace}
    请用上述命令查看是哪个参数设置的`
}

/** The kubelet pulls it at every start: so it is said, or it is the default for this tag. */
function isAlwaysPulled({ image, pullPolicy }: ImageUse): boolean {
  const [, tag] = /:([^:/@]+)$/.exec(image) ?? []
  const isLatest = !image.includes('@') && (tag === undefined || tag === 'latest')
  return pullPolicy === 'Always' || (pullPolicy === undefined && isLatest)
}

/**
 * Have the nodes all of them? The kubelet removes images that no pod uses when the disk gets full. A
 * node that this machine does not reach is no reason to stop; then it is said that it was not checked.
 * @throws Failure 66 naming those that a node has not
 */
async function checkNodesHave(manifest: string) {
  const { module } = thisRun().inputs
  const nodes = await findNodes()
  await check('check: every node has these images', '检查：每个节点上都有这些镜像', async () => {
    const images = namesOf(imagesOf(objectsIn(manifest).filter((object) => !isTest(object))))
    writeSshConfig()
    const lacking: string[] = []
    await atOnce(8, nodes, (node) =>
      inPart(node.name, async () => {
        thisRun().variables['node'] = node.name
        try {
          const found = await missingOnNode(node, images)
          lacking.push(...found.map((image) => `${node.name}: ${image}`))
        } catch (failure) {
          if (!(failure instanceof Failure) || failure.exitCode > 128) throw failure
          const { en, zh } = meaningOf(node, failure)
          report(
            `NOTE · 注意: could not check whether ${node.name} has these images: ${en}\n` +
              `  未能检查 ${node.name} 上是否有这些镜像：${zh}`,
          )
        }
      }),
    )
    if (lacking.length === 0) return
    throw missing`
      these images are not on the nodes:
      以下节点缺少这些镜像：`.items(lacking.sort()).next`
      load them: npx zx scripts/load-images.mts --module ${module.name} --bundle …
      请用上面的命令加载镜像`
  })
}

/**
 * Has the site's registry all of them? A registry that this machine does not reach, or that does not
 * let it in, is no reason to stop: the nodes may; then it is said that it was not checked.
 * @throws Failure 66 naming those that it does not have
 */
async function checkRegistryHas(uses: ImageUse[]) {
  const { site, module } = thisRun().inputs
  const known = process.env['REGISTRY_USERNAME'] && process.env['REGISTRY_PASSWORD']
  const server = siteRegistry({ ...site, containerRegistryLogin: known ? true : false })
  const place = `${site.containerRegistry}/`
  const images = namesOf(uses.filter(({ image }) => image.startsWith(place)))
  let lacking: string[]
  try {
    const found = await Promise.all(
      images.map((image) => {
        const [, path, tag, digest] = /^(.*?)(?::([^:/@]+))?(?:@(.+))?$/.exec(
          image.slice(place.length),
        )!
        return imageIdAt(server, path!, digest ?? tag ?? 'latest')
      }),
    )
    lacking = images.filter((_, index) => found[index] === undefined)
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    report(
      `NOTE · 注意: could not check whether the registry has these images: ${error.en}${known ? '' : '. With REGISTRY_USERNAME and REGISTRY_PASSWORD set, they are looked for'}\n` +
        `  未能检查镜像仓库中是否有这些镜像：${error.zh}`,
    )
    return
  }
  if (lacking.length === 0) return
  throw missing`
    the registry ${site.containerRegistry} does not have these images:
    镜像仓库 ${site.containerRegistry} 中没有以下镜像：`.items(lacking).next`
    bring them in: npx zx scripts/sync-images.mts --module ${module.name} --bundle …; or correct containerRegistry and project in the site file
    请用上面的命令同步镜像；或修正站点配置中的 containerRegistry 和 project`
}

/** The manifest of the revision that was deployed when this run began; there must be one. */
export async function deployedManifest(release: Release): Promise<string> {
  const { release: name, namespace, before } = release
  release.deployedManifest ??= await answer(
    `helm get manifest ${name} -n ${namespace} --revision ${before!.deployed!.revision}`,
  )
  return release.deployedManifest
}

/** Says so where the images come from another registry than those that are deployed. */
async function noteOtherRegistry(release: Release, uses: ImageUse[]) {
  if (!release.before?.deployed) return
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
