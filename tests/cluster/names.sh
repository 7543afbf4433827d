# shellcheck shell=bash
# names.sh: what the parts of a cluster are called and where they live. Everything that outlives a process (network namespaces,
# control groups, the folder, the lock) bears the cluster's name, so that `down` finds it without having been there when it was
# made. Sourced by cluster.sh, which has set `name`, and by node-init.sh.
# shellcheck disable=SC2034 # used by those who source it

say() { echo "cluster: $*" >&2; }
fail() { say "error: $*"; exit 1; }

# Not /run or /tmp: containerd unpacks images here, and the volumes shall be on a disk.
folder=/var/lib/postroad-clusters/$name
certificates=$folder/certificates
control=$folder/control-plane
lock=/run/lock/postroad-cluster-$name

nodes='1 2'
places='node1 node2 outside fabric'

# The addresses repeat in every cluster: each has a segment of its own.
api_server_address=10.99.0.254
api_server_port=6443
outside_address=10.99.0.10
service_range=10.96.0.0/16
first_service_address=10.96.0.1
dns_address=10.96.0.10

node_folder() { echo "$folder/node$1"; }
node_address() { echo "10.99.0.$1"; }
pod_range() { echo "10.244.$1.0/24"; }
network_namespace() { echo "$name-$1"; }
inside() { nsenter --net="/run/netns/$(network_namespace "$1")" "${@:2}"; }

# The hierarchies of cgroup v1 that a kubelet accounts with, and the one that only names groups of processes.
cgroup_root=/sys/fs/cgroup
cgroup_controllers='cpu cpuacct cpuset memory devices freezer blkio pids'
cgroup_hierarchies="$cgroup_controllers systemd unified"
# The one hierarchy in which the processes of the control plane are grouped, only to be found again.
naming_hierarchy=pids

# Config files are templates with @NAMES@ of shell variables: fill FILE NAME... writes one to stdout.
fill() {
  local template=$1 text variable
  shift
  text=$(<"$template")
  for variable; do text=${text//@$variable@/${!variable}}; done
  printf '%s\n' "$text"
}

# await SECONDS WHAT COMMAND... : tries the command until it succeeds
await() {
  local until=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $until ] || { say "error: waited in vain for $what"; return 1; }
    sleep 0.1
  done
}
