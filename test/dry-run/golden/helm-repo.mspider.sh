#!/usr/bin/env bash
# helm-repo: Service mesh · 服务网格 (mspider)
# A dry run: nothing was run. What only a real run can know is written {like_this}.
# 试运行（dry run）：未执行任何命令。只有实际执行时才能得知的值写作 {like_this}。
set -euo pipefail
umask 077
mkdir -p state/example/mspider/.helm && cd state/example/mspider
# a helm configuration of its own
# 使用独立的 helm 配置
export HELM_REPOSITORY_CONFIG=$PWD/.helm/repositories.yaml
export HELM_REPOSITORY_CACHE=$PWD/.helm/cache
export HELM_REGISTRY_CONFIG=$PWD/.helm/registry.json


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
export version='{newest_stable_version}'
