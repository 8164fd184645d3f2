import { strict as assert } from 'node:assert'
import { existsSync, rmSync } from 'node:fs'
import { registryKeys, shellIn } from './by-hand.ts'
import type { Lab } from './lab.ts'
import type { Release } from './vendor.ts'

/**
 * Installs each module's old version and upgrades it to the new one, with plain helm: from the
 * chart repository and from the chart's directory. Looks what runs where, and removes it again.
 */
export async function check(lab: Lab): Promise<void> {
  const home = `${lab.directory}/check`
  const sh = shellIn(lab, home)
  const { harbor, username, password } = lab.chartRepository
  await sh`helm repo add lab ${harbor} --username ${username} --password ${password}`

  for (const [module, { old, new: next }] of Object.entries(lab.modules)) {
    const namespace = `${module}-system`
    const path = `${lab.registry.host}/release.daocloud.io/${module}`
    const report = async (what: string, begun: number) => {
      const seconds = ((Date.now() - begun) / 1000).toFixed(1)
      const running = ['-n', namespace, '--field-selector=status.phase=Running']
      const { stdout } = await sh`kubectl get pods ${running} -o json`
      const pods: Pod[] = JSON.parse(stdout).items
      const images = new Set(pods.map((pod) => pod.spec.containers[0]!.image))
      assert.deepEqual([...new Set(pods.map((pod) => pod.spec.nodeName))].sort(), nodesOf(lab))
      for (const image of images) assert.equal(image.slice(0, path.length + 1), `${path}/`)
      console.log([`${module}: ${what}, ${seconds} s`, ...images].join('\n  '))
    }
    // the relocated chart has the path in its repository fields, the original one has not
    for (const [form, registry] of [
      ['repository', lab.registry.host],
      ['directory', path],
    ] as const) {
      const set = registryKeys(module).flatMap((key) => ['--set', `${key}=${registry}`])
      const chart = ({ version, originalChart }: Release) =>
        form === 'repository' ? [`lab/${module}`, '--version', version] : [originalChart]

      let begun = Date.now()
      await sh`helm install ${module} ${chart(old)} -n ${namespace} --create-namespace ${set} --wait --timeout 2m`
      await report(`installed ${old.version} from the ${form}`, begun)

      const crds = `${next.originalChart}/crds`
      if (existsSync(crds)) await sh`kubectl apply --server-side --force-conflicts -f ${crds}`
      begun = Date.now()
      await sh`helm upgrade ${module} ${chart(next)} -n ${namespace} ${set} --wait --timeout 2m`
      await report(`upgraded to ${next.version} from the ${form}`, begun)

      await sh`helm uninstall ${module} -n ${namespace} --wait`
      if (existsSync(crds)) await sh`kubectl delete -f ${crds}`
    }
    await sh`kubectl delete namespace ${namespace}`
  }
  rmSync(home, { recursive: true })
}

interface Pod {
  spec: { nodeName: string; containers: { image: string }[] }
}

const nodesOf = (lab: Lab) => lab.nodes.map((node) => node.name)
