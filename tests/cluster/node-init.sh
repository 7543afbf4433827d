#!/usr/bin/env bash
# The first process of a node: prepares the node's view of the machine, then starts containerd, kubelet and kube-proxy and reaps what
# they leave. Started by node.sh in fresh namespaces and control groups, with `name` and `bin` in the environment.
set -euo pipefail
number=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=names.sh
. "$here/names.sh"
node_folder=$(node_folder "$number")

# The old /proc is still there: this is the process's number as the machine counts.
read -r outer_pid _ </proc/self/stat
mount -t proc proc /proc

# Each hierarchy again, which in a new cgroup namespace shows the node's own groups as the root.
mount_cgroups() {
  local staging=$node_folder/cgroup controller
  mkdir -p "$staging"
  mount -t tmpfs tmpfs "$staging"
  for controller in $cgroup_controllers; do
    mkdir "$staging/$controller"
    mount -t cgroup -o "$controller" "$controller" "$staging/$controller"
  done
  mkdir "$staging/systemd" "$staging/unified"
  mount -t cgroup -o none,name=systemd systemd "$staging/systemd"
  mount -t cgroup2 cgroup2 "$staging/unified"
  mount -t sysfs sysfs /sys
  mount --rbind "$staging" "$cgroup_root"
  umount --lazy --recursive "$staging"
}

# The node's disk is its /var. Of the machine's own only the cluster's folder is seen there, under the same path, and the binaries,
# which may lie anywhere.
mount_disk() {
  local var=$node_folder/var
  mkdir -p "$var/lib/cni" "$var/lib/kubelet" "$var/log" "$var/tmp" "$var${folder#/var}" "$node_folder/bin"
  [ -e "$var/run" ] || ln -s /run "$var/run"
  mount --bind "$bin" "$node_folder/bin"
  bin=$node_folder/bin
  mount --rbind "$folder" "$var${folder#/var}"
  mount --rbind "$var" /var
  mount -t tmpfs tmpfs /run
  # Empty: this machine's resolver is none of the node's business.
  if [ -e /etc/resolv.conf ]; then mount --bind "$node_folder/resolv.conf" /etc/resolv.conf; fi
}

# The kubelet sets these, and they are the whole machine's: it writes into files of the node instead.
shield_kernel_settings() {
  local setting
  for setting in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
    echo "${setting#*=}" >"/run/$(basename "${setting%=*}")"
    mount --bind "/run/$(basename "${setting%=*}")" "/proc/sys/${setting%=*}"
  done
}

start_part() { "${@:2}" >>"$node_folder/$1.log" 2>&1 & }

mount_cgroups
mount_disk
shield_kernel_settings
hostname "node$number"
# Volumes that the kubelet mounts must appear in containers.
mount --make-rshared /
echo "$outer_pid" >"$node_folder/init.pid"

start_part containerd containerd --config "$node_folder/containerd.toml"
await 30 containerd ctr --address "$node_folder/containerd.sock" version
start_part kubelet "$bin/kubelet" --config="$node_folder/kubelet.yaml" --kubeconfig="$certificates/node$number.kubeconfig" \
  --hostname-override="node$number" --node-ip="$(node_address "$number")"
start_part kube-proxy "$bin/kube-proxy" --config="$node_folder/kube-proxy.yaml"
while :; do wait -n 2>/dev/null || sleep 1; done
