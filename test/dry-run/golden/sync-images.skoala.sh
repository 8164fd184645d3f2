#!/usr/bin/env bash
# sync-images: Microservice engine · 微服务引擎 (skoala)
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


# Before anything is pushed · 推送前的检查 (not in the manual · 手册中没有)
# lock: nobody else pushes to 10.16.10.111/release.daocloud.io/skoala
# 加锁：没有其他人在向 10.16.10.111/release.daocloud.io/skoala 推送
# check: each bundle of skoala in ../../../skoala-offline has nothing in it but what belongs there, its images are amd64, have the hash that they are called by, and are those of the hints
# 检查：../../../skoala-offline 中 skoala 的每个离线包只含应有的文件，镜像架构为 amd64，与其名称中的哈希一致，且与 hints 对应
# only if an image of the bundle is not in 10.16.10.111/release.daocloud.io/skoala with the same image ID, or the chart is not in the chart repository
# 仅当 10.16.10.111/release.daocloud.io/skoala 中缺少离线包中的镜像（按镜像 ID 比较），或 chart 仓库中缺少该 chart 时执行
# check: each layer has the hash that it is called by, and the whole the sha512 that was delivered with it, if one was
# 检查：每一层都与其名称中的哈希一致；若随附 sha512，则整个文件也与其一致

# Create load-image.yaml as a chart-syncer profile · 创建 load-image.yaml 作为 chart-syncer 的配置文件 (skoala.en.md:11-70, skoala.zh.md:11-61)
# differs from skoala.en.md:20, skoala.zh.md:21: the bundle is linked into a directory of its own, made afresh, under the name that charts-syncer reads; a .tar of another name in it would crash charts-syncer
# 与 skoala.en.md:20, skoala.zh.md:21 不同：为离线包新建独立目录，并在其中创建软链接，并使用 charts-syncer 能识别的名称；目录中若有其他名称的 .tar，charts-syncer 会崩溃
# differs from skoala.en.md:27-33, skoala.en.md:59-62, skoala.zh.md:28-34, skoala.zh.md:50-53: no password is written to the file: charts-syncer takes the logins from TARGET_REPO_AUTH_* and TARGET_CONTAINERS_AUTH_* in the environment, so the file may leave them out
# 与 skoala.en.md:27-33, skoala.en.md:59-62, skoala.zh.md:28-34, skoala.zh.md:50-53 不同：文件中不写密码：charts-syncer 从环境变量 TARGET_REPO_AUTH_* 和 TARGET_CONTAINERS_AUTH_* 读取登录信息，因此文件中可以省略
# differs from skoala.en.md:27-29: username and password stand beside auth, not below it: charts-syncer ends with unknown field "password" and syncs nothing
# 与 skoala.en.md:27-29 不同：缩进有误，username 和 password 与 auth 同级，应为其子字段：charts-syncer 会报 unknown field "password" 并退出，不会同步任何内容
# differs from skoala.en.md:58, skoala.zh.md:49: charts-syncer runs in a directory of its own, so the path begins with ..; the charts are in local-repo beside load-image.yaml
# 与 skoala.en.md:58, skoala.zh.md:49 不同：charts-syncer 在独立目录中运行，因此路径以 .. 开头；chart 位于 load-image.yaml 旁的 local-repo 中
export source='../../../skoala-offline/{bundle_file}'
export bundle='{chart}-{version}.bundle.tar'
# in a directory of its own, under the name that charts-syncer reads; out of a download it is copied
# 放入独立目录，并使用 charts-syncer 能识别的名称；若为外层下载文件，则从中复制
rm -rf charts-syncer && mkdir -p charts-syncer/skoala-offline charts-syncer/tmp
ln -sr $source charts-syncer/skoala-offline/$bundle
cat > load-image.yaml << 'EOF'
source:
  intermediateBundlesPath: skoala-offline # relative to where charts-syncer runs, not to this file
target:
  containerRegistry: 10.16.10.111 # the image registry
  containerRepository: release.daocloud.io/skoala # the path in it
  repo:
    kind: HARBOR # or any other kind of chart repository that charts-syncer supports
    url: http://10.16.10.111/chartrepo/release.daocloud.io # the chart repository
# repo.auth and containers.auth: in the environment, TARGET_REPO_AUTH_* and TARGET_CONTAINERS_AUTH_*
EOF

# Run the mirror synchronization command · 执行同步镜像命令 (skoala.en.md:72-76, skoala.zh.md:63-67)
# differs from skoala.en.md:75, skoala.zh.md:66: TMPDIR and --workdir are in the module's directory: charts-syncer renames files from one to the other, which fails between file systems, and keeps a cache of charts. Run only where an image or the chart is missing; its exit code 0 is no proof, so the registry is asked before and after
# 与 skoala.en.md:75, skoala.zh.md:66 不同：TMPDIR 与 --workdir 都位于模块目录中：charts-syncer 会用重命名在两者之间移动文件（跨文件系统会失败），并缓存 chart。仅当镜像仓库或 chart 仓库缺少内容时执行；退出码为 0 不代表同步成功，因此前后都会查询镜像仓库
(cd charts-syncer && \
TARGET_REPO_AUTH_USERNAME="$CHART_REPO_USERNAME" \
TARGET_REPO_AUTH_PASSWORD="$CHART_REPO_PASSWORD" \
TARGET_CONTAINERS_AUTH_USERNAME="$REGISTRY_USERNAME" \
TARGET_CONTAINERS_AUTH_PASSWORD="$REGISTRY_PASSWORD" \
TMPDIR=$PWD/tmp \
charts-syncer sync --config ../load-image.yaml --workdir work)
# check: every image is in the registry with the image ID of the bundle, and the chart is in the chart repository
# 检查：所有镜像均已在镜像仓库中且镜像 ID 与离线包一致，chart 已在 chart 仓库中
