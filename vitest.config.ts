import { defineConfig } from 'vitest/config'
import { toolsAreBuilt } from './test/lab/tools.ts'

// TESTS=all (npm run check, CI): every suite, whatever it takes. Else those that are quick: the lab's
// only where its tools are built already.
const all = process.env['TESTS'] === 'all'
const withLab = all || toolsAreBuilt()

if (!withLab) {
  console.log(
    'LEFT OUT: the lab suites (test/**/*.lab.test.ts), because the lab is not built. Build it with: npm run lab build\n' +
      '未运行：lab 测试（test/**/*.lab.test.ts），因为尚未构建 lab。构建方法：npm run lab build\n',
  )
}
if (!all) {
  console.log(
    'LEFT OUT: the long suites (test/**/*.long.test.ts: failed rollouts, signals, other versions of helm; test/**/*.kill.test.ts: runs killed at random moments). Run all with: npm run check\n' +
      '未运行：耗时测试（test/**/*.long.test.ts：发布失败、信号、其他 helm 版本；test/**/*.kill.test.ts：随机时刻终止）。运行全部测试：npm run check\n',
  )
}

/** Suites that need the lab; each group waits for the one before, since they use the same modules. */
const inLab = (name: string, groupOrder: number, maxWorkers: number) => ({
  test: {
    name,
    include: [`test/**/*.${name}.test.ts`],
    globalSetup: 'test/support/lab-setup.ts',
    // much, for a machine that has other work
    testTimeout: 360_000,
    hookTimeout: 300_000,
    // the scripts mostly wait: for pods, for helm, for the API server
    maxWorkers,
    sequence: { groupOrder },
  },
})

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'quick',
          include: ['test/**/*.test.ts'],
          exclude: ['test/**/*.{lab,long,kill}.test.ts'],
          testTimeout: 180_000,
          maxWorkers: 4,
        },
      },
      ...(withLab ? [inLab('lab', 0, 4)] : []),
      // the kills stop the API server too: nothing else may run beside them
      ...(all ? [inLab('long', 1, 4), inLab('kill', 2, 1)] : []),
    ],
  },
})
