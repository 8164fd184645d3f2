import { misconfigured } from '../base/failure.ts'
import { quote } from '../base/shell.ts'
import { type Release } from '../inputs/types.ts'
import { word } from './order.ts'
import { print, thisRun } from './session.ts'

/**
 * A value that commands use as `$name`. A dry run writes a placeholder, as the manual does.
 * @param placeholder for example {last_deployed_revision}
 * @param find finds it in a real run
 * @throws Failure 78 where a shell would change the value
 */
export const setVariable = word(
  'setVariable',
  async (name: string, placeholder: string, find: () => Promise<string>): Promise<string> => {
    const { dryRun, variables } = thisRun()
    const value = dryRun ? placeholder : await find()
    if (!dryRun && !/^[^\s{}*?'"$`\\]+$/.test(value)) {
      throw misconfigured`
        ${name} has the value ${JSON.stringify(value)}, which a shell would change
        ${name} 的值 ${JSON.stringify(value)} 会被 shell 改写`
    }
    if (variables[name] !== value) exportVariable(name, value)
    return value
  },
)

/** The placeholder of a dry run: {name}, with the release where the module has several. */
export function placeholderFor(name: string, { release }: Release): string {
  return thisRun().inputs.releases.length > 1 ? `{${name}_of_${release}}` : `{${name}}`
}

/** `export NAME=value`, as the manual does it; commands use `$NAME`. */
export const exportVariable = word('exportVariable', (name: string, value: string) => {
  const { dryRun, variables } = thisRun()
  print(`${dryRun ? '' : '$ '}export ${name}=${quote(value)}`)
  variables[name] = value
})
