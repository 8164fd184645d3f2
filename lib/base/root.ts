import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The directory of this collection of scripts. */
export const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
