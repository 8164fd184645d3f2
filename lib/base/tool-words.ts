import { EXIT } from './failure.ts'

/** What tools say, most specific first, and the exit code that it stands for. */
const WORDS: [RegExp, number][] = [
  [/no space left on device|read-only file system|disk quota exceeded/i, EXIT.cannotWrite],
  [/another operation \(install\/upgrade\/rollback\) is in progress/i, EXIT.tryLater],
  [/x509:|tls: |server gave HTTP response to HTTPS client|unknown flag: /i, EXIT.configuration],
  [
    /\b40[13] (unauthorized|forbidden)|status code:? 40[13]|: (unauthorized|forbidden)\b|is forbidden:|must be logged in|asked for the client to provide credentials|authentication required/i,
    EXIT.notAllowed,
  ],
  [
    /connection refused|was refused|no such host|timed? ?out\b.*(dial|connect|request)|(dial|connect|request).*timed? ?out\b|i\/o timeout|no route to host|network is unreachable|connection reset|TLS handshake timeout|Client\.Timeout|server misbehaving|unable to connect to the server|cluster unreachable|cannot be reached|unable to get an update from|failed to update the following repositories|\b50[234] (bad gateway|service unavailable|gateway time-?out)|status code:? 50[234]/i,
    EXIT.unreachable,
  ],
]

/**
 * The exit code for every command and question that failed, on nodes too, from the tool's own words
 * (Go's net, net/http, crypto and os packages, which helm, kubectl, charts-syncer, ctr and docker share).
 * @param said the tool's output
 */
export function exitCodeFor(said: string): number {
  return WORDS.find(([words]) => words.test(said))?.[1] ?? EXIT.commandFailed
}
