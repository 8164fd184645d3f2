import { testFailedRollout, testUpgrade } from './lab-upgrades.ts'

testFailedRollout(
  'kairship',
  'an image that is not in the registry',
  ({ api }) => (api.image.tag = 'v9.9.9'),
  /Deployment\/kairship-system\/kairship-api: 0 of 2 replicas are new and available\n\s+image can't be pulled[^\n]*kairship-apiserver:v9\.9\.9[^\n]*not found/,
)

testFailedRollout(
  'kairship',
  'a container that crashes',
  ({ agent }) => (agent.extraArgs = ['crash']),
  /DaemonSet\/kairship-system\/kairship-agent: \d of 2 pods[^\n]*\n\s+crash[^\n]*container agent ended with exit code 1[^\n]*kubectl logs/,
)

testUpgrade('kairship', 'package')
