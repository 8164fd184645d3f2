import { closeSync, openSync } from 'node:fs'
import { sha256 } from '../base/hash.ts'
import { type BundleImage, digestInName } from '../bundle/images.ts'
import { type Bundle } from '../bundle/structure.ts'
import { fromFile, type Member } from '../bundle/tar.ts'

const DOCKER = 'application/vnd.docker'

/** What `docker load` looks for besides configurations and layers; a layer that it has may be missing. */
export const dockerArchive = (images: BundleImage[]): Record<string, string> => ({
  'manifest.json': JSON.stringify(
    images.map(({ config, source, layers }) => ({
      Config: config.name,
      RepoTags: [source],
      Layers: layers.map(({ name }) => name),
    })),
  ),
})

/**
 * An OCI layout: containerd takes each further file for a blob, whatever it is called, and looks for
 * what is missing in its own content (containerd 1.6 images/archive/importer.go). A docker-archive must
 * hold every layer.
 */
export function ociArchive(images: BundleImage[], bundle: Bundle): Record<string, string> {
  const blobs: Record<string, string> = {}
  const manifests = images.map((image) => {
    const { text, digest, mediaType } = manifestOf(image, bundle)
    blobs[`blobs/${digest.replace(':', '/')}`] = text
    const annotations = { 'io.containerd.image.name': image.source }
    return { mediaType, digest, size: text.length, annotations }
  })
  return {
    'oci-layout': '{"imageLayoutVersion":"1.0.0"}',
    'index.json': JSON.stringify({ schemaVersion: 2, manifests }),
    ...blobs,
  }
}

/** A cache: manifests by their images. */
const manifests = new WeakMap<BundleImage, ReturnType<typeof makeManifest>>()

/**
 * The manifest of an image as containerd makes it of a docker-archive (containerd 1.6
 * images/archive/importer.go), so that both ways of loading lead to the same.
 */
export function manifestOf(image: BundleImage, { file }: Bundle) {
  const manifest = manifests.get(image) ?? makeManifest(image, file)
  manifests.set(image, manifest)
  return manifest
}

function makeManifest({ id, config, layers }: BundleImage, file: string) {
  const mediaType = `${DOCKER}.distribution.manifest.v2+json`
  const text = JSON.stringify({
    schemaVersion: 2,
    mediaType,
    config: { mediaType: `${DOCKER}.container.image.v1+json`, digest: id, size: config.size },
    layers: layers.map((layer) => ({
      mediaType: `${DOCKER}.image.rootfs.diff.tar${compressionOf(file, layer)}`,
      digest: `sha256:${digestInName(layer.name, file)}`,
      size: layer.size,
    })),
  })
  return { text, digest: `sha256:${sha256(text)}`, mediaType }
}

function compressionOf(file: string, layer: Member): '' | '.gzip' | '.zstd' {
  const magic = bytesAt(file, layer.offset, Math.min(4, layer.size)).toString('hex')
  if (magic.startsWith('1f8b')) return '.gzip'
  return magic === '28b52ffd' ? '.zstd' : ''
}

/** The bytes of a layer when it is unpacked: gzip keeps the number, modulo 4 GiB, at its end (RFC 1952). */
export function unpackedSize(file: string, layer: Member): number {
  const compression = compressionOf(file, layer)
  if (compression === '') return layer.size
  if (compression === '.zstd') return layer.size * 3 // it does not say
  const size = bytesAt(file, layer.offset + layer.size - 4, 4).readUInt32LE()
  // of several members the last one tells only its own; and 4 GiB are 0 again
  return size < layer.size * 0.99 ? layer.size * 3 : size
}

function bytesAt(file: string, offset: number, size: number): Buffer {
  const descriptor = openSync(file, 'r')
  try {
    return fromFile(descriptor)(offset, size)
  } finally {
    closeSync(descriptor)
  }
}
