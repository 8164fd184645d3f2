#!/usr/bin/env bash
# upgrade: Service mesh · 服务网格 (mspider), via repo
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

# Checking the Existence of the mspider-release Repository Locally · 检查本地是否存在 mspider-release 仓库 (mspider.en.md:113-123)
# differs from mspider.en.md:116: the prompt ~ is printed as part of the command
# 与 mspider.en.md:116 不同：命令中混入了提示符 ~
# differs from mspider.en.md:116: grep matches any name or URL that contains the word; the exact name and URL are compared, and the login with the one in helm's repositories.yaml. The next step is skipped where all are those of the site file; where there is no repository yet, -o yaml prints [] and ends with 0
# 与 mspider.en.md:116 不同：grep 会匹配任何包含该词的名称或 URL；这里对名称和 URL 做精确匹配，登录信息与 helm 的 repositories.yaml 中保存的进行比对。三者均与站点配置一致时跳过下一步；还没有任何仓库时，-o yaml 输出 []，退出码为 0
helm repo list -o yaml

# Adding the Helm Repository · 添加 Helm 仓库 (mspider.en.md:125-129)
# differs from mspider.en.md:128: the prompt ~ is printed as part of the command
# 与 mspider.en.md:128 不同：命令中混入了提示符 ~
# differs from mspider.en.md:128: where the repository asks for a login, helm gets it by --password-stdin (where it asks for none, it is helm repo add NAME URL --force-update), and keeps it in a file of this module, open to its user alone; --force-update replaces an older URL or login of the same name
# 与 mspider.en.md:128 不同：仓库需要登录时通过 --password-stdin 传入（不需要登录时为 helm repo add 名称 URL --force-update），helm 将其保存在本模块专用、仅当前用户可读的文件中；--force-update 用于替换同名的旧 URL 或登录信息
# only if the step above did not find it, with this URL and login
# 仅当上一步未找到该名称、URL 和登录信息时执行
printf %s "$CHART_REPO_PASSWORD" |
  helm repo add mspider-release http://10.16.10.111/chartrepo/release.daocloud.io \
    --username "$CHART_REPO_USERNAME" --password-stdin \
    --force-update

# Update the helm repository for the service mesh · 更新服务网格的 helm 仓库 (mspider.en.md:131-135)
# differs from mspider.en.md:119: "skip the next step" leads straight to the upgrade, past `helm repo update`, and leaves an old index; only `repo add` is skipped
# 与 mspider.en.md:119 不同：按手册“跳过下一步”会直接到升级，连 `helm repo update` 一并跳过，从而使用旧索引；这里只跳过 `repo add`
# differs from mspider.en.md:134: the prompt ~ is printed as part of the command
# 与 mspider.en.md:134 不同：命令中混入了提示符 ~
helm repo update mspider-release
# check: the index was fetched in this run
# 检查：仓库索引已在本次运行中更新

# Choose the version of the service mesh you want to install (it is recommended to install the latest version) · 选择您想安装的服务网格版本（建议安装最新版本） (mspider.en.md:137-148)
# differs from mspider.en.md:141, mspider.en.md:144: the prompt ~ is printed as part of the command
# 与 mspider.en.md:141, mspider.en.md:144 不同：命令中混入了提示符 ~
# differs from mspider.en.md:141: `helm update repo` is not a command; `helm repo update NAME`, which is run before, works in every helm since 3.7
# 与 mspider.en.md:141 不同：没有 `helm update repo` 这个命令；此前执行的 `helm repo update NAME` 在 helm 3.7 起均可用
helm search repo mspider-release/mspider --versions
export version=0.20.1

# Backing up the --set Parameters · 备份 --set 参数 (mspider.en.md:150-156)
# differs from mspider.en.md:111: our reading: the mesh configuration file is bak.yaml, the only file that the page then writes, with the values of the release
# 与 mspider.en.md:111 不同：我们的理解：网格配置文件即 bak.yaml（手册随后写入的唯一文件），内容为该 release 的参数
# differs from mspider.en.md:155: the prompt ~ is printed as part of the command
# 与 mspider.en.md:155 不同：命令中混入了提示符 ~
# differs from mspider.en.md:155: the redirect empties bak.yaml before helm runs: a new file per run is written, checked, then named bak.yaml, and a bak.yaml that somebody made by hand is moved to backups; --revision names the last deployed revision, not a failed one after it
# 与 mspider.en.md:155 不同：重定向会在 helm 运行前清空 bak.yaml：这里每次写入新文件，检查后再命名为 bak.yaml，已有的手工创建的 bak.yaml 会移到 backups 中保留；--revision 指定最近一次部署成功的 revision，而不是其后失败的 revision
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
# check: the chart is rendered with these values; every image must be in 10.16.10.111/release.daocloud.io/mspider/, and the registry must have it
# 检查：用这些参数渲染 chart，所有镜像都必须位于 10.16.10.111/release.daocloud.io/mspider/，且镜像仓库中必须存在

# Executing helm upgrade · 执行 helm upgrade (mspider.en.md:169-183)
# differs from mspider.en.md:171: bak.yaml itself is not edited: --set overrides the field in it
# 与 mspider.en.md:171 不同：不修改 bak.yaml 本身，由 --set 覆盖其中的字段
# differs from mspider.en.md:174, mspider.en.md:178: the prompt ~ is printed as part of the command
# 与 mspider.en.md:174, mspider.en.md:178 不同：命令中混入了提示符 ~
export imageRegistry=10.16.10.111
# only if this chart with these values is not deployed already
# 仅当该 chart 与参数尚未部署时执行
helm upgrade mspider mspider-release/mspider \
  -n mspider-system \
  -f ./bak.yaml \
  --set global.imageRegistry=$imageRegistry \
  --timeout 15m \
  --version $version
# check: mspider is deployed at the version above
# 检查：mspider 已部署为上述版本

# Wait until the workloads are up · 等待工作负载就绪 (not in the manual · 手册中没有)
# check: the Deployments, StatefulSets, DaemonSets and Jobs of mspider come up (time limit 15m)
# 检查：mspider 的 Deployment、StatefulSet、DaemonSet 和 Job 均已就绪（时限 15m）
