#!/usr/bin/env bash
# update-crds: Multicloud management · 多云编排 (kairship), via package
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

# check: the current context is kubernetes-admin@cluster.local, and the cluster is the one that this site's records are of
# 检查：当前 context 为 kubernetes-admin@cluster.local，且集群与本站点记录一致
# lock: nobody else works on kairship-system/kairship
# 加锁：没有其他人在操作 kairship-system/kairship
# check: kairship-system/kairship is deployed, and no other helm is at work on it
# 检查：kairship-system/kairship 已部署，且没有其他 helm 正在操作

# Update kairship CRDs · 更新 kairship CRD (kairship.en.md:203-207)
# differs from kairship.en.md:206: `.` is whichever directory one is in; the chart is named: original-chart, unpacked by hand beside the site file, or that of --chart
# 与 kairship.en.md:206 不同：`.` 取决于当前所在目录；这里写明 chart 的路径：在站点配置旁手动解压的 original-chart，或 --chart 指定的 chart
# differs from kairship.en.md:206: large CRDs do not fit into client-side apply (its annotation holds 262144 bytes); they are applied server-side, after those of the cluster were saved to crds/
# 与 kairship.en.md:206 不同：CRD 过大时，客户端 apply 会超出 annotation 的大小限制；这里先将集群中的 CRD 保存到 crds/，再使用 server-side apply
# differs from kairship.en.md:206: they are tried first with --dry-run=server; --force-conflicts takes over the fields that helm, or an earlier kubectl apply, owns; kubectl wait sees them established (an API server that was restarted meanwhile may take 5 minutes)
# 与 kairship.en.md:206 不同：先用 --dry-run=server 试行；--force-conflicts 接管安装时归 helm 管理的字段；最后用 kubectl wait 等待 CRD 生效（若期间 API server 重启，最长可能需要 5 分钟）
export version='{version_of_the_chart_package}'
# check: ../../../original-chart/kairship/crds holds CRDs and nothing else
# 检查：../../../original-chart/kairship/crds 中只有 CRD
# the CRDs as they are now are saved to crds/kairship-{time_of_this_run}.yaml
# 将当前的 CRD 保存到 crds/kairship-{time_of_this_run}.yaml
kubectl apply -f ../../../original-chart/kairship/crds \
  --server-side --force-conflicts --dry-run=server
kubectl apply -f ../../../original-chart/kairship/crds \
  --server-side --force-conflicts
kubectl wait -f ../../../original-chart/kairship/crds \
  --for=condition=Established --timeout=360s
