import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv, type ErrorObject } from 'ajv'
import { parse } from 'yaml'
import { didYouMean } from '../base/did-you-mean.ts'
import { type Failure, misconfigured } from '../base/failure.ts'
import { memo } from '../base/memo.ts'
import { ROOT } from '../base/root.ts'

/** The modules that have a descriptor. */
export function moduleNames(): string[] {
  return readdirSync(join(ROOT, 'modules'))
    .filter((file) => file.endsWith('.json'))
    .map((file) => file.slice(0, -'.json'.length))
}

/**
 * Reads a JSON or YAML file and holds it against its schema.
 * @throws Failure 78 with the path inside the file and a sentence
 */
export function readChecked<T>(path: string, kind: 'module' | 'site' | 'manual' | 'reasons'): T {
  let value: unknown
  try {
    value = parse(readFileSync(path, 'utf8'), { schema: 'core' })
  } catch (error) {
    throw wrongFile(path, (error as Error).message)
  }
  const validate = validatorOf(kind)
  if (!validate(value)) {
    // an unknown key first: where it is a misspelt one, the key that is missing follows from it
    const errors = validate.errors!.filter(({ keyword }) => keyword !== 'if')
    errors.sort((a, b) => Number(b.keyword === UNKNOWN_KEY) - Number(a.keyword === UNKNOWN_KEY))
    throw wrongFile(path, errors.map(sentence).join('\n'))
  }
  return value as T
}

// a test holds the schemas themselves against the standard's; to do it here would take most of the time
const ajv = new Ajv({
  allErrors: true,
  verbose: true,
  strict: false,
  meta: false,
  validateSchema: false,
})
const validatorOf = memo((kind) =>
  ajv.compile(JSON.parse(readFileSync(join(ROOT, `modules/schemas/${kind}.schema.json`), 'utf8'))),
)

const UNKNOWN_KEY = 'additionalProperties'

/** A file that is wrong, with the path inside it and a sentence: exit 78. */
export function wrongFile(path: string, problem: string): Failure {
  return misconfigured`
    ${path} ${problem}
    文件 ${path} 有误：${problem}`
}

/** What is wrong, as a path inside the file and a sentence. */
function sentence(error: ErrorObject): string {
  const { instancePath, message, params, parentSchema, keyword, data } = error
  const where = `${instancePath || '/'}: `
  if (keyword === UNKNOWN_KEY) {
    const known = Object.keys(parentSchema?.['properties'] ?? {}).filter((key) => key !== '$schema')
    const unknown: string = params['additionalProperty']
    const all = known.length > 0 ? ` Known: ${known.join(', ')}` : ''
    return `${where}"${unknown}" is not known here.${didYouMean(unknown, known).en}${all}`
  }
  if (keyword === 'enum') {
    return `${where}${JSON.stringify(data)} must be one of ${params['allowedValues'].join(', ')}`
  }
  if (keyword === 'pattern') {
    const hint = /[{}\s]/.test(String(data)) ? ' ({ } and blanks are not allowed)' : ''
    return `${where}${JSON.stringify(data)} does not look right${hint}: ${parentSchema?.['description'] ?? message}`
  }
  if (keyword === 'type' && typeof data === 'object' && params['type'] === 'string') {
    return `${where}must be a text; { } is read as an empty value: is it a placeholder of the manual? Put in the value of your site`
  }
  if (keyword === 'false schema') return `${where}does not belong here`
  return where + message
}
