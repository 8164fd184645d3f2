// The manual's "Docker/containerd synchronizes images": loads a bundle's images on every node, where
// there is no registry, and gives them the names that the installation pulls. What a node has is not
// sent again.
//   npx zx scripts/load-images.mts --module skoala --bundle FILE|DIRECTORY
//   npx zx scripts/load-images.mts --module skoala --bundle FILE --node node1
//   npx zx scripts/load-images.mts --module skoala --bundle FILE --local     (without ssh)

import {
  checkBundleContent,
  findBundles,
  setSource,
  tellBadBundles,
} from '../lib/bundle/of-this-run.ts'
import { tellBadNodes } from '../lib/nodes/each-node.ts'
import { aloneOnNode, cutImages, onEachNode, runs, tagImages } from '../lib/nodes/load.ts'
import { findNodes } from '../lib/nodes/nodes.ts'
import { mustLoad, nodesThatLack, planFor } from '../lib/nodes/plan.ts'
import { prepareSshConfig } from '../lib/nodes/ssh.ts'
import { finish, ownStep, run, start, step } from '../lib/script.ts'

start(
  import.meta.url,
  ['bundle', 'node', 'local', 'parallel', 'replace-tags', 'quiet', 'json'],
  ({ flags, site }) => [
    ...['images-for-node', 'flock'],
    ...(flags.local ? [] : ['ssh', ...(site.nodes?.list ? [] : ['kubectl'])]),
  ],
)

ownStep('Before anything is loaded', '加载前的检查')
const bundles = await findBundles()
const nodes = await findNodes()
await prepareSshConfig()

for (const bundle of bundles) {
  const lacking = await nodesThatLack(bundle, nodes)
  if (lacking.some(mustLoad) && !(await checkBundleContent(bundle))) continue

  // "Each node needs to perform the Docker or containerd image loading operation."
  await onEachNode(lacking, async (node) => {
    // sets $node
    const plan = await planFor(bundle, node)
    if (mustLoad(node)) {
      step('unpack-bundle') // Unpack the bundle
      await setSource(bundle)
      await cutImages(plan)

      step('load-images') // Load the images into Docker or containerd
      if (runs(node, 'docker'))
        await run`
images-for-node $node $source |
  ${aloneOnNode(node)} docker load`
      if (runs(node, 'containerd'))
        await run`
images-for-node $node $source |
  ${aloneOnNode(node)} ctr -n k8s.io image import -`
    }

    // "After loading is complete, it is necessary to tag the images to match the registry and
    // repository as they were during installation."
    step('tag-images') // Tag the images
    await tagImages(plan)
  })
}

await tellBadNodes(nodes)
await tellBadBundles()
await finish()
