import { readdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { runProgram, scriptEnv, temporaryDirectory } from '../support/run-script.ts'

test('the demo names in one message what is missing and cannot be installed, before it begins', async () => {
  const programs = temporaryDirectory()
  for (const name of readdirSync('/usr/bin')) {
    if (name !== 'go') symlinkSync(join('/usr/bin', name), join(programs, name))
  }
  const cache = temporaryDirectory()
  const PATH = `${process.execPath.replace(/\/node$/, '')}:${programs}`
  const env = scriptEnv({ PATH: PATH.replace('/usr/bin:', ''), XDG_CACHE_HOME: cache })
  const result = await runProgram('node_modules/.bin/zx', ['test/lab/demo.mts', 'none'], { env })
  expect(result.stderr).toMatch(
    /The lab can't be built here\. Missing[^\n]*\n(.*\n)* {2}- Go 1\.26 or later on PATH \(there is none\): https:\/\/go\.dev\/dl/,
  )
  expect(result.exitCode, result.output).toBe(1)
  expect(readdirSync(cache)).toEqual([])
})
