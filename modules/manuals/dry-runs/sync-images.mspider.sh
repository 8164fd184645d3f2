#!/usr/bin/env bash
# sync-images: Service mesh · 服务网格 (mspider)
# A dry run: nothing was run. What only a real run can know is written {like_this}.
# 试运行（dry run）：未执行任何命令。只有实际执行时才能得知的值写作 {like_this}。
set -euo pipefail
umask 077
mkdir -p state/example/mspider && cd state/example/mspider


# Before anything is pushed · 推送前的检查 (not in the manual · 手册中没有)
# lock: nobody else pushes to 10.16.10.111/release.daocloud.io/mspider
# 加锁：没有其他人在向 10.16.10.111/release.daocloud.io/mspider 推送
# check: each bundle of mspider in ./mspider-offline contains only the expected files; its images are built for amd64, match the hashes in their names, and match hints.yaml
# 检查：./mspider-offline 中 mspider 的每个离线包只含应有的文件，镜像架构为 amd64，与其名称中的哈希一致，且与 hints.yaml 对应
# only if an image of the bundle is missing in 10.16.10.111/release.daocloud.io/mspider (compared by image ID), or the chart is missing in the chart repository
# 仅当 10.16.10.111/release.daocloud.io/mspider 中缺少离线包中的镜像（按镜像 ID 比较），或 chart 仓库中缺少该 chart 时执行
# check: each layer matches the hash in its name, and the whole matches the sha512 delivered with it, if there is one
# 检查：每一层都与其名称中的哈希一致；若随附 sha512，则整个文件也与其一致

# Create load-image.yaml · 创建 load-image.yaml (mspider.en.md:15-67)
# differs from mspider.en.md:19, mspider.en.md:34-40: no password is written to the file: charts-syncer takes the logins from TARGET_REPO_AUTH_* and TARGET_CONTAINERS_AUTH_* in the environment, so the file may leave them out
# 与 mspider.en.md:19, mspider.en.md:34-40 不同：文件中不写密码：charts-syncer 从环境变量 TARGET_REPO_AUTH_* 和 TARGET_CONTAINERS_AUTH_* 读取登录信息，因此文件中可以省略
# differs from mspider.en.md:27: the bundle is linked into a directory of its own, made afresh, under the name that charts-syncer reads; a .tar of another name in it would crash charts-syncer
# 与 mspider.en.md:27 不同：为离线包新建独立目录，并在其中创建软链接，并使用 charts-syncer 能识别的名称；目录中若有其他名称的 .tar，charts-syncer 会崩溃
export source='../../../mspider-offline/{bundle_file}'
export bundle='{chart}-{version}.bundle.tar'
# in a directory of its own, under the name that charts-syncer reads; out of a download it is copied
# 放入独立目录，并使用 charts-syncer 能识别的名称；若为外层下载文件，则从中复制
rm -rf charts-syncer && mkdir -p charts-syncer/mspider-offline charts-syncer/tmp
ln -sr $source charts-syncer/mspider-offline/$bundle
cat > load-image.yaml << 'EOF'
source:
  intermediateBundlesPath: mspider-offline # The relative path to the directory where the charts-syncer command is executed, not the relative path between this YAML file and the offline package
target:
  containerRegistry: 10.16.10.111 # Container registry address
  containerRepository: release.daocloud.io/mspider # Container registry path
  repo:
    kind: HARBOR # Helm Chart repository type
    url: http://10.16.10.111/chartrepo/release.daocloud.io # Helm repository address
    # auth: Helm repository username and password, from the environment (TARGET_REPO_AUTH_*)
  # containers.auth: Container registry username and password, from the environment (TARGET_CONTAINERS_AUTH_*)
EOF

# Run the command to synchronize the images · 执行同步镜像命令 (mspider.en.md:69-73)
# differs from mspider.en.md:72: the prompt ~ is printed as part of the command
# 与 mspider.en.md:72 不同：命令中混入了提示符 ~
# differs from mspider.en.md:72: TMPDIR and --workdir are in the module's directory: charts-syncer renames files from one to the other, which fails between file systems, and keeps a cache of charts. Run only where an image or the chart is missing; its exit code 0 is no proof, so the registry is asked before and after
# 与 mspider.en.md:72 不同：TMPDIR 与 --workdir 都位于模块目录中：charts-syncer 会用重命名在两者之间移动文件（跨文件系统会失败），并缓存 chart。仅当镜像仓库或 chart 仓库缺少内容时执行；退出码为 0 不代表同步成功，因此前后都会查询镜像仓库
(cd charts-syncer && \
TARGET_REPO_AUTH_USERNAME="$CHART_REPO_USERNAME" \
TARGET_REPO_AUTH_PASSWORD="$CHART_REPO_PASSWORD" \
TARGET_CONTAINERS_AUTH_USERNAME="$REGISTRY_USERNAME" \
TARGET_CONTAINERS_AUTH_PASSWORD="$REGISTRY_PASSWORD" \
TMPDIR=$PWD/tmp \
charts-syncer sync --config ../load-image.yaml --workdir work)
# check: every image is in the registry with the image ID of the bundle, and the chart is in the chart repository
# 检查：所有镜像均已在镜像仓库中且镜像 ID 与离线包一致，chart 已在 chart 仓库中
