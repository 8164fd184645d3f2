// The manual's "Docker/containerd synchronizes images": loads a bundle's images on every node, where
// there is no registry, and gives them the names that the installation pulls. What a node has is not
// sent again.
//   npx zx scripts/load-images.mts --module skoala --bundle FILE|DIRECTORY
//   npx zx scripts/load-images.mts --module skoala --bundle FILE --node node1
//   npx zx scripts/load-images.mts --module skoala --bundle FILE --local     (without ssh)

import { checkBundleContent, findBundles, tellBadBundles } from '../lib/bundle/of-this-run.ts'
import {
  checkLoaded,
  mustLoad,
  nodesThatLack,
  setParts,
  tagCommands,
  takeNode,
  withoutLeftovers,
} from '../lib/nodes/load.ts'
import { imagePlace } from '../lib/inputs/inputs.ts'
import { findNodes, onEachNode, tellBadNodes } from '../lib/nodes/nodes.ts'
import { aloneOnNode, sshConfig } from '../lib/nodes/ssh.ts'
import { ownStep, report, run, say, step } from '../lib/run/words.ts'
import { finish, start, thisRun } from '../lib/run/session.ts'

const { flags, site } = await start(
  import.meta.url,
  ['bundle', 'node', 'local', 'parallel', 'replace-tags', 'quiet', 'json'],
  ({ flags, site }) => [
    'flock',
    ...(flags.local ? [] : ['ssh', ...(site.nodes?.list ? [] : ['kubectl'])]),
  ],
)

const place = imagePlace(thisRun().inputs)

ownStep('Before anything is loaded', '加载前的检查')
if (site.imagesFrom !== 'nodes')
  report(
    'NOTE · 注意: the site file says imagesFrom: registry; with imagesFrom: nodes the upgrade looks whether the nodes have the images\n  站点配置为 imagesFrom: registry；设为 nodes 后，升级前会检查节点上是否有这些镜像',
  )
const bundles = await findBundles()
const nodes = await findNodes()
if (!flags.local) {
  await run`
cat > ssh_config.$$ << 'EOF'
${sshConfig()}
EOF
mv ssh_config.$$ ssh_config`
}

for (const bundle of bundles) {
  const lacking = await nodesThatLack(bundle, nodes)
  if (lacking.length === 0) continue
  if (lacking.some(mustLoad) && !(await checkBundleContent(bundle))) continue

  // "Each node needs to perform the Docker or containerd image loading operation."
  await onEachNode(lacking, async (node) => {
    await takeNode(bundle, node)
    if (mustLoad(node)) {
      step('unpack-bundle')
      await setParts(bundle, node)

      step('load-images')
      if (node?.runtime !== 'containerd') {
        say('where the node runs Docker', '若节点使用 Docker')
        await withoutLeftovers(
          bundle,
          node,
          () => run`
(cat load/$node.tar
while read -r offset size; do
  dd if=$source iflag=skip_bytes,count_bytes skip=$offset count=$size bs=1M status=none
done < load/$node.parts
head -c 1024 /dev/zero) |
  ${aloneOnNode(node)} docker load`,
        )
      }
      if (node?.runtime !== 'docker') {
        say('where the node runs containerd', '若节点使用 containerd')
        await withoutLeftovers(
          bundle,
          node,
          () => run`
(cat load/$node.tar
while read -r offset size; do
  dd if=$source iflag=skip_bytes,count_bytes skip=$offset count=$size bs=1M status=none
done < load/$node.parts
head -c 1024 /dev/zero) |
  ${aloneOnNode(node)} ctr -n k8s.io image import -`,
        )
      }
    }

    // "After loading is complete, it is necessary to tag the images to match the registry and
    // repository as they were during installation."
    step('tag-images')
    if (node?.runtime !== 'containerd') {
      say('where the node runs Docker', '若节点使用 Docker')
      const said = await run`
${aloneOnNode(node)} bash -e -s << 'EOF'
${tagCommands('docker tag', node)}
docker image ls --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}' --filter reference=${`${place}/*`}
EOF`
      await checkLoaded(bundle, node, said)
    }
    if (node?.runtime !== 'docker') {
      say('where the node runs containerd', '若节点使用 containerd')
      const said = await run`
${aloneOnNode(node)} bash -e -s << 'EOF'
${tagCommands('ctr -n k8s.io image tag --force', node)}
ctr -n k8s.io image check ${`name~="^${place}/"`} || true
EOF`
      await checkLoaded(bundle, node, said)
    }
    return true
  })
}

await tellBadNodes(nodes)
await tellBadBundles()
await finish()
