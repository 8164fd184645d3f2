#!/usr/bin/env bash
# load-images: Service mesh · 服务网格 (mspider)
# A dry run: nothing was run. What only a real run can know is written {like_this}.
# 试运行（dry run）：未执行任何命令。只有实际执行时才能得知的值写作 {like_this}。
set -euo pipefail
umask 077
export PATH=$PATH:$PWD/lib/bin
mkdir -p state/example/mspider/.helm && cd state/example/mspider
# the context kubernetes-admin@cluster.local, whatever else the terminal uses
# 固定使用 context kubernetes-admin@cluster.local
printf 'apiVersion: v1\nkind: Config\ncurrent-context: %s\n' kubernetes-admin@cluster.local > .helm/context.yaml
export KUBECONFIG=$PWD/.helm/context.yaml:~/.kube/config


# Before anything is loaded · 加载前的检查 (not in the manual · 手册中没有)
# check: each bundle of mspider in ./mspider-offline contains only the expected files; its images are built for amd64, match the hashes in their names, and match hints.yaml
# 检查：./mspider-offline 中 mspider 的每个离线包只含应有的文件，镜像架构为 amd64，与其名称中的哈希一致，且与 hints.yaml 对应
# check: the current context is kubernetes-admin@cluster.local, and the cluster is the one that this site's records are of
# 检查：当前 context 为 kubernetes-admin@cluster.local，且集群与本站点记录一致
# which nodes: all that the cluster lists
# 节点：集群中列出的全部节点
cat > ssh_config.$$ << 'EOF'
Host {each_node}
  HostName {its_address}
Host *
  BatchMode yes
  StrictHostKeyChecking yes
  ConnectTimeout 10
  ServerAliveInterval 15
  ServerAliveCountMax 4
  ControlMaster no
  ControlPath none
  RequestTTY no
  ClearAllForwardings yes
  IgnoreUnknown RemoteCommand
  RemoteCommand none
  Ciphers aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes256-ctr,chacha20-poly1305@openssh.com
  LogLevel ERROR
  Include ~/.ssh/config
  Include /etc/ssh/ssh_config
EOF
mv ssh_config.$$ ssh_config
export node='{each_node}'
# only where the node has not every image of the bundle: its image ID under its name, complete and unpacked
# 仅当节点缺少离线包中的镜像时执行：按名称比较镜像 ID，且内容完整并已解包
# check: each layer matches the hash in its name, and the whole matches the sha512 delivered with it, if there is one
# 检查：每一层都与其名称中的哈希一致；若随附 sha512，则整个文件也与其一致

# Uncompress the tar archive · 解压 tar 压缩包 (mspider.en.md:79-83)
# differs from mspider.en.md:82: the prompt ~ is printed as part of the command
# 与 mspider.en.md:82 不同：命令中混入了提示符 ~
# differs from mspider.en.md:82: the bundle is not unpacked: the bytes of images.tar are read where they are in it, so that this machine needs no room for a second copy. For the way via chart package one unpacks the chart by hand, beside the site file: tar xf BUNDLE original-chart
# 与 mspider.en.md:82 不同：不解压离线包：按偏移量直接从离线包中读取 images.tar，本机不需要存放第二份副本的空间。若通过 chart 包升级，请先在站点配置所在目录手动解压其中的 chart：tar xf 离线包 original-chart
export source='../../../mspider-offline/{bundle_file}'
# load/$node.tar and load/$node.parts: what the node lacks, as the begin of an archive, and the bytes of the bundle that follow it; layers that the node has are left out
# load/$node.tar 与 load/$node.parts：节点缺少的内容，即归档文件的开头及其后来自离线包的字节；节点已有的层不再传输

# Load the images from the local directory to Docker or containerd · 从本地加载镜像到 Docker 或 containerd (mspider.en.md:91-103)
# differs from mspider.en.md:96, mspider.en.md:102: the prompt ~ is printed as part of the command
# 与 mspider.en.md:96, mspider.en.md:102 不同：命令中混入了提示符 ~
# differs from mspider.en.md:96, mspider.en.md:102: the images reach the node as a stream, without those, and without layers, that the node said it has. load-images writes two files for it out of the index of the bundle: load/$node.tar, how the stream begins (manifests and configs: an OCI layout for containerd, a docker-archive for Docker), and load/$node.parts, the places of the layers in the bundle, which dd reads; 1024 zero bytes end it. flock: one import at a time on a node
# 与 mspider.en.md:96, mspider.en.md:102 不同：以流式方式将镜像传输到节点，节点已有的镜像和层（事先查询节点）不再传输。load-images 根据离线包的索引为此写两个文件：load/$node.tar 是流的开头（manifest 与 config：containerd 用 OCI 布局，Docker 用 docker-archive），load/$node.parts 是各层在离线包中的位置，由 dd 读取；最后以 1024 个零字节结束。flock：同一节点同时只有一个导入
# differs from mspider.en.md:107: the manual has no command for "each node": ssh, with the user, port, key and sudo of the site file, to several nodes at once; one import at a time on a node (flock; with exit code 75 another one is at work). Which of the two commands is run is up to what the node runs
# 与 mspider.en.md:107 不同：手册没有给出“每个节点”的命令：这里通过 ssh 执行（用户、端口、密钥和 sudo 取自站点配置），多个节点并行；同一节点同时只有一个导入（flock；退出码 75 表示已有其他导入在进行）。执行哪条命令取决于节点的容器运行时
# where the node runs Docker
# 若节点使用 Docker
images-for-node $node $source |
  ssh -F ssh_config $node flock -n -E 75 /run/lock/dce-upgrade-load.lock docker load
# where the node runs containerd
# 若节点使用 containerd
images-for-node $node $source |
  ssh -F ssh_config $node flock -n -E 75 /run/lock/dce-upgrade-load.lock ctr -n k8s.io image import -

# Tag the images · 为镜像打标签（tag） (mspider.en.md:105-107)
# differs from mspider.en.md:107: the manual has no command for it. Before, the names are looked at: one that points to a different image ends the run, unless --replace-tags is given; --force is for those, and for a name that points to the same image already. What ctr image check and docker image ls list is judged afterwards, so the exit code of check is not needed (|| true)
# 与 mspider.en.md:107 不同：手册没有给出命令。执行前会检查这些名称：若已指向其他镜像，除非指定 --replace-tags，否则中止；--force 用于这种情况，以及名称已指向同一镜像的情况。ctr image check 与 docker image ls 的结果随后逐一判断，因此忽略 check 的退出码（|| true）
# where the node runs Docker
# 若节点使用 Docker
ssh -F ssh_config $node flock -n -E 75 /run/lock/dce-upgrade-load.lock bash -e -s << 'EOF'
docker tag {name_in_the_bundle} 10.16.10.111/release.daocloud.io/mspider/{name}:{tag}
docker image ls --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}' --filter reference='10.16.10.111/release.daocloud.io/mspider/*'
EOF
# check: the node has every image of the bundle, under its name, with the image ID of the bundle, complete and unpacked
# 检查：节点上已有离线包的全部镜像，名称与镜像 ID 一致，内容完整且已解包
# where the node runs containerd
# 若节点使用 containerd
ssh -F ssh_config $node flock -n -E 75 /run/lock/dce-upgrade-load.lock bash -e -s << 'EOF'
ctr -n k8s.io image tag --force {name_in_the_bundle} 10.16.10.111/release.daocloud.io/mspider/{name}:{tag}
ctr -n k8s.io image check 'name~="^10.16.10.111/release.daocloud.io/mspider/"' || true
EOF
# check: the node has every image of the bundle, under its name, with the image ID of the bundle, complete and unpacked
# 检查：节点上已有离线包的全部镜像，名称与镜像 ID 一致，内容完整且已解包
