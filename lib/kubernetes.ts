import { parseAllDocuments } from 'yaml'

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
 * The objects of a manifest in YAML, `List`s taken apart.
 * @throws Error with the position, where it is not YAML
 */
export function objectsIn(manifest: string): KubernetesObject[] {
  return parseAllDocuments(manifest, { merge: true }).flatMap((document) => {
    if ('errors' in document && document.errors.length > 0) throw document.errors[0]
    const object = 'toJS' in document ? document.toJS({ maxAliasCount: -1 }) : undefined
    if (!object?.kind) return []
    return object.kind === 'List' ? object.items : [object]
  })
}

/** kind/namespace/name, to tell objects apart. */
export function nameOf({ kind, metadata }: KubernetesObject): string {
  return [kind, metadata.namespace, metadata.name].filter(Boolean).join('/')
}
