import { misconfigured } from '../base/failure.ts'
import { type BundleImage } from '../bundle/images.ts'

/** Shell text that asks Docker what it has; it leaves its directory in `$root`. */
export const ASK_DOCKER = `
echo '== store'; docker info --format '{{json .DriverStatus}}'
echo '== images'; docker image ls --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}'
echo '== layers'
ids=$(docker image ls --no-trunc -q | sort -u)
if [ -n "$ids" ]; then docker image inspect --format '{{join .RootFS.Layers ","}}' $ids; fi
echo '== root'
root=$(docker info --format '{{.DockerRootDir}}')`

/** @throws Failure 78 */
export function ofDocker(lines: (heading: string) => string[]) {
  if (lines('store').some((line) => line.includes('io.containerd.snapshotter'))) {
    throw misconfigured`
      Docker keeps its images in containerd here (containerd-snapshotter): their IDs differ from those of the bundle
      此 Docker 使用 containerd 镜像存储（containerd-snapshotter），其镜像 ID 与离线包不同`.next`
      set features: {"containerd-snapshotter": false} in /etc/docker/daemon.json, or load there by hand
      请在 /etc/docker/daemon.json 中设置 features: {"containerd-snapshotter": false}，或手动加载`
  }
  // Docker knows a layer by all that is below it
  const chains = new Set(
    lines('layers').flatMap((line) => {
      const layers = line.split(',')
      return layers.map((_, index) => layers.slice(0, index + 1).join())
    }),
  )
  return {
    ...dockerImages(lines('images')),
    idOf: new Map<string, string>(),
    hasLayer: ({ diffIds }: BundleImage, index: number) =>
      chains.has(diffIds.slice(0, index + 1).join()),
    leases: [],
    clockAhead: 0,
  }
}

/** @param lines reference and image ID each */
export function dockerImages(lines: string[]) {
  const ids = new Map(lines.map((line) => line.split(' ') as [string, string]))
  return { ids, usable: ids }
}
