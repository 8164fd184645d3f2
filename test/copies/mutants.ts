import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'
import { ROOT } from '../support/run-script.ts'

/** The scripts that change something: a copy of one of these must be safe. */
export const SCRIPTS = readdirSync(join(ROOT, 'scripts'))
  .map((file) => file.replace(/\.mts$/, ''))
  .filter((name) => !['audit', 'trace'].includes(name))

/** A copy of a script with one slip in it. */
export interface Mutant {
  script: string
  /** swapped: two neighbouring statements · dropped: one that calls a word · not awaited: a word */
  kind: 'swapped' | 'dropped' | 'not awaited'
  line: number
  /** the lines in question, for a failing test's message */
  what: string
  /** where the statements in question begin: to know who takes them */
  at: number[]
  /** all of their text */
  lines: string
  /** is a heading what was swapped or dropped, or a remark what was dropped? */
  isOfHeading: boolean
  isOfRemark: boolean
  /** are two imported phases what was swapped, or commands of which a node needs one? */
  isOfIndependent: boolean
  text: string
}

/** A statement of a script that is run where it stands: no import, no function that is hoisted. */
export const isRun = (node: ts.Node): node is ts.Statement =>
  ts.isStatement(node) &&
  !ts.isBlock(node) &&
  !ts.isImportDeclaration(node) &&
  !ts.isFunctionDeclaration(node) &&
  !ts.isInterfaceDeclaration(node) &&
  !ts.isTypeAliasDeclaration(node)

export function parse(script: string, text: string): ts.SourceFile {
  return ts.createSourceFile(`${script}.mts`, text, ts.ScriptTarget.Latest, true)
}

export function nodesOf(root: ts.Node): ts.Node[] {
  const nodes: ts.Node[] = []
  const visit = (node: ts.Node) => {
    nodes.push(node)
    ts.forEachChild(node, visit)
  }
  visit(root)
  return nodes
}

/** Every mutant of a script. */
export function mutantsOf(script: string): Mutant[] {
  const text = readFileSync(join(ROOT, 'scripts', `${script}.mts`), 'utf8')
  const file = parse(script, text)
  const nodes = nodesOf(file)
  const words = new Set(
    nodes.filter(ts.isImportDeclaration).flatMap(({ moduleSpecifier, importClause }) => {
      const named = importClause?.namedBindings
      const isOurs = (moduleSpecifier as ts.StringLiteral).text.startsWith('../lib/')
      return isOurs && named && ts.isNamedImports(named) ? named.elements : []
    }),
  )
  const names = new Set([...words].map(({ name }) => name.text))
  /** the word that a node calls, or tags a template with; a phase that is imported is one too */
  const wordOf = (node: ts.Node): string | undefined => {
    const called = ts.isCallExpression(node)
      ? node.expression
      : ts.isTaggedTemplateExpression(node)
        ? node.tag
        : undefined
    if (called?.kind === ts.SyntaxKind.ImportKeyword) return 'import'
    return called && ts.isIdentifier(called) && names.has(called.text) ? called.text : undefined
  }
  const isCommand = (node: ts.Node) => {
    const word = wordOf(node)
    return (
      ['run', 'prepare', 'import'].includes(word!) ||
      (word === 'command' && ts.isTaggedTemplateExpression(node))
    )
  }
  const has = (node: ts.Node, wanted: (node: ts.Node) => unknown) => nodesOf(node).some(wanted)
  const isHeading = (node: ts.Node) =>
    has(node, (each) => ['step', 'ownStep'].includes(wordOf(each)!)) && !has(node, isCommand)
  const isPhase = (node: ts.Node) =>
    has(node, (each) => wordOf(each) === 'import') && !has(node, ts.isBlock)
  const isForRuntime = (node: ts.Node) =>
    ts.isIfStatement(node) && node.expression.getText().startsWith('runs(node, ')
  const isJump = (node: ts.Node) =>
    ts.isContinueStatement(node) || ts.isBreakStatement(node) || ts.isReturnStatement(node)
  const lineOf = (node: ts.Node) => file.getLineAndCharacterOfPosition(node.getStart()).line + 1
  const short = (node: ts.Node) => node.getText().replace(/\s+/g, ' ').slice(0, 70)

  const swapped = nodes
    .filter((node) => ts.isSourceFile(node) || ts.isBlock(node))
    .flatMap((block) => {
      const run = block.statements.filter(isRun)
      return run.slice(1).map((second, index) => ({ first: run[index]!, second }))
    })
    // behind a jump a command of the manual is dropped: `trace` shows what a copy leaves out
    .filter(({ first, second }) => {
      const [jumps, others] = [
        [first, second].filter(isJump),
        [first, second].filter((each) => !isJump(each)),
      ]
      return jumps.length === 0 || !others.some((each) => has(each, isCommand))
    })
    .map(({ first, second }): Mutant => ({
      script,
      kind: 'swapped',
      line: lineOf(first),
      what: `${short(first)} ⇅ ${short(second)}`,
      at: [first.getStart(), second.getStart()],
      lines: `${first.getText()} ${second.getText()}`,
      isOfHeading: isHeading(first) || isHeading(second),
      isOfRemark: false,
      isOfIndependent: [isPhase, isForRuntime].some((is) => [first, second].every(is)),
      text:
        text.slice(0, first.getStart()) +
        second.getText() +
        text.slice(first.getEnd(), second.getStart()) +
        first.getText() +
        text.slice(second.getEnd()),
    }))

  const dropped = nodes
    .filter((node) => isRun(node) && has(node, wordOf) && !has(node, isCommand))
    .map((node): Mutant => ({
      script,
      kind: 'dropped',
      line: lineOf(node),
      what: short(node),
      at: [node.getStart()],
      lines: node.getText(),
      isOfHeading: isHeading(node),
      isOfRemark: /^say\(/.test(node.getText()),
      isOfIndependent: false,
      text: `${text.slice(0, node.getStart())};${text.slice(node.getEnd())}`,
    }))

  const notAwaited = nodes
    .filter(ts.isAwaitExpression)
    .filter(({ expression }) => wordOf(expression))
    .map((node): Mutant => {
      const statement = ts.findAncestor(node, isRun)!
      return {
        script,
        kind: 'not awaited',
        line: lineOf(node),
        what: short(node),
        at: [statement.getStart()],
        lines: node.getText(),
        isOfHeading: false,
        isOfRemark: false,
        isOfIndependent: false,
        text: text.slice(0, node.getStart()) + text.slice(node.expression.getStart()),
      }
    })
  return [...swapped, ...dropped, ...notAwaited]
}

/** A script that writes to the file $TAKEN where each statement begins that it runs, and those places. */
export function watched(script: string): { text: string; places: Map<number, string> } {
  const source = readFileSync(join(ROOT, 'scripts', `${script}.mts`), 'utf8')
  const file = parse(script, source)
  const statements = nodesOf(file).filter(isRun)
  const inserts = statements.flatMap((node) => {
    const inBlock = ts.isSourceFile(node.parent) || ts.isBlock(node.parent)
    const note = `__taken(process.env.TAKEN, '${script}:${node.getStart()}\\n');`
    return [
      { at: node.getStart(), put: inBlock ? `;${note}` : `{${note}` },
      ...(inBlock ? [] : [{ at: node.getEnd(), put: '}' }]),
    ]
  })
  let text = source
  // from the end, and of two at one place the inner one first
  inserts
    .map((insert, order) => ({ ...insert, order }))
    .sort((a, b) => b.at - a.at || b.order - a.order)
    .forEach(({ at, put }) => (text = text.slice(0, at) + put + text.slice(at)))
  const isJump = (node: ts.Node) => ts.isContinueStatement(node)
  return {
    text: `${text}\nimport { appendFileSync as __taken } from 'node:fs'\n`,
    places: new Map(
      statements
        .filter((node) => !isJump(node))
        .map((node) => [
          node.getStart(),
          `scripts/${script}.mts:${file.getLineAndCharacterOfPosition(node.getStart()).line + 1} ${node.getText().split('\n')[0]}`,
        ]),
    ),
  }
}

/** Some of the items, the same for the same seed (mulberry32). */
export function some<T>(items: T[], count: number, seed: number): T[] {
  let state = seed
  const random = () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return (mixed ^ (mixed >>> 14)) >>> 0
  }
  const keyed = items.map((item) => ({ item, key: random() }))
  const chosen = new Set(
    keyed
      .sort((a, b) => a.key - b.key)
      .slice(0, count)
      .map(({ item }) => item),
  )
  return items.filter((item) => chosen.has(item))
}
