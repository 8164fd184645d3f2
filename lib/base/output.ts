import { AsyncLocalStorage } from 'node:async_hooks'

let isSilent = false
const labels = new AsyncLocalStorage<string>()

/** Each line that is printed meanwhile begins with the label: `node1: …`. */
export function labelled<T>(label: string, work: () => T): T {
  return labels.run(label, work)
}

/** From here on nothing is printed but a failure: for cron, which mails whatever a job says. */
export function beSilent() {
  isSilent = true
}

/** Prints a line on stdout. */
export function print(text: string) {
  if (isSilent) return
  const label = labels.getStore()
  const lines = label ? text.replace(/^(?=.)/gm, `${label}: `) : text
  process.stdout.write(redact(lines) + '\n')
}

/** No password in an output: whatever a tool prints, the secrets of the environment are starred. */
export function redact(text: string): string {
  for (const name of ['CHART_REPO_PASSWORD', 'REGISTRY_PASSWORD']) {
    const secret = process.env[name]
    if (secret) text = text.replaceAll(secret, '***')
  }
  return text
}
