#!/usr/bin/env bash
# Postroad's own Kubernetes for tests and play: a control plane and two nodes (real kubelets, containerd, kube-proxy, CoreDNS) in
# network namespaces of this machine that have no way out of it.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: cluster.sh [--name NAME] COMMAND
  up                     start the cluster: two Ready nodes, cluster DNS, a default StorageClass with free volumes; images of operator
                         and relay are loaded when target/images holds them. Does only what is missing
  down                   remove everything that bears the name, in whatever state it is
  status                 one line a part: NAME STATE [PID]. Exit code 0: all up; 3: something is down; 4: there is no such cluster
  kubeconfig             print the path of the administrator's kubeconfig; its server is https://127.0.0.1:PORT
  env                    print `export` lines for a shell: KUBECONFIG, POSTROAD_TEST_KUBECONFIG, PATH with kubectl and helm
  load-image ARCHIVE...  import OCI image archives on both nodes, under the names that they carry
  volumes N              see to it that N volumes are free (20Gi each, usable from both nodes); released ones are emptied and made anew
  node kill N            the power of node N (1 or 2) goes off: its link goes dark, every process dies at once, its disk stays
  node start N           the power comes back; returns when the kubelet runs, which is before the node is Ready
  api-server kill        SIGKILL of kube-apiserver; everything else goes on
  api-server start       start it again; returns when it is ready
  exec PLACE COMMAND...  run a command on this machine with the network of PLACE: node1, node2, fabric (the API server's) or outside (a
                         machine on the nodes' segment that belongs to no cluster: 10.99.0.10)
Addresses, the same in every cluster: node1 10.99.0.1, node2 10.99.0.2, API server 10.99.0.254; pods 10.244.N.0/24, Services 10.96.0.0/16.
Environment: POSTROAD_CLUSTER, the name when --name is not given (default: postroad; at most 20 of a-z, 0-9 and -).
Exit codes: 0 done, 1 failed, 2 wrong usage, 5 this machine cannot run it (the message says what to do instead).
TEXT
}

# only_one_at_a_time : two runs for one name must not meet. The lock is removed by `down`; who waited for a removed one starts over.
only_one_at_a_time() {
  while :; do
    exec 9>"$lock"
    flock --nonblock 9 || { say "another run is at work on $name: waiting for it"; flock 9; }
    [ ! "$lock" -ef /proc/self/fd/9 ] || return 0
  done
}

require_cluster() { [ -e "$folder/complete" ] || fail "there is no running cluster $name: start it with 'make cluster'"; }

up() {
  require_commands
  require_cgroups
  require_kernel_features
  only_one_at_a_time
  # What a run left that did not get to its end cannot be told from what is still starting.
  if [ -e "$folder" ] && [ ! -e "$folder/complete" ]; then
    say "an earlier run did not finish: removing what it left"
    remove_everything
  fi
  mkdir -p "$folder/volumes"
  bin=$(as_caller "$here/../control-plane/build.sh")
  echo "$bin" >"$folder/bin"
  build_own_images
  write_certificates
  start_fabric
  start_control_plane
  local node
  for node in $nodes; do start_node "$node"; done
  for node in $nodes; do load_own_images "$node"; done
  apply_manifests
  load_product_images
  await 60 "Ready nodes and cluster DNS" everything_is_ready
  # What the address management of a cluster notes on its nodes.
  for node in $nodes; do
    kubectl patch node "node$node" --patch "{\"spec\": {\"podCIDR\": \"$(pod_range "$node")\"}}" >/dev/null
  done
  touch "$folder/complete"
  say "up after $SECONDS s"
  print_how_to_use
}

apply_manifests() {
  kubectl apply -f "$here/manifests/storage-class.yaml" >/dev/null
  fill "$here/manifests/coredns.yaml" coredns_image dns_address | kubectl apply -f - >/dev/null
  provide_volumes 8
}

everything_is_ready() {
  [ "$(kubectl get nodes -o jsonpath='{range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{" "}{end}')" = 'True True ' ] &&
    kubectl --namespace kube-system rollout status deployment/coredns --timeout=1s
}

print_how_to_use() {
  cat <<TEXT
The cluster '$name' is up. In this shell:
  eval "\$(tests/cluster/cluster.sh --name $name env)"    # KUBECONFIG, and kubectl and helm in PATH
  kubectl get nodes
  helm install postroad charts/postroad --namespace postroad-system --create-namespace
Or from anywhere: --kubeconfig $folder/kubeconfig
Remove it, as root: tests/cluster/cluster.sh --name $name down
TEXT
}

down() {
  only_one_at_a_time
  remove_everything
  rm -f "$lock"
  say "nothing is left of $name"
}

# Finds by name, not by memory. The marker goes first: from here on this is no cluster.
remove_everything() {
  local place node
  rm -f "$folder/complete"
  for node in $nodes; do
    unplug_node "$node"
    remove_cgroups "node$node"
  done
  remove_cgroups control-plane
  for place in $places; do remove_place "$place"; done
  rm -rf "${folder:?}"
  rmdir --ignore-fail-on-non-empty "$(dirname "$folder")" 2>/dev/null || true
}

status() {
  local part node code=0
  [ -e "$folder/complete" ] || { say "there is no running cluster $name"; exit 4; }
  for part in etcd api-server controller-manager scheduler forwarder-inside forwarder; do
    if daemon_is_alive "$part"; then echo "$part up $(<"$control/$part.pid")"; else echo "$part down"; code=3; fi
  done
  for node in $nodes; do
    if node_is_up "$node"; then echo "node$node up $(<"$(node_folder "$node")/init.pid")"; else echo "node$node down"; code=3; fi
  done
  exit $code
}

print_environment() {
  echo "export KUBECONFIG=$folder/kubeconfig"
  echo "export POSTROAD_TEST_KUBECONFIG=$folder/kubeconfig"
  echo "export PATH=$bin:\$PATH"
}

kubectl() { "$bin/kubectl" --kubeconfig "$folder/kubeconfig" "$@"; }

run_node_command() {
  case "${2:-}" in
  1 | 2) ;;
  *) usage >&2; exit 2 ;;
  esac
  case $1 in
  kill) kill_node "$2" ;;
  start) start_node "$2" ;;
  *) usage >&2; exit 2 ;;
  esac
}

run_api_server_command() {
  case $1 in
  kill) kill_daemon api-server ;;
  start)
    daemon_is_alive api-server || start_api_server
    await 60 "the API server; its log is $control/api-server.log" api_server_ready ;;
  *) usage >&2; exit 2 ;;
  esac
}

run_in_place() {
  [[ " $places " = *" $1 "* ]] || { say "error: no place '$1': $places"; exit 2; }
  exec nsenter --net="/run/netns/$(network_namespace "$1")" "${@:2}"
}

name=${POSTROAD_CLUSTER:-postroad}
case "${1:-}" in
-h | --help) usage; exit ;;
--name) name=${2:?"--name needs a name"}; shift 2 ;;
esac
[ $# -gt 0 ] || { usage >&2; exit 2; }
command=$1
shift

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=caller.sh
. "$here/caller.sh"
# shellcheck source=names.sh
. "$here/names.sh"
# shellcheck source=requirements.sh
. "$here/requirements.sh"
# shellcheck source=processes.sh
. "$here/processes.sh"
# shellcheck source=certificates.sh
. "$here/certificates.sh"
# shellcheck source=fabric.sh
. "$here/fabric.sh"
# shellcheck source=control-plane.sh
. "$here/control-plane.sh"
# shellcheck source=node.sh
. "$here/node.sh"
# shellcheck source=images.sh
. "$here/images.sh"
# shellcheck source=volumes.sh
. "$here/volumes.sh"
require_name

# All but what only reads needs root.
[[ $command = kubeconfig || $command = env ]] || require_root
case $command:$# in
up:0) up; exit ;;
down:0) down; exit ;;
status:0) status ;;
esac
require_cluster
bin=$(<"$folder/bin")
case $command:$# in
kubeconfig:0) echo "$folder/kubeconfig" ;;
env:0) print_environment ;;
load-image:[1-9]*) load_archives "$@" ;;
volumes:1) [[ $1 =~ ^[0-9]+$ ]] || { usage >&2; exit 2; }; provide_volumes "$1" ;;
node:2) run_node_command "$@" ;;
api-server:1) run_api_server_command "$@" ;;
exec:[2-9]* | exec:1?*) run_in_place "$@" ;;
*) usage >&2; exit 2 ;;
esac
