import { expect, test } from 'vitest'
import { auditOf, lab, labSite } from '../support/lab-site.ts'
import { nodesOf } from '../lab/lab.ts'
import {
  allOn,
  load,
  newBundle,
  nothingLeft,
  onTheNodes,
  type Machine,
} from '../support/load-site.ts'

test('every node that the cluster lists gets every image of the bundle under the names of the site, and a second run has nothing to do', async () => {
  const project = `p${process.pid}`
  const { site, state } = labSite({ project, imagesFrom: 'nodes', nodes: nodesOf(lab) })
  const bundle = newBundle()
  const result = await onTheNodes(() => load({ site }, bundle))
  expect(result.exitCode, result.output).toBe(0)
  const place = `${lab.registry.host}/${project}/skoala`
  const nodes = lab.nodes.map((node): Machine => ({ ...node, runtime: 'containerd' }))
  for (const node of nodes) await allOn(node, bundle, { place })
  const again = await load({ site }, bundle)
  expect(again.exitCode, again.output).toBe(0)
  expect(again.stdout).toMatch(/node1: +3 of 3 images are there: nothing to do/)
  expect(again.stdout).toMatch(/node2: +3 of 3 images are there: nothing to do/)
  const imports = auditOf(state, 'skoala').filter(
    ({ event, command }) => event === 'command' && /image import/.test(command),
  )
  expect(imports.map(({ variables }) => variables.node).sort()).toEqual(['node1', 'node2'])
  nothingLeft({ state })
})
