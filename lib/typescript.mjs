// What .npmrc has node import before a script: it makes node run TypeScript. Node 22.18 and later strip
// the types themselves, and keep the compiled code for the next run; Node 20 needs tsx.
import module from 'node:module'

if (process.features.typescript) {
  // not in /tmp, node's own choice, where another user could put code for us to run
  module.enableCompileCache(new URL('../node_modules/.cache/node', import.meta.url).pathname)
} else {
  await import('tsx/esm')
}
