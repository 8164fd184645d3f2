import { createHash } from 'node:crypto'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { Lab } from './lab.ts'

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')

/** Its records in a checkout: state/lab-1f2e3d/, of this very lab and no other. */
const siteName = (lab: Lab) => `lab-${sha256(lab.registry.password).slice(0, 6)}`

const HEADER = '# written by npm run demo; npm run lab down removes it while it is unchanged: '

/**
 * Writes a site.yaml for the lab into a checkout, so that scripts find it by themselves.
 * @returns whether it is there; a site.yaml of somebody else, or one that was changed, is left alone
 */
export function writeSite(checkout: string, lab: Lab): boolean {
  removeSite(checkout)
  const text = readFileSync(lab.site, 'utf8').replace(/^name: .*$/m, `name: ${siteName(lab)}`)
  const whole = `${HEADER}${sha256(text)}\n${text}`
  try {
    writeFileSync(`${checkout}/site.yaml`, whole, { flag: 'wx', mode: 0o600 })
    return true
  } catch {
    return false
  }
}

/** Removes the site.yaml that a demo wrote, and the records of its lab, where nobody has changed it. */
export function removeSite(checkout: string): void {
  const path = `${checkout}/site.yaml`
  let whole = ''
  try {
    whole = readFileSync(path, 'utf8')
  } catch {
    return
  }
  const text = whole.slice(whole.indexOf('\n') + 1)
  if (whole !== `${HEADER}${sha256(text)}\n${text}`) return
  const [, name] = /^name: (lab-[0-9a-f]{6})$/m.exec(whole) ?? []
  if (name) rmSync(`${checkout}/state/${name}`, { recursive: true, force: true })
  rmSync(path)
}

/** What one needs to know to use a lab by hand. */
export function howToUse(
  lab: Lab,
  command = `npx zx scripts/upgrade.mts --module mspider --site ${lab.site}`,
): string {
  const { id, directory, helms, registry, vendorRegistry, chartRepository, nodes } = lab
  const ssh = nodes.map(
    (node) =>
      `  ${node.name}             ssh -i ${node.sshKey} -o UserKnownHostsFile=${node.knownHosts}` +
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
