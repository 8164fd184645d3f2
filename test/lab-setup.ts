import type { TestProject } from 'vitest/node'
import { startLab, stopLab, type Lab } from './lab/lab.ts'

declare module 'vitest' {
  interface ProvidedContext {
    lab: Lab
  }
}

/** One lab for all the suites of this run, of its own, beside any other on the machine. */
export default async function ({ provide }: TestProject) {
  const lab = await startLab()
  provide('lab', lab)
  return () => stopLab(lab)
}
