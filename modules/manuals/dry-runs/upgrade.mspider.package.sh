#!/usr/bin/env bash
# upgrade: Service mesh · 服务网格 (mspider), via package
# A dry run: nothing was run. What only a real run can know is written {like_this}.
# 试运行（dry run）：未执行任何命令。只有实际执行时才能得知的值写作 {like_this}。
set -euo pipefail
umask 077
mkdir -p state/example/mspider/.helm && cd state/example/mspider
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
# lock: nobody else works on mspider-system/mspider
# 加锁：没有其他人在操作 mspider-system/mspider
# check: mspider-system/mspider is deployed, and no other helm is at work on it
# 检查：mspider-system/mspider 已部署，且没有其他 helm 正在操作

# Back up the --set parameters · 备份 --set 参数 (not described in mspider.en.md · 手册中没有此步骤)
export revision='{last_deployed_revision}'
export time='{time_of_this_run}'
mkdir -p backups/mspider && rm -f backups/mspider/*.yaml.new
helm get values mspider -n mspider-system -o yaml \
  --revision $revision > backups/mspider/$revision-$time.yaml.new
# check: the file is read back and compared with the values in the cluster
# 检查：读回文件并与集群中的参数比较
# a bak.yaml that is a file of somebody else, not the link to the newest backup, is kept
# 若 bak.yaml 是他人放置的文件，而不是指向最新备份的链接，则予以保留
if [ -e bak.yaml ] && [ ! -L bak.yaml ]; then mv -T bak.yaml backups/mspider/by-hand-$time.yaml; fi
mv -T backups/mspider/$revision-$time.yaml.new backups/mspider/$revision-$time.yaml
ln -sfn backups/mspider/$revision-$time.yaml bak.yaml.new && mv -T bak.yaml.new bak.yaml

# Look at what will be deployed · 查看将要部署的内容 (not in the manual · 手册中没有)
export version='{version_of_the_chart_package}'
# check: the chart is rendered with these values; every image must be in 10.16.10.111/release.daocloud.io/mspider/, and the registry must have it
# 检查：用这些参数渲染 chart，所有镜像都必须位于 10.16.10.111/release.daocloud.io/mspider/，且镜像仓库中必须存在

# Run helm upgrade · 执行 helm upgrade (not described in mspider.en.md · 手册中没有此步骤)
export imageRegistry=10.16.10.111/release.daocloud.io/mspider
# only if this chart with these values is not deployed already
# 仅当该 chart 与参数尚未部署时执行
helm upgrade mspider ../../../original-chart/mspider \
  -n mspider-system \
  -f ./bak.yaml \
  --set global.imageRegistry=$imageRegistry
# check: mspider is deployed at the version above
# 检查：mspider 已部署为上述版本

# Wait until the workloads are up · 等待工作负载就绪 (not in the manual · 手册中没有)
# check: the Deployments, StatefulSets, DaemonSets and Jobs of mspider come up (time limit 10m)
# 检查：mspider 的 Deployment、StatefulSet、DaemonSet 和 Job 均已就绪（时限 10m）
