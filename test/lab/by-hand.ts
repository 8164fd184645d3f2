// What an engineer would type in the lab, without our scripts.

import { $ } from 'zx'
import type { Lab } from './lab.ts'

/** A shell with the lab's tools and cluster, and a helm configuration of its own below `home`. */
export const shellIn = (lab: Lab, home: string) =>
  $({
    env: {
      ...process.env,
      ...lab.env,
      HELM_CONFIG_HOME: `${home}/config`,
      HELM_CACHE_HOME: `${home}/cache`,
      HELM_DATA_HOME: `${home}/data`,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })

/** The keys that the manuals set to the image registry. */
export const registryKeys = (module: string): string[] =>
  module === 'spidernet'
    ? ['spidernet.image.registry', 'ui.image.registry']
    : ['global.imageRegistry']
