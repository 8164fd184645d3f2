import type { TestProject } from 'vitest/node'
import { startLab, stopLab, type Lab } from '../lab/lab.ts'

declare module 'vitest' {
  interface ProvidedContext {
    lab: Lab
  }
}

/** Every project runs its setup in one process, each with a copy of this file: they share what stands here. */
const shared = globalThis as { lab?: Promise<Lab> }

/** One lab for all the suites of this run, of its own, beside any other on the machine. */
export default async function ({ provide }: TestProject) {
  const isFirst = !shared.lab
  shared.lab ??= startLab()
  const lab = await shared.lab
  provide('lab', lab)
  return () => (isFirst ? stopLab(lab) : undefined)
}
