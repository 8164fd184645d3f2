#!/usr/bin/env bash
# helm-repo: Multicloud management · 多云编排 (kairship)
# A dry run: nothing was run. What only a real run can know is written {like_this}.
# 试运行（dry run）：未执行任何命令。只有实际执行时才能得知的值写作 {like_this}。
set -euo pipefail
umask 077
mkdir -p state/example/kairship/.helm && cd state/example/kairship
# a helm configuration of its own
# 使用独立的 helm 配置
export HELM_REPOSITORY_CONFIG=$PWD/.helm/repositories.yaml
export HELM_REPOSITORY_CACHE=$PWD/.helm/cache
export HELM_REGISTRY_CONFIG=$PWD/.helm/registry.json


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
