#!/usr/bin/env bash
# upgrade: Insight · 可观测性 (insight), via repo
# A dry run: nothing was run. What only a real run can know is written {like_this}.
# 试运行（dry run）：未执行任何命令。只有实际执行时才能得知的值写作 {like_this}。
set -euo pipefail
umask 077
mkdir -p state/example/insight/.helm && cd state/example/insight
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
# lock: nobody else works on insight-system/insight, insight-system/insight-agent
# 加锁：没有其他人在操作 insight-system/insight、insight-system/insight-agent
# check: insight-system/insight, insight-system/insight-agent is deployed, and no other helm is at work on it
# 检查：insight-system/insight, insight-system/insight-agent 已部署，且没有其他 helm 正在操作

# Check whether the helm repository exists · 检查 helm 仓库是否存在 (no manual on record · 未收录手册)
helm repo list -o yaml

# Add the helm repository · 添加 helm 仓库 (no manual on record · 未收录手册)
# only if the step above did not find it, with this URL and login
# 仅当上一步未找到该名称、URL 和登录信息时执行
printf %s "$CHART_REPO_PASSWORD" |
  helm repo add addon http://10.16.10.111/chartrepo/release.daocloud.io \
    --username "$CHART_REPO_USERNAME" --password-stdin \
    --force-update

# Update the helm repository · 更新 helm 仓库 (no manual on record · 未收录手册)
helm repo update addon
# check: the index was fetched in this run
# 检查：仓库索引已在本次运行中更新

# Select the version to upgrade to · 选择要升级到的版本 (no manual on record · 未收录手册)
helm search repo addon/insight --versions
export version='{newest_stable_version_of_insight}'

# Check whether the helm repository exists · 检查 helm 仓库是否存在 (no manual on record · 未收录手册)
helm repo list -o yaml

# Add the helm repository · 添加 helm 仓库 (no manual on record · 未收录手册)
# only if the step above did not find it, with this URL and login
# 仅当上一步未找到该名称、URL 和登录信息时执行
printf %s "$CHART_REPO_PASSWORD" |
  helm repo add addon http://10.16.10.111/chartrepo/release.daocloud.io \
    --username "$CHART_REPO_USERNAME" --password-stdin \
    --force-update

# Update the helm repository · 更新 helm 仓库 (no manual on record · 未收录手册)
helm repo update addon
# check: the index was fetched in this run
# 检查：仓库索引已在本次运行中更新

# Select the version to upgrade to · 选择要升级到的版本 (no manual on record · 未收录手册)
helm search repo addon/insight-agent --versions
export version='{newest_stable_version_of_insight-agent}'

# Back up the --set parameters · 备份 --set 参数 (no manual on record · 未收录手册)
export revision='{last_deployed_revision_of_insight}'
export time='{time_of_this_run}'
mkdir -p backups/insight && rm -f backups/insight/*.yaml.new
helm get values insight -n insight-system -o yaml \
  --revision $revision > backups/insight/$revision-$time.yaml.new
# check: the file is read back and compared with the values in the cluster
# 检查：读回文件并与集群中的参数比较
# a insight-bak.yaml that is a file of somebody else, not the link to the newest backup, is kept
# 若 insight-bak.yaml 是他人放置的文件，而不是指向最新备份的链接，则予以保留
if [ -e insight-bak.yaml ] && [ ! -L insight-bak.yaml ]; then mv -T insight-bak.yaml backups/insight/by-hand-$time.yaml; fi
mv -T backups/insight/$revision-$time.yaml.new backups/insight/$revision-$time.yaml
ln -sfn backups/insight/$revision-$time.yaml insight-bak.yaml.new && mv -T insight-bak.yaml.new insight-bak.yaml

# Back up the --set parameters · 备份 --set 参数 (no manual on record · 未收录手册)
export revision='{last_deployed_revision_of_insight-agent}'
mkdir -p backups/insight-agent && rm -f backups/insight-agent/*.yaml.new
helm get values insight-agent -n insight-system -o yaml \
  --revision $revision > backups/insight-agent/$revision-$time.yaml.new
# check: the file is read back and compared with the values in the cluster
# 检查：读回文件并与集群中的参数比较
# a insight-agent-bak.yaml that is a file of somebody else, not the link to the newest backup, is kept
# 若 insight-agent-bak.yaml 是他人放置的文件，而不是指向最新备份的链接，则予以保留
if [ -e insight-agent-bak.yaml ] && [ ! -L insight-agent-bak.yaml ]; then mv -T insight-agent-bak.yaml backups/insight-agent/by-hand-$time.yaml; fi
mv -T backups/insight-agent/$revision-$time.yaml.new backups/insight-agent/$revision-$time.yaml
ln -sfn backups/insight-agent/$revision-$time.yaml insight-agent-bak.yaml.new && mv -T insight-agent-bak.yaml.new insight-agent-bak.yaml

# Look at what will be deployed · 查看将要部署的内容 (not in the manual · 手册中没有)
export version='{newest_stable_version_of_insight}'
# check: the chart is rendered with these values; every image must be in 10.16.10.111/release.daocloud.io/insight/, and the registry must have it
# 检查：用这些参数渲染 chart，所有镜像都必须位于 10.16.10.111/release.daocloud.io/insight/，且镜像仓库中必须存在
export version='{newest_stable_version_of_insight-agent}'
# check: the chart is rendered with these values; every image must be in 10.16.10.111/release.daocloud.io/insight/, and the registry must have it
# 检查：用这些参数渲染 chart，所有镜像都必须位于 10.16.10.111/release.daocloud.io/insight/，且镜像仓库中必须存在

# Update the CRDs · 更新 CRD (no manual on record · 未收录手册)
rm -rf charts/insight-agent && mkdir -p charts/insight-agent
helm pull addon/insight-agent --version $version -d charts/insight-agent && tar -zxf charts/insight-agent/*.tgz -C charts/insight-agent
# check: charts/insight-agent/insight-agent/charts/kube-prometheus-stack/crds holds CRDs and nothing else
# 检查：charts/insight-agent/insight-agent/charts/kube-prometheus-stack/crds 中只有 CRD
# the CRDs as they are now are saved to crds/insight-agent-{time_of_this_run}.yaml
# 将当前的 CRD 保存到 crds/insight-agent-{time_of_this_run}.yaml
kubectl apply -f charts/insight-agent/insight-agent/charts/kube-prometheus-stack/crds \
  --server-side --force-conflicts --dry-run=server
kubectl apply -f charts/insight-agent/insight-agent/charts/kube-prometheus-stack/crds \
  --server-side --force-conflicts
kubectl wait -f charts/insight-agent/insight-agent/charts/kube-prometheus-stack/crds \
  --for=condition=Established --timeout=360s

# Run helm upgrade · 执行 helm upgrade (no manual on record · 未收录手册)
export version='{newest_stable_version_of_insight}'
export imageRegistry=10.16.10.111
# only if this chart with these values is not deployed already
# 仅当该 chart 与参数尚未部署时执行
helm upgrade insight addon/insight \
  -n insight-system \
  -f ./insight-bak.yaml \
  --set global.imageRegistry=$imageRegistry \
  --set ui.image.registry=10.16.10.111/release.daocloud.io \
  --version $version
# check: insight is deployed at the version above
# 检查：insight 已部署为上述版本

# Run helm upgrade · 执行 helm upgrade (no manual on record · 未收录手册)
export version='{newest_stable_version_of_insight-agent}'
export imageRegistry=10.16.10.111
# only if this chart with these values is not deployed already
# 仅当该 chart 与参数尚未部署时执行
helm upgrade insight-agent addon/insight-agent \
  -n insight-system \
  -f ./insight-agent-bak.yaml \
  --set global.imageRegistry=$imageRegistry \
  --set ui.image.registry=10.16.10.111/release.daocloud.io \
  --version $version
# check: insight-agent is deployed at the version above
# 检查：insight-agent 已部署为上述版本

# Wait until the workloads are up · 等待工作负载就绪 (not in the manual · 手册中没有)
# check: the Deployments, StatefulSets, DaemonSets and Jobs of insight come up (time limit 10m)
# 检查：insight 的 Deployment、StatefulSet、DaemonSet 和 Job 均已就绪（时限 10m）
# check: the Deployments, StatefulSets, DaemonSets and Jobs of insight-agent come up (time limit 10m)
# 检查：insight-agent 的 Deployment、StatefulSet、DaemonSet 和 Job 均已就绪（时限 10m）
