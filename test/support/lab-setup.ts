import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import type { TestProject } from 'vitest/node'
import { startLab, stopLab, type Lab } from '../lab/lab.ts'

declare module 'vitest' {
  interface ProvidedContext {
    lab: Lab
    /** of the lab's cluster: its namespace kube-system has it */
    clusterUid: string
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
  const question = ['get', 'namespace', 'kube-system', '-o', 'jsonpath={.metadata.uid}']
  const env = { ...process.env, ...lab.env }
  provide('clusterUid', (await promisify(execFile)('kubectl', question, { env })).stdout)
  return () => (isFirst ? stopLab(lab) : undefined)
}
