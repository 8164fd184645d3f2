#!/usr/bin/env bash
# upgrade: Microservice engine · 微服务引擎 (skoala), via repo
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


# Before anything is changed · 变更前的检查 (not in the manual · 手册中没有)
# check: the current context is kubernetes-admin@cluster.local, and the cluster is the one that this site's records are of
# 检查：当前 context 为 kubernetes-admin@cluster.local，且集群与本站点记录一致
# lock: nobody else works on skoala-system/skoala
# 加锁：没有其他人在操作 skoala-system/skoala
# check: skoala-system/skoala is deployed, and no other helm is at work on it
# 检查：skoala-system/skoala 已部署，且没有其他 helm 正在操作

# Check whether microservice engine helm repository exists · 检查微服务引擎 helm 仓库是否存在 (skoala.en.md:116-126, skoala.zh.md:108-118)
# differs from skoala.en.md:119, skoala.zh.md:111: grep matches any name or URL that contains the word; the exact name and URL are compared, and the login with the one in helm's repositories.yaml. The next step is skipped where all are those of the site file; where there is no repository yet, -o yaml prints [] and ends with 0
# 与 skoala.en.md:119, skoala.zh.md:111 不同：grep 会匹配任何包含该词的名称或 URL；这里对名称和 URL 做精确匹配，登录信息与 helm 的 repositories.yaml 中保存的进行比对。三者均与站点配置一致时跳过下一步；还没有任何仓库时，-o yaml 输出 []，退出码为 0
helm repo list -o yaml

# Add helm repository for microservice engine · 添加微服务引擎的 helm 仓库 (skoala.en.md:128-132, skoala.zh.md:120-124)
# differs from skoala.en.md:131: prints `heml`, a misprint
# 与 skoala.en.md:131 不同：手册误写为 `heml`
# differs from skoala.en.md:131, skoala.zh.md:123: where the repository asks for a login, helm gets it by --password-stdin (where it asks for none, it is helm repo add NAME URL --force-update), and keeps it in a file of this module, open to its user alone; --force-update replaces an older URL or login of the same name
# 与 skoala.en.md:131, skoala.zh.md:123 不同：仓库需要登录时通过 --password-stdin 传入（不需要登录时为 helm repo add 名称 URL --force-update），helm 将其保存在本模块专用、仅当前用户可读的文件中；--force-update 用于替换同名的旧 URL 或登录信息
# only if the step above did not find it, with this URL and login
# 仅当上一步未找到该名称、URL 和登录信息时执行
printf %s "$CHART_REPO_PASSWORD" |
  helm repo add skoala-release http://10.16.10.111/chartrepo/release.daocloud.io \
    --username "$CHART_REPO_USERNAME" --password-stdin \
    --force-update

# Update helm repository for microservice engine · 更新微服务引擎的 helm 仓库 (skoala.en.md:134-140, skoala.zh.md:126-132)
# differs from skoala.en.md:140, skoala.zh.md:132: `helm update repo` is not a command; `helm repo update NAME`, which is run before, works in every helm since 3.7
# 与 skoala.en.md:140, skoala.zh.md:132 不同：没有 `helm update repo` 这个命令；此前执行的 `helm repo update NAME` 在 helm 3.7 起均可用
helm repo update skoala-release
# check: the index was fetched in this run
# 检查：仓库索引已在本次运行中更新

# Select the version of the microservice engine you want to install (the latest version is recommended) · 选择您想安装的微服务引擎版本（建议安装最新版本） (skoala.en.md:142-153, skoala.zh.md:134-144)
helm search repo skoala-release/skoala --versions
export version='{newest_stable_version}'

# Backup --set Parameter · 备份 --set 参数 (skoala.en.md:155-161, skoala.zh.md:146-152)
# differs from skoala.en.md:160, skoala.zh.md:151: the redirect empties bak.yaml before helm runs: a new file per run is written, checked, then named bak.yaml, and a bak.yaml that somebody made by hand is moved to backups; --revision names the last deployed revision, not a failed one after it
# 与 skoala.en.md:160, skoala.zh.md:151 不同：重定向会在 helm 运行前清空 bak.yaml：这里每次写入新文件，检查后再命名为 bak.yaml，已有的手工创建的 bak.yaml 会移到 backups 中保留；--revision 指定最近一次部署成功的 revision，而不是其后失败的 revision
export revision='{last_deployed_revision}'
export time='{time_of_this_run}'
mkdir -p backups/skoala && rm -f backups/skoala/*.yaml.new
helm get values skoala -n skoala-system -o yaml \
  --revision $revision > backups/skoala/$revision-$time.yaml.new
# check: the file is read back and compared with the values in the cluster
# 检查：读回文件并与集群中的参数比较
# a bak.yaml that is a file of somebody else, not the link to the newest backup, is kept
# 若 bak.yaml 是他人放置的文件，而不是指向最新备份的链接，则予以保留
if [ -e bak.yaml ] && [ ! -L bak.yaml ]; then mv -T bak.yaml backups/skoala/by-hand-$time.yaml; fi
mv -T backups/skoala/$revision-$time.yaml.new backups/skoala/$revision-$time.yaml
ln -sfn backups/skoala/$revision-$time.yaml bak.yaml.new && mv -T bak.yaml.new bak.yaml

# Look at what will be deployed · 查看将要部署的内容 (not in the manual · 手册中没有)
# check: the chart is rendered with these values; every image must be in 10.16.10.111/release.daocloud.io/skoala/, and the registry must have it
# 检查：用这些参数渲染 chart，所有镜像都必须位于 10.16.10.111/release.daocloud.io/skoala/，且镜像仓库中必须存在

# Run helm upgrade · 执行 helm upgrade (skoala.en.md:163-177, skoala.zh.md:154-168)
# differs from skoala.en.md:165, skoala.zh.md:156: bak.yaml itself is not edited: --set overrides the field in it
# 与 skoala.en.md:165, skoala.zh.md:156 不同：不修改 bak.yaml 本身，由 --set 覆盖其中的字段
# differs from skoala.en.md:175, skoala.zh.md:166: the backslash before --version is missing, which upgrades to the newest chart
# 与 skoala.en.md:175, skoala.zh.md:166 不同：--version 前缺少反斜杠，会升级到最新的 chart
export imageRegistry=10.16.10.111
# only if this chart with these values is not deployed already
# 仅当该 chart 与参数尚未部署时执行
helm upgrade skoala skoala-release/skoala \
  -n skoala-system \
  -f ./bak.yaml \
  --set global.imageRegistry=$imageRegistry \
  --version $version
# check: skoala is deployed at the version above
# 检查：skoala 已部署为上述版本

# Wait until the workloads are up · 等待工作负载就绪 (not in the manual · 手册中没有)
# check: the Deployments, StatefulSets, DaemonSets and Jobs of skoala come up (time limit 10m)
# 检查：skoala 的 Deployment、StatefulSet、DaemonSet 和 Job 均已就绪（时限 10m）
