import { defineConfig } from 'vitest/config'
import { toolsAreBuilt } from './test/lab/tools.ts'

// LAB=required: the lab suites must run (CI); else they run when the lab's tools are built.
const withLab = process.env['LAB'] === 'required' || toolsAreBuilt()
if (!withLab) {
  console.log(
    'LEFT OUT: the lab suites (test/lab.*.test.ts), because the lab is not built. Build it with: npm run lab\n' +
      '未运行：lab 测试（test/lab.*.test.ts），因为尚未构建 lab。构建方法：npm run lab\n',
  )
}

export default defineConfig({
  test: {
    // the scripts mostly wait: for pods, for helm, for the API server
    maxWorkers: 4,
    projects: [
      {
        test: {
          name: 'quick',
          include: ['test/*.test.ts'],
          exclude: ['test/lab.*.test.ts'],
          testTimeout: 60_000,
        },
      },
      ...(withLab
        ? [
            {
              test: {
                name: 'lab',
                include: ['test/lab.*.test.ts'],
                globalSetup: 'test/lab-setup.ts',
                testTimeout: 180_000,
                hookTimeout: 300_000,
              },
            },
          ]
        : []),
    ],
  },
})
