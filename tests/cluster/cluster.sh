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
  volumes N              see to it that N volumes are free (2Gi each, usable from both nodes); released ones are emptied and made anew
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

name=${POSTROAD_CLUSTER:-postroad}
case "${1:-}" in
-h | --help) usage; exit ;;
esac
echo "cluster: error: not built yet ($name)" >&2
exit 1
