# shellcheck shell=bash
# fabric.sh: the segment that the nodes share: a bridge in a network namespace of its own, without an uplink. Nothing in it can
# reach this machine's network, nor the other way round; the one way in is the API server's forwarder (control-plane.sh).
# Sourced by cluster.sh.

start_fabric() {
  local node
  if add_place fabric; then
    ip -n "$(network_namespace fabric)" link add segment type bridge
    ip -n "$(network_namespace fabric)" addr add "$api_server_address/24" dev segment
    ip -n "$(network_namespace fabric)" link set segment up
    for node in $nodes; do route_to_pods fabric "$node"; done
  fi
  if add_place outside; then
    plug_in outside "$outside_address"
    for node in $nodes; do route_to_pods outside "$node"; done
  fi
}

# plug_in_node N : the node's link to the segment, made anew
plug_in_node() {
  local node
  add_place "node$1" || return 0
  plug_in "node$1" "$(node_address "$1")"
  for node in $nodes; do
    [ "$node" = "$1" ] || route_to_pods "node$1" "$node"
  done
  inside "node$1" sysctl -qw net.ipv4.ip_forward=1
  # Where bridged packets can be filtered, kube-proxy needs them to be; where they cannot, the file is not there.
  inside "node$1" sysctl -qw net.bridge.bridge-nf-call-iptables=1 2>/dev/null || true
}

# unplug_node N : the link goes dark before anything else happens, so that no peer hears a farewell from dying processes
unplug_node() { ip -n "$(network_namespace fabric)" link del "port-node$1" 2>/dev/null || true; }

# add_place PLACE : its network namespace; fails when it is there already
add_place() {
  local namespace
  namespace=$(network_namespace "$1")
  [ ! -e "/run/netns/$namespace" ] || return 1
  ip netns add "$namespace"
  ip -n "$namespace" link set lo up
}

remove_place() { ip netns del "$(network_namespace "$1")" 2>/dev/null || true; }

plug_in() {
  local namespace fabric
  namespace=$(network_namespace "$1") fabric=$(network_namespace fabric)
  ip -n "$fabric" link add "port-$1" type veth peer name eth0 netns "$namespace"
  ip -n "$fabric" link set "port-$1" master segment up
  ip -n "$namespace" addr add "$2/24" dev eth0
  ip -n "$namespace" link set eth0 up
  # Without a default route a node cannot even reach a Service's address, which kube-proxy rewrites only after routing.
  ip -n "$namespace" route replace default via "$api_server_address"
}

route_to_pods() { ip -n "$(network_namespace "$1")" route replace "$(pod_range "$2")" via "$(node_address "$2")"; }
