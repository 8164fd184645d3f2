/** No password in an output: whatever a tool prints, the secrets of the environment are starred. */
export function redact(text: string): string {
  for (const name of ['CHART_REPO_PASSWORD', 'REGISTRY_PASSWORD']) {
    const secret = process.env[name]
    if (secret) text = text.replaceAll(secret, '***')
  }
  return text
}

/** Without what a terminal would take for an order: a ticket, or an output, could bring it. */
export const visible = (text: unknown): string =>
  String(text ?? '').replace(/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, (each) =>
    each === '\n' ? each : `\\x${each.codePointAt(0)!.toString(16).padStart(2, '0')}`,
  )
