import { createHash } from 'node:crypto'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { loadLab, type Lab } from './lab.ts'

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')

/** Its records in a checkout: state/lab-1f2e3d/, of this very lab and no other. */
export const siteName = (lab: Lab) => `lab-${sha256(lab.registry.password).slice(0, 6)}`

const header = (id: string, text: string) =>
  `# written by npm run demo ${id}; npm run lab down ${id} removes it while it is unchanged: ${sha256(text)}\n`

/**
 * Writes a site.yaml for the lab into a checkout, so that scripts find it by themselves.
 * @returns whether it is there; a site.yaml of somebody else, or one that was changed, is left alone
 */
export function writeSite(checkout: string, lab: Lab): boolean {
  const old = demoSite(checkout)
  const isOfDeadLab = old && old.name !== siteName(lab) && (old.id === lab.id || !loadLab(old.id))
  if (isOfDeadLab) removeSite(checkout, old.id)
  else if (old?.id === lab.id) rmSync(old.path)
  const text = readFileSync(lab.site, 'utf8').replace(/^name: .*$/m, `name: ${siteName(lab)}`)
  const whole = header(lab.id, text) + text
  try {
    writeFileSync(`${checkout}/site.yaml`, whole, { flag: 'wx', mode: 0o600 })
    return true
  } catch {
    return false
  }
}

/** The site.yaml that a demo wrote, where nobody has changed it. */
function demoSite(checkout: string): { path: string; id: string; name: string } | undefined {
  const path = `${checkout}/site.yaml`
  let whole = ''
  try {
    whole = readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
  const text = whole.slice(whole.indexOf('\n') + 1)
  const [, id = ''] = /^# written by npm run demo (\w+);/.exec(whole) ?? []
  const [, name] = /^name: (lab-[0-9a-f]{6})$/m.exec(text) ?? []
  return whole === header(id, text) + text && name ? { path, id, name } : undefined
}

/**
 * Removes the site.yaml that the demo of this lab wrote, and the lab's records, where nobody has
 * changed it.
 * @returns what it removed
 */
export function removeSite(checkout: string, id: string): string[] {
  const site = demoSite(checkout)
  if (site?.id !== id) return []
  const records = `${checkout}/state/${site.name}`
  rmSync(records, { recursive: true, force: true })
  rmSync(site.path)
  return [site.path, records]
}

/** What a program of the lab says of itself: the remark that it begins with. */
export function usageOf(path: string): string {
  const [remark] = readFileSync(path, 'utf8').split('\n\nimport ')
  return remark!.replace(/^\/\/ ?/gm, '')
}

/** What one needs to know to use a lab by hand. */
export function howToUse(
  lab: Lab,
  command = `npx zx scripts/upgrade.mts --module mspider --site ${lab.site}`,
): string {
  const { id, directory, helms, registry, vendorRegistry, chartRepository, nodes } = lab
  const ssh = nodes.map(
    (node) =>
      `  ${node.name}             ssh -i ${lab.ssh.key} -o UserKnownHostsFile=${lab.ssh.knownHosts}` +
      ` -p ${node.sshPort} root@127.0.0.1`,
  )
  return `
lab ${id} runs; ${directory}/lab.json describes all of it

  site registry     ${registry.host}
  vendor's registry ${vendorRegistry}
  chart repository  ${chartRepository.harbor}
                    ${chartRepository.oci}
                    ${chartRepository.chartmuseum} (nothing in it)
  other helms       ${helms['3.10']}
                    ${helms['4']}
${ssh.join('\n')}

To look around, take its tools, cluster and passwords into this terminal · 在当前终端中使用它：
  . ${directory}/env
  kubectl get pods -A
  ${command}

To stop it · 停止：
  npm run lab down ${id}`
}
