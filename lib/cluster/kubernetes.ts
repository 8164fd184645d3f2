import { parseAllDocuments } from 'yaml'
import { misconfigured } from '../base/failure.ts'

/** A Kubernetes object, as far as it is looked at here. */
export interface KubernetesObject {
  apiVersion: string
  kind: string
  metadata: {
    name: string
    namespace?: string
    annotations?: Record<string, string>
    labels?: Record<string, string>
    [field: string]: unknown
  }
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  [field: string]: any
}

/**
 * The objects of a manifest in YAML, `List`s taken apart. A key that appears twice is let through, as
 * helm lets it through.
 * @throws Failure 78 where it is not YAML
 */
export function objectsIn(manifest: string): KubernetesObject[] {
  const documents = parseAllDocuments(manifest, { merge: true, uniqueKeys: false })
  if (!Array.isArray(documents)) return []
  return documents.flatMap((document) => {
    const [error] = document.errors
    if (error) {
      throw misconfigured`
        a manifest is not YAML: ${error.message}
        清单不是有效的 YAML：${error.message}`
    }
    const object = document.toJS({ maxAliasCount: -1 })
    if (!object?.kind) return []
    return object.kind === 'List' ? object.items : [object]
  })
}

/** Is it a pod or a Job of `helm test`? It is not deployed by an upgrade. */
export function isTest({ metadata }: KubernetesObject): boolean {
  return /\btest\b/.test(metadata.annotations?.['helm.sh/hook'] ?? '')
}

/** kind/namespace/name, to tell objects apart. */
export function nameOf({ kind, metadata }: KubernetesObject): string {
  return [kind, metadata.namespace, metadata.name].filter(Boolean).join('/')
}

/** The object with its namespace: the release's, where the manifest names none. */
export function inNamespace(object: KubernetesObject, namespace: string): KubernetesObject {
  return {
    ...object,
    metadata: { ...object.metadata, namespace: object.metadata.namespace ?? namespace },
  }
}
