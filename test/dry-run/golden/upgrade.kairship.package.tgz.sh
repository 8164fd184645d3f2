#!/usr/bin/env bash
# upgrade: Multicloud management · 多云编排 (kairship), via package
# A dry run: nothing was run. What only a real run can know is written {like_this}.
# 试运行（dry run）：未执行任何命令。只有实际执行时才能得知的值写作 {like_this}。
set -euo pipefail
umask 077
mkdir -p state/example/kairship/.helm && cd state/example/kairship
# the context kubernetes-admin@cluster.local, whatever else the terminal uses; a helm configuration of its own
# 固定使用 context kubernetes-admin@cluster.local；使用独立的 helm 配置
printf 'apiVersion: v1\nkind: Config\ncurrent-context: %s\n' kubernetes-admin@cluster.local > .helm/context.yaml
export KUBECONFIG=$PWD/.helm/context.yaml:~/.kube/config
export HELM_REPOSITORY_CONFIG=$PWD/.helm/repositories.yaml
export HELM_REPOSITORY_CACHE=$PWD/.helm/cache
export HELM_REGISTRY_CONFIG=$PWD/.helm/registry.json


# Before anything is changed · 变更前的检查 (not in the manual · 手册中没有)
# check: the current context is kubernetes-admin@cluster.local, and the cluster is the one that this site's records are of
# 检查：当前 context 为 kubernetes-admin@cluster.local，且集群与本站点记录一致
# lock: nobody else works on kairship-system/kairship
# 加锁：没有其他人在操作 kairship-system/kairship
# check: kairship-system/kairship is deployed, and no other helm is at work on it
# 检查：kairship-system/kairship 已部署，且没有其他 helm 正在操作

# Back up the --set parameters · 备份 --set 参数 (kairship.en.md:195-201)
# differs from kairship.en.md:200: the redirect empties bak.yaml before helm runs: a new file per run is written, checked, then named bak.yaml, and a bak.yaml that somebody made by hand is moved to backups; --revision names the last deployed revision, not a failed one after it
# 与 kairship.en.md:200 不同：重定向会在 helm 运行前清空 bak.yaml：这里每次写入新文件，检查后再命名为 bak.yaml，已有的手工创建的 bak.yaml 会移到 backups 中保留；--revision 指定最近一次部署成功的 revision，而不是其后失败的 revision
export revision='{last_deployed_revision}'
export time='{time_of_this_run}'
mkdir -p backups/kairship && rm -f backups/kairship/*.yaml.new
helm get values kairship -n kairship-system -o yaml \
  --revision $revision > backups/kairship/$revision-$time.yaml.new
# check: the file is read back and compared with the values in the cluster
# 检查：读回文件并与集群中的参数比较
# a bak.yaml that is a file of somebody else, not the link to the newest backup, is kept
# 若 bak.yaml 是他人放置的文件，而不是指向最新备份的链接，则予以保留
if [ -e bak.yaml ] && [ ! -L bak.yaml ]; then mv -T bak.yaml backups/kairship/by-hand-$time.yaml; fi
mv -T backups/kairship/$revision-$time.yaml.new backups/kairship/$revision-$time.yaml
ln -sfn backups/kairship/$revision-$time.yaml bak.yaml.new && mv -T bak.yaml.new bak.yaml

# Look at what will be deployed · 查看将要部署的内容 (not in the manual · 手册中没有)
export version='{version_of_the_chart_package}'
# check: the chart is rendered with these values; every image must be in 10.16.10.111/release.daocloud.io/kairship/, and the registry must have it
# 检查：用这些参数渲染 chart，所有镜像都必须位于 10.16.10.111/release.daocloud.io/kairship/，且镜像仓库中必须存在

# Update kairship CRDs · 更新 kairship CRD (kairship.en.md:203-207)
# differs from kairship.en.md:206: `.` is whichever directory one is in; the chart is named: original-chart, unpacked by hand beside the site file, or that of --chart
# 与 kairship.en.md:206 不同：`.` 取决于当前所在目录；这里写明 chart 的路径：在站点配置旁手动解压的 original-chart，或 --chart 指定的 chart
# differs from kairship.en.md:206: large CRDs do not fit into client-side apply (its annotation holds 262144 bytes); they are applied server-side, after those of the cluster were saved to crds/
# 与 kairship.en.md:206 不同：CRD 过大时，客户端 apply 会超出 annotation 的大小限制；这里先将集群中的 CRD 保存到 crds/，再使用 server-side apply
# differs from kairship.en.md:206: they are tried first with --dry-run=server; --force-conflicts takes over the fields that helm, or an earlier kubectl apply, owns; kubectl wait sees them established (an API server that was restarted meanwhile may take 5 minutes)
# 与 kairship.en.md:206 不同：先用 --dry-run=server 试行；--force-conflicts 接管安装时归 helm 管理的字段；最后用 kubectl wait 等待 CRD 生效（若期间 API server 重启，最长可能需要 5 分钟）
rm -rf charts/kairship && mkdir -p charts/kairship
tar -zxf ../../../kairship-0.21.0.tgz -C charts/kairship
# check: charts/kairship/kairship/crds holds CRDs and nothing else
# 检查：charts/kairship/kairship/crds 中只有 CRD
# the CRDs as they are now are saved to crds/kairship-{time_of_this_run}.yaml
# 将当前的 CRD 保存到 crds/kairship-{time_of_this_run}.yaml
kubectl apply -f charts/kairship/kairship/crds \
  --server-side --force-conflicts --dry-run=server
kubectl apply -f charts/kairship/kairship/crds \
  --server-side --force-conflicts
kubectl wait -f charts/kairship/kairship/crds \
  --for=condition=Established --timeout=360s

# Run helm upgrade · 执行 helm upgrade (kairship.en.md:209-222)
# differs from kairship.en.md:211: bak.yaml itself is not edited: --set overrides the field in it
# 与 kairship.en.md:211 不同：不修改 bak.yaml 本身，由 --set 覆盖其中的字段
# differs from kairship.en.md:218: `.` is whichever directory one is in; the chart is named: original-chart, unpacked by hand beside the site file, or that of --chart
# 与 kairship.en.md:218 不同：`.` 取决于当前所在目录；这里写明 chart 的路径：在站点配置旁手动解压的 original-chart，或 --chart 指定的 chart
export imageRegistry=10.16.10.111/release.daocloud.io/kairship
# only if this chart with these values is not deployed already
# 仅当该 chart 与参数尚未部署时执行
helm upgrade kairship ../../../kairship-0.21.0.tgz \
  -n kairship-system \
  -f ./bak.yaml \
  --set global.imageRegistry=$imageRegistry
# check: kairship is deployed at the version above
# 检查：kairship 已部署为上述版本

# Wait until the workloads are up · 等待工作负载就绪 (not in the manual · 手册中没有)
# check: the Deployments, StatefulSets, DaemonSets and Jobs of kairship come up (time limit 10m)
# 检查：kairship 的 Deployment、StatefulSet、DaemonSet 和 Job 均已就绪（时限 10m）
