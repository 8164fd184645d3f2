import { expect, test } from 'vitest'
import { exitCodeFor } from '../../lib/base/tool-words.ts'

/** What helm, kubectl and charts-syncer were heard to say. */
test.each<[number, string]>([
  [
    1,
    'W0919 02:03:04.100000     503 warnings.go:70] deprecated\nError: UPGRADE FAILED: field is immutable',
  ],
  [
    1,
    'Error: UPGRADE FAILED: post-upgrade hooks failed: job mspider-init-403 failed: BackoffLimitExceeded',
  ],
  [1, 'Error: UPGRADE FAILED: Certificate "x" is invalid: spec.secretName: Required value'],
  [1, 'Error: UPGRADE FAILED: context deadline exceeded'],
  [
    69,
    'Get "https://127.0.0.1:1/api?timeout=32s": dial tcp 127.0.0.1:1: connect: connection refused',
  ],
  [
    69,
    'The connection to the server 10.0.0.1:6443 was refused - did you specify the right host or port?',
  ],
  [69, 'dial tcp 10.0.0.1:6443: connect: connection timed out'],
  [69, 'Error: looks like "http://h/x" is not a valid chart repository or cannot be reached: EOF'],
  [
    69,
    'Error: Kubernetes cluster unreachable: Get "https://10.0.0.1:6443/version": dial tcp 10.0.0.1:6443: i/o timeout',
  ],
  [69, 'Error: failed to fetch http://h/index.yaml : 503 Service Unavailable'],
  [73, 'bash: line 1: backups/x.yaml.new: No space left on device'],
  [75, 'Error: UPGRADE FAILED: another operation (install/upgrade/rollback) is in progress'],
  [
    77,
    'Error: looks like "http://h/x" is not a valid chart repository or cannot be reached: failed to fetch http://h/x/index.yaml : 401 Unauthorized',
  ],
  [77, 'error: You must be logged in to the server (Unauthorized)'],
  [77, 'the server has asked for the client to provide credentials'],
  [
    77,
    'Error from server (Forbidden): secrets is forbidden: User "x" cannot list resource "secrets"',
  ],
  [
    78,
    'Unable to connect to the server: tls: failed to verify certificate: x509: certificate signed by unknown authority',
  ],
  [78, 'Error: unknown flag: --plain-http'],
])('%i: %s', (exitCode, said) => expect(exitCodeFor(said)).toBe(exitCode))
