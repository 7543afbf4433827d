# shellcheck shell=bash
# node.sh: a node is a process with namespaces of its own (network, mounts, hostname, IPC, processes, control groups) and what runs
# below it: containerd, kubelet, kube-proxy, containers. The kernel ends all of them with the first one, which makes SIGKILL of that
# one the power switch. The node's disk is a folder. Sourced by cluster.sh.

node_is_up() { is_alive "$name-node$1" "$(node_folder "$1")/init.pid"; }

start_node() {
  ! node_is_up "$1" || return 0
  discard_node_leftovers "$1"
  plug_in_node "$1"
  create_node_cgroups "$1"
  configure_node "$1"
  (
    for hierarchy in $cgroup_hierarchies; do
      echo "$BASHPID" >"$cgroup_root/$hierarchy/$name-node$1/cgroup.procs"
    done
    export name bin
    exec setsid nsenter --net="/run/netns/$(network_namespace "node$1")" \
      unshare --mount --uts --ipc --pid --cgroup --fork --propagation private "$here/node-init.sh" "$1"
  ) >"$(node_folder "$1")/init.log" 2>&1 </dev/null 9>&- &
  await 30 "node$1's containerd; its log is $(node_folder "$1")/containerd.log" containerd_answers "$1"
}

containerd_answers() { node_is_up "$1" && ctr --address "$(node_folder "$1")/containerd.sock" version; }

# kill_node N : the power goes off. Its disk stays.
kill_node() {
  unplug_node "$1"
  ! node_is_up "$1" || kill -KILL "$(<"$(node_folder "$1")/init.pid")"
  discard_node_leftovers "$1"
}

# What a machine loses with its power: processes, network, sockets.
discard_node_leftovers() {
  remove_cgroups "node$1"
  unplug_node "$1"
  remove_place "node$1"
  rm -f "$(node_folder "$1")/init.pid" "$(node_folder "$1")/containerd.sock"*
}

create_node_cgroups() {
  local hierarchy file
  for hierarchy in $cgroup_hierarchies; do mkdir -p "$cgroup_root/$hierarchy/$name-node$1"; done
  # A new group of this hierarchy has neither, and takes no process before it does.
  for file in cpuset.cpus cpuset.mems; do
    cat "$cgroup_root/cpuset/$file" >"$cgroup_root/cpuset/$name-node$1/$file"
  done
}

configure_node() {
  local node=node$1 node_folder pod_range file
  node_folder=$(node_folder "$1") pod_range=$(pod_range "$1")
  mkdir -p "$node_folder/cni"
  : >"$node_folder/resolv.conf"
  fill "$here/config/cni.conflist" pod_range >"$node_folder/cni/10-pods.conflist"
  for file in containerd.toml kubelet.yaml kube-proxy.yaml; do
    fill "$here/config/$file" node node_folder certificates dns_address pause_image >"$node_folder/$file"
  done
}
