# shellcheck shell=bash
# control-plane.sh: etcd, kube-apiserver, kube-controller-manager and kube-scheduler, in the fabric's network namespace, and the
# forwarder through which this machine's loopback reaches the API server. Sourced by cluster.sh.

start_control_plane() {
  mkdir -p "$control" "$cgroup_root/$naming_hierarchy/$name-control-plane"
  daemon_is_alive etcd || start_etcd
  daemon_is_alive api-server || start_api_server
  await 60 "the API server; its log is $control/api-server.log" api_server_ready
  daemon_is_alive controller-manager || start_controller_manager
  daemon_is_alive scheduler || start_scheduler
  start_forwarder
}

start_etcd() {
  # No fsync: what a test cluster knows need not survive the machine's power cut.
  start_daemon etcd nsenter --net="/run/netns/$(network_namespace fabric)" "$bin/etcd" --data-dir "$control/etcd" \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --unsafe-no-fsync --log-level warn
}

start_api_server() {
  start_daemon api-server nsenter --net="/run/netns/$(network_namespace fabric)" "$bin/kube-apiserver" \
    --etcd-servers=http://127.0.0.1:2379 \
    --advertise-address="$api_server_address" --bind-address=0.0.0.0 --secure-port="$api_server_port" \
    --tls-cert-file="$certificates/apiserver.crt" --tls-private-key-file="$certificates/apiserver.key" \
    --client-ca-file="$certificates/ca.crt" \
    --kubelet-client-certificate="$certificates/apiserver-kubelet.crt" \
    --kubelet-client-key="$certificates/apiserver-kubelet.key" \
    --kubelet-certificate-authority="$certificates/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-signing-key-file="$certificates/service-accounts.key" \
    --service-account-key-file="$certificates/service-accounts.pub" \
    --service-cluster-ip-range="$service_range" --authorization-mode=Node,RBAC \
    --enable-admission-plugins=NodeRestriction
}

api_server_ready() {
  [ "$(inside fabric curl --silent --max-time 2 --cacert "$certificates/ca.crt" --cert "$certificates/admin.crt" \
    --key "$certificates/admin.key" "https://$api_server_address:$api_server_port/readyz")" = ok ]
}

# Leaders are not elected: there is one of each. A node that is silent for 12 s (40 s by default) counts as lost, so that tests
# of node failures need not wait.
start_controller_manager() {
  local kubeconfig=$certificates/controller-manager.kubeconfig
  start_daemon controller-manager nsenter --net="/run/netns/$(network_namespace fabric)" "$bin/kube-controller-manager" \
    --kubeconfig="$kubeconfig" --authentication-kubeconfig="$kubeconfig" --authorization-kubeconfig="$kubeconfig" \
    --service-account-private-key-file="$certificates/service-accounts.key" --root-ca-file="$certificates/ca.crt" \
    --cluster-signing-cert-file="$certificates/ca.crt" --cluster-signing-key-file="$certificates/ca.key" \
    --use-service-account-credentials --leader-elect=false --allocate-node-cidrs=false --node-monitor-grace-period=12s
}

start_scheduler() {
  local kubeconfig=$certificates/scheduler.kubeconfig
  start_daemon scheduler nsenter --net="/run/netns/$(network_namespace fabric)" "$bin/kube-scheduler" \
    --kubeconfig="$kubeconfig" --authentication-kubeconfig="$kubeconfig" --authorization-kubeconfig="$kubeconfig" \
    --leader-elect=false
}

# Two relays that meet at a socket file, since a network namespace does not divide those: one listens on this machine's loopback,
# the other stands beside the API server.
start_forwarder() {
  local socket=$control/api-server.sock port
  daemon_is_alive forwarder-inside ||
    start_daemon forwarder-inside nsenter --net="/run/netns/$(network_namespace fabric)" \
      socat "UNIX-LISTEN:$socket,fork,unlink-early,mode=0600" "TCP:$api_server_address:$api_server_port"
  if ! daemon_is_alive forwarder; then
    # The same port as before, when there is one: kubeconfigs must stay true.
    for port in $(cat "$control/port" 2>/dev/null) $(seq 16443 16543); do
      [ -z "$(ss -Hltn "sport = $port")" ] || continue
      start_daemon forwarder socat "TCP-LISTEN:$port,bind=127.0.0.1,fork,reuseaddr" "UNIX-CONNECT:$socket"
      # Another cluster that starts now may have been faster: then the next one.
      if await 2 "port $port" forwarder_listens "$port" 2>/dev/null; then break; fi
    done
    daemon_is_alive forwarder || fail "no free port on 127.0.0.1 for the API server"
    echo "$port" >"$control/port"
    (umask 077 && write_kubeconfig admin "https://127.0.0.1:$port" >"$folder/kubeconfig")
    chown "$caller" "$folder/kubeconfig"
  fi
}

# forwarder_listens PORT : ours, not another cluster's; a forwarder that could not bind has ended
forwarder_listens() {
  ss -Hltnp "src 127.0.0.1:$1" | grep -q "pid=$(<"$control/forwarder.pid"),"
}
