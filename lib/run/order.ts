import { AsyncLocalStorage } from 'node:async_hooks'
import { bug } from '../base/failure.ts'
import { thisRun } from './session.ts'

/** Where a word is called: in another word, or in lines of a script. */
interface Scope {
  isWord: boolean
  /** of lines of a script: the newest word, until `await` takes what it gives */
  unawaited?: string
}

/** Undefined in the script itself: there the run, or its part, is the scope. */
const scopes = new AsyncLocalStorage<Scope>()
const scopeOf = (called: string): Pick<Scope, 'unawaited'> => scopes.getStore() ?? thisRun(called)

/** Does what a script handed to a word: its lines are lines of the script again. */
export async function asScript<T>(work: () => Promise<T>): Promise<T> {
  const scope: Scope = { isWord: false }
  const found = await scopes.run(scope, work)
  if (!scope.unawaited) return found
  thisRun().isRefused = true
  throw awaitIsMissing(scope.unawaited)
}

/**
 * Makes a function a word that scripts are written in: it needs a started script, it is noted as
 * reached when it has done its work, and an `await` that is missing before it is told by the word that
 * comes next; then it has not begun.
 * @param name as a failure calls it
 */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export function word<F extends (...values: any[]) => any>(name: string, work: F): F {
  const called = `${name}(…)`
  return ((...values) => {
    if (scopes.getStore()?.isWord) {
      thisRun().reached.add(name)
      return work(...values)
    }
    refuseUnawaited(called)
    const run = thisRun()
    const atWork = () => scopes.run({ isWord: true }, () => work(...values))
    const begin = async () => {
      // what is not awaited is refused meanwhile
      await new Promise((resolve) => setImmediate(resolve))
      if (run.isRefused) throw awaitIsMissing(called)
      return atWork()
    }
    const given: unknown = /^async\b/.test(work.toString()) ? begin() : atWork()
    if (!(given instanceof Promise)) {
      run.reached.add(name)
      return given
    }
    const scope = scopeOf(called)
    scope.unawaited = called
    const done = given.then((found) => {
      run.reached.add(name)
      return found
    })
    return toBeAwaited(done, called, scope)
  }) as F
}

/** @throws Failure 70 where nothing has taken what the word before has to give */
export function refuseUnawaited(called: string) {
  const { unawaited } = scopeOf(called)
  if (!unawaited) return
  thisRun().isRefused = true
  throw awaitIsMissing(unawaited)
}

const awaitIsMissing = (called: string) => bug`
  await is missing before ${called}
  ${called} 之前缺少 await`

/** A promise that tells whoever takes it for the value itself. */
function toBeAwaited<T>(
  promise: Promise<T>,
  called: string,
  scope: Pick<Scope, 'unawaited'>,
): Promise<T> {
  promise.catch(() => {}) // told where it is awaited
  return new Proxy(promise, {
    get(target, key) {
      if (!(key in target)) {
        thisRun().isRefused = true
        throw awaitIsMissing(called)
      }
      const value: unknown = Reflect.get(target, key)
      if (typeof value !== 'function') return value
      if (scope.unawaited === called) scope.unawaited = undefined
      return value.bind(target)
    },
  })
}

/**
 * What a word needs of a release, a bundle, a node or the run, and another word finds.
 * @param value undefined where that has not been called
 * @param before for example `checkImages(release)`
 * @param called the word that needs it: `isDeployed(release)`
 * @throws Failure 70
 */
export function needed<T>(value: T | undefined, before: string, called: string): T {
  if (value !== undefined) return value
  throw mustComeFirst(before, called)
}

export const mustComeFirst = (before: string, called: string) =>
  bug`
    ${before} must come before ${called}
    ${called} 之前必须先调用 ${before}`.next`
    move its line up; in a copy of a script, compare with the original
    请将该行上移；若为脚本副本，请与原脚本比较`

/** From here on the script must reach this check; `finish()` names those that it did not. */
export const owe = (check: string) => void thisRun().owed.add(check)

/** The check was made. */
export const settleDebt = (check: string) => void thisRun().owed.delete(check)
