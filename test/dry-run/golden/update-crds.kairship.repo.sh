#!/usr/bin/env bash
# update-crds: Multicloud management · 多云编排 (kairship), via repo
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

# Check if the Multicloud Management Helm repository exists · 检查多云编排 Helm 仓库是否存在 (kairship.en.md:124-134)
# differs from kairship.en.md:127: grep matches any name or URL that contains the word; the exact name and URL are compared, and the login with the one in helm's repositories.yaml. The next step is skipped where all are those of the site file; where there is no repository yet, -o yaml prints [] and ends with 0
# 与 kairship.en.md:127 不同：grep 会匹配任何包含该词的名称或 URL；这里对名称和 URL 做精确匹配，登录信息与 helm 的 repositories.yaml 中保存的进行比对。三者均与站点配置一致时跳过下一步；还没有任何仓库时，-o yaml 输出 []，退出码为 0
helm repo list -o yaml

# Add the Multicloud Management Helm repository · 添加多云编排 Helm 仓库 (kairship.en.md:136-140)
# differs from kairship.en.md:139: where the repository asks for a login, helm gets it by --password-stdin (where it asks for none, it is helm repo add NAME URL --force-update), and keeps it in a file of this module, open to its user alone; --force-update replaces an older URL or login of the same name
# 与 kairship.en.md:139 不同：仓库需要登录时通过 --password-stdin 传入（不需要登录时为 helm repo add 名称 URL --force-update），helm 将其保存在本模块专用、仅当前用户可读的文件中；--force-update 用于替换同名的旧 URL 或登录信息
# only if the step above did not find it, with this URL and login
# 仅当上一步未找到该名称、URL 和登录信息时执行
printf %s "$CHART_REPO_PASSWORD" |
  helm repo add kairship http://10.16.10.111/chartrepo/release.daocloud.io \
    --username "$CHART_REPO_USERNAME" --password-stdin \
    --force-update

# Update the Multicloud Management Helm repository · 更新多云编排 Helm 仓库 (kairship.en.md:142-146)
helm repo update kairship
# check: the index was fetched in this run
# 检查：仓库索引已在本次运行中更新

# Select the version of Multicloud Management you want to install (it is recommended to install the latest version) · 选择您想安装的多云编排版本（建议安装最新版本） (kairship.en.md:148-160)
helm search repo kairship/kairship --versions
export version='{newest_stable_version}'

# Update kairship CRDs · 更新 kairship CRD (kairship.en.md:170-175)
# differs from kairship.en.md:173: the chart would be unpacked over the bundle directory ./kairship; it gets a directory of its own
# 与 kairship.en.md:173 不同：chart 会解压到离线包目录 ./kairship 之上；这里使用独立的目录
# differs from kairship.en.md:174: large CRDs do not fit into client-side apply (its annotation holds 262144 bytes); they are applied server-side, after those of the cluster were saved to crds/
# 与 kairship.en.md:174 不同：CRD 过大时，客户端 apply 会超出 annotation 的大小限制；这里先将集群中的 CRD 保存到 crds/，再使用 server-side apply
# differs from kairship.en.md:174: they are tried first with --dry-run=server; --force-conflicts takes over the fields that helm, or an earlier kubectl apply, owns; kubectl wait sees them established (an API server that was restarted meanwhile may take 5 minutes)
# 与 kairship.en.md:174 不同：先用 --dry-run=server 试行；--force-conflicts 接管安装时归 helm 管理的字段；最后用 kubectl wait 等待 CRD 生效（若期间 API server 重启，最长可能需要 5 分钟）
rm -rf charts/kairship && mkdir -p charts/kairship
helm pull kairship/kairship --version $version -d charts/kairship && tar -zxf charts/kairship/*.tgz -C charts/kairship
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
