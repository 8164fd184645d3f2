#!/usr/bin/env bash
# backup-values: Service mesh · 服务网格 (mspider)
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

# check: the current context is kubernetes-admin@cluster.local, and the cluster is the one that this site's records are of
# 检查：当前 context 为 kubernetes-admin@cluster.local，且集群与本站点记录一致
# lock: nobody else works on mspider-system/mspider
# 加锁：没有其他人在操作 mspider-system/mspider

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
