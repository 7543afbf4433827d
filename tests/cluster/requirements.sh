# shellcheck shell=bash
# requirements.sh: what a machine must have to run a cluster. Each check says what is missing; all are made before anything is.
# Sourced by cluster.sh.

instead='Alternatively start a cluster of your own with kind or k3d and point POSTROAD_TEST_KUBECONFIG at its kubeconfig.'

require_root() {
  [ "$(id -u)" = 0 ] || refuse "not root: a node is made of namespaces, mounts and control groups. Run it with sudo"
}

refuse() {
  say "this machine cannot run the test cluster: $1"
  say "$instead"
  exit 5
}

require_commands() {
  local command package missing=()
  while read -r command package; do
    [ -x "$(command -v "$command")" ] || missing+=("$package")
  done <<'TEXT'
containerd containerd
ctr containerd
runc runc
iptables iptables
nft nftables
conntrack conntrack
ip iproute2
socat socat
openssl openssl
curl curl
cc build-essential
TEXT
  [ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
  [ ${#missing[@]} = 0 ] || refuse "it lacks the packages $(printf '%s\n' "${missing[@]}" | sort -u | xargs). Run 'make setup'"
}

require_cgroups() {
  local controller
  if [ "$(stat -f -c %T "$cgroup_root" 2>/dev/null)" = cgroup2fs ]; then
    refuse "it has control groups v2 only, and its nodes are made for v1"
  fi
  for controller in $cgroup_hierarchies; do
    [ -e "$cgroup_root/$controller/cgroup.procs" ] || refuse "the control group hierarchy $cgroup_root/$controller is not mounted"
  done
}

# Tried instead of looked up: a feature may be built in, a module, or forbidden. The subshell has namespaces of its own, so that
# nothing of a trial is left.
require_kernel_features() {
  local trial what
  while IFS='|' read -r what trial; do
    unshare --net --mount --propagation private bash -c "$trial" >/dev/null 2>&1 || refuse "the kernel lacks, or forbids, $what"
  done <<'TEXT'
namespaces for networks and mounts|true
virtual Ethernet pairs (veth)|ip link add name trial1 type veth peer name trial2
bridges|ip link add name trial1 type bridge
nftables|nft add table inet trial
network address translation in nftables|nft add table inet t && nft 'add chain inet t c { type nat hook prerouting priority dstnat; }'
overlayfs|mount -t tmpfs none /mnt && mkdir /mnt/{lower,upper,work,merged} && mount -t overlay none -o lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work /mnt/merged
TEXT
}

require_name() {
  [[ $name =~ ^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$ ]] || { say "error: the name '$name' must be at most 20 of a-z, 0-9 and -"; exit 2; }
}
