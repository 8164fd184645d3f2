#!/usr/bin/env bash
# update-crds: Microservice engine · 微服务引擎 (skoala), via repo
# A dry run: nothing was run. What only a real run can know is written {like_this}.
# 试运行（dry run）：未执行任何命令。只有实际执行时才能得知的值写作 {like_this}。
set -euo pipefail
umask 077
mkdir -p state/example/skoala/.helm && cd state/example/skoala
# the context kubernetes-admin@cluster.local, whatever else the terminal uses; a helm configuration of its own
# 固定使用 context kubernetes-admin@cluster.local；使用独立的 helm 配置
printf 'apiVersion: v1\nkind: Config\ncurrent-context: %s\n' kubernetes-admin@cluster.local > .helm/context.yaml
export KUBECONFIG=$PWD/.helm/context.yaml:~/.kube/config
export HELM_REPOSITORY_CONFIG=$PWD/.helm/repositories.yaml
export HELM_REPOSITORY_CACHE=$PWD/.helm/cache
export HELM_REGISTRY_CONFIG=$PWD/.helm/registry.json

# check: the current context is kubernetes-admin@cluster.local, and the cluster is the one that this site's records are of
# 检查：当前 context 为 kubernetes-admin@cluster.local，且集群与本站点记录一致
# lock: nobody else works on skoala-system/skoala
# 加锁：没有其他人在操作 skoala-system/skoala
# the manual of skoala has no CRD step: nothing to do
# skoala 的手册没有更新 CRD 的步骤，无需操作
