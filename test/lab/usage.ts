import { lstatSync, readlinkSync, rmSync, symlinkSync } from 'node:fs'
import type { Lab } from './lab.ts'

/**
 * Makes site.yaml of a checkout a link to the lab's site file, so that scripts find it by themselves.
 * @returns whether it is one now; a site.yaml of somebody else is left alone
 */
export function linkSite(checkout: string, lab: Lab): boolean {
  const path = `${checkout}/site.yaml`
  const there = linkOf(path)
  if (there === 'a file') return false
  if (there && !isOfALab(there, lab)) return false
  rmSync(path, { force: true })
  symlinkSync(lab.site, path)
  return true
}

/** Takes the link away again. */
export function unlinkSite(checkout: string, lab: Lab): void {
  const path = `${checkout}/site.yaml`
  if (linkOf(path) === lab.site) rmSync(path)
}

/** Where a link leads; undefined where there is nothing. */
function linkOf(path: string): string | undefined {
  try {
    return lstatSync(path).isSymbolicLink() ? readlinkSync(path) : 'a file'
  } catch {
    return undefined
  }
}

/** Another lab's, running or gone: all labs stand in one directory. */
const isOfALab = (target: string, lab: Lab) =>
  target.startsWith(lab.directory.slice(0, -lab.id.length)) && target.endsWith('/site.yaml')

/** What one needs to know to use a lab by hand. */
export function howToUse(lab: Lab): string {
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
  npx zx scripts/upgrade.mts --module mspider --site ${lab.site}

To stop it · 停止：
  npm run lab down ${id}`
}
