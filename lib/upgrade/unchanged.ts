import { isTest, type KubernetesObject, nameOf, objectsIn } from '../cluster/kubernetes.ts'
import { type Release } from '../inputs/types.ts'
import { answer } from '../run/ask.ts'
import { needed, owe, word } from '../run/order.ts'
import { report, thisRun } from '../run/session.ts'
import { check } from '../run/words.ts'
import { registryKeys } from './chart.ts'
import { deployedManifest } from './images.ts'
import { render } from './render.ts'
import { needVersion } from './version.ts'

declare module '../inputs/types.ts' {
  interface Release {
    /** from isDeployed(release): was it deployed with these values before? */
    isDeployed?: boolean
  }
}

/**
 * Is this upgrade there already: the same chart version, the registry keys, and the same objects as
 * those that are deployed? A value that differs between two renderings (a random password, a
 * certificate) is not counted; the rest of its object is.
 */
export const isDeployed = word('isDeployed', async (release: Release): Promise<boolean> => {
  const { variables } = thisRun()
  const { release: name, namespace, chart } = release
  const called = 'isDeployed(release)'
  const { command, manifest } = needed(release.rendered, 'checkImages(release)', called)
  const { deployed, last } = needed(release.before, 'checkReleases()', called)
  const version = needVersion(release, called)
  const registry = registryKeys(release)
  const hasRegistry = variables['imageRegistry'] === registry.value || undefined
  needed(hasRegistry, 'setImageRegistry(release)', called)
  if (!/\s--install\b/.test(command.text)) {
    needed(release.isBackedUp, 'publishBackup(release)', called)
    if (release.crds) needed(release.hasCrds, 'waitForCrds(release) of update-crds', called)
  }
  release.isDeployed = await check(
    'only if this chart with these values is not deployed already',
    '仅当该 chart 与参数尚未部署时执行',
    async () => {
      if (!deployed || deployed !== last || deployed.chart !== `${chart}-${version}`) return false
      const where = `${name} -n ${namespace} --revision ${deployed.revision}`
      const set = JSON.parse(await answer(`helm get values ${where} -o json`))
      if (registry.pairs.some(([key, value]) => atPath(set, key) !== value)) return false
      const leaves = (text: string) => leavesOf(objectsIn(text).filter((object) => !isTest(object)))
      const now = leaves(
        `${await deployedManifest(release)}\n---\n${await answer(`helm get hooks ${where}`)}`,
      )
      const wanted = leaves(manifest)
      if (now.size !== wanted.size) return false
      const different = [...wanted.keys()].filter((path) => now.get(path) !== wanted.get(path))
      if (different.length === 0) return true
      const again = leaves(await render(release, command))
      return different.every((path) => now.has(path) && again.get(path) !== wanted.get(path))
    },
    false,
  )
  owe(`checkReleased(${name})`)
  owe(`waitForWorkloads(${name})`)
  if (release.isDeployed)
    report(
      `  ${name} is deployed at this version with these values: nothing to do · 版本与参数均无变化，无需升级`,
    )
  return release.isDeployed
})

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
