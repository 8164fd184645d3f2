import { expect, test, vi } from 'vitest'
import {
  brokenChart,
  byHand,
  installOld,
  lab,
  labSite,
  podsOf,
  releaseOf,
  runInLab,
} from './lab-site.ts'
import { isUpgraded, testUpgrades } from './lab-upgrades.ts'
import { runProgram } from './run-script.ts'

testUpgrades('skoala')

test('skoala goes from old to new from an OCI repository, to the newest version, without a password on the disk', async () => {
  await installOld('skoala')
  const { site, state } = labSite({
    chartRepository: { kind: 'OCI', url: lab.chartRepository.oci, login: true, plainHttp: true },
  })
  const login = {
    CHART_REPO_USERNAME: lab.registry.username,
    CHART_REPO_PASSWORD: lab.registry.password,
  }
  const result = await runInLab('upgrade', ['--module', 'skoala', '--site', site], login)
  expect(result.exitCode, result.output).toBe(0)
  await isUpgraded('skoala', lab.registry.host)
  expect(result.stdout).toContain(`export version=${lab.modules['skoala']!.new.version}`)
  const found = await runProgram('grep', ['-r', '-l', lab.registry.password, state])
  expect(found.stdout).toBe('')
})

test.each<[string, (values: any) => void, RegExp]>([
  [
    'an image that is not in the registry',
    ({ api }) => (api.image.tag = 'v9.9.9'),
    /Deployment\/skoala-system\/skoala-api: 0 of 2 replicas are new and available\n\s+image can't be pulled[^\n]*skoala-api:v9\.9\.9[^\n]*not found/,
  ],
  [
    'a container that crashes',
    ({ agent }) => (agent.extraArgs = ['crash']),
    /DaemonSet\/skoala-system\/skoala-agent: \d of 2 pods[^\n]*\n\s+crash[^\n]*container agent ended with exit code 1[^\n]*kubectl logs/,
  ],
  [
    'a StatefulSet’s image that is not in the registry',
    ({ hive }) => (hive.image.tag = 'v9.9.9'),
    /StatefulSet\/skoala-system\/skoala-hive: 0 of 1 replicas are new and available\n\s+image can't be pulled[\s\S]*kubectl delete pod skoala-hive-0 /,
  ],
])(
  '%s is told apart, and the printed command brings the old pods back',
  async (_, change, reason) => {
    await installOld('skoala')
    const chart = await brokenChart('skoala', change)
    const args = [
      '--module',
      'skoala',
      '--site',
      labSite().site,
      '--via',
      'package',
      '--chart',
      chart,
    ]
    const result = await runInLab('upgrade', [...args, '--timeout', '20s'])
    expect(result.exitCode, result.output).toBe(1)
    expect(result.stderr).toMatch(reason)
    expect(result.stderr).toContain(
      'release skoala is at revision 2, skoala-0.14.0, deployed (before: revision 1, skoala-0.13.0)',
    )
    await oldPodsComeBack(result.stderr)
  },
)

test('a hook that fails is told apart, and the printed command brings the old pods back', async () => {
  await installOld('skoala')
  const chart = await brokenChart('skoala', ({ init }) => (init.command = ['/app', 'fail']))
  const args = [
    '--module',
    'skoala',
    '--site',
    labSite().site,
    '--via',
    'package',
    '--chart',
    chart,
  ]
  const result = await runInLab('upgrade', args)
  expect(result.exitCode, result.output).toBe(1)
  expect(result.stderr).toMatch(/pre-upgrade hooks failed/)
  expect(result.stderr).toMatch(
    /Job\/skoala-system\/skoala-init: failed: BackoffLimitExceeded[\s\S]*exit code 3/,
  )
  expect(result.stderr).toContain('release skoala is at revision 2, skoala-0.14.0, failed')
  await oldPodsComeBack(result.stderr)
})

/** Runs the commands that the script printed, as they stand. */
async function oldPodsComeBack(output: string) {
  const commands = output.match(/^ +(helm rollback skoala 1|kubectl delete pod) .*/gm)!
  for (const command of commands) await byHand('bash', '-c', command)
  expect(await releaseOf('skoala')).toMatchObject({
    status: 'deployed',
    chart: 'skoala-0.13.0',
    revision: '3',
  })
  const { version } = lab.modules['skoala']!.old
  await vi.waitFor(
    async () => {
      const pods = await podsOf('skoala')
      expect(pods).toHaveLength(5)
      for (const { image, ready } of pods) {
        expect(image).toMatch(new RegExp(`:v${version}$`))
        expect(ready).toBe(true)
      }
    },
    { timeout: 60_000, interval: 500 },
  )
}
