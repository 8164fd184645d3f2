let isSilent = false

/** From here on nothing is printed but a failure: for cron, which mails whatever a job says. */
export function beSilent() {
  isSilent = true
}

/** Prints a line on stdout. */
export function print(text: string) {
  if (isSilent) return
  process.stdout.write(redact(text) + '\n')
}

/** No password in an output: whatever a tool prints, the secrets of the environment are starred. */
export function redact(text: string): string {
  for (const name of ['CHART_REPO_PASSWORD', 'REGISTRY_PASSWORD']) {
    const secret = process.env[name]
    if (secret) text = text.replaceAll(secret, '***')
  }
  return text
}
