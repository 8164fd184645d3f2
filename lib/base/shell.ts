/** Shell text that is put into a command as it is, each item on a line of its own; no item, no line. */
export interface ShellLines {
  lines: string[]
}

/** A command: the shell text that is printed, recorded and run. */
export interface Command {
  text: string
}

/** Lines for a command: `--set global.imageRegistry=$imageRegistry`. The shell reads them as they are. */
export function lines(...lines: string[]): ShellLines {
  return { lines }
}

/** `--flag value` for a command where there is a value, else nothing. */
export function option(flag: string, value: string | undefined): ShellLines {
  return { lines: value === undefined ? [] : [`${flag} ${quote(value)}`] }
}

/**
 * A command as the manual has it: line breaks, backslashes, pipes and the shell's own `$names`
 * stay as they are; `${}` is quoted for the shell.
 */
export function command(
  { raw }: TemplateStringsArray,
  ...values: (string | number | ShellLines)[]
): Command {
  let text = raw[0]!.replace(/^\n/, '')
  values.forEach((value, index) => {
    let rest = raw[index + 1]!
    if (typeof value !== 'object') {
      text += quote(String(value))
    } else if (value.lines.length > 0) {
      const indent = /[^\n]*$/.exec(text)![0].match(/^\s*/)![0]
      text += value.lines.join(` \\\n${indent}`)
    } else {
      // the line is left out, and with it the backslash behind it, or before it where it is the last
      if (/^ \\\n/.test(rest)) rest = rest.replace(/^ \\\n\s*/, '')
      else text = text.replace(/ \\\n\s*$/, '')
    }
    text += rest
  })
  return { text: text.trimEnd() }
}

/** A word, quoted for any POSIX shell. */
export function quote(word: string): string {
  return /^[\w/.,:=@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`
}
