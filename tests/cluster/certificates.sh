# shellcheck shell=bash
# certificates.sh: the cluster's own authority, what the API server and the kubelets show, and a kubeconfig for each client.
# Sourced by cluster.sh.

# write_certificates : all of it, once; the files of a finished run stay as they are
write_certificates() {
  [ ! -e "$certificates/finished" ] || return 0
  rm -rf "$certificates"
  (umask 077 && mkdir -p "$certificates")
  write_authority
  write_certificate apiserver /CN=kube-apiserver \
    "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:127.0.0.1,IP:$first_service_address,IP:$api_server_address"
  write_certificate apiserver-kubelet /O=system:masters/CN=kube-apiserver-kubelet-client
  write_client admin /O=system:masters/CN=admin
  write_client controller-manager /CN=system:kube-controller-manager
  write_client scheduler /CN=system:kube-scheduler
  write_client proxy /CN=system:kube-proxy
  local node
  for node in $nodes; do
    write_client "node$node" "/O=system:nodes/CN=system:node:node$node" "DNS:node$node,IP:$(node_address "$node")"
  done
  openssl genrsa -out "$certificates/service-accounts.key" 2048 2>/dev/null
  openssl rsa -in "$certificates/service-accounts.key" -pubout -out "$certificates/service-accounts.pub" 2>/dev/null
  touch "$certificates/finished"
}

write_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$certificates/$1.key"; }

write_authority() {
  write_key ca
  openssl req -x509 -new -key "$certificates/ca.key" -subj "/CN=$name test cluster" -days 30 -out "$certificates/ca.crt"
}

# write_certificate FILE SUBJECT [ALTERNATIVE_NAMES]
write_certificate() {
  local extensions
  extensions=$(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "${3:-DNS:$1}")
  write_key "$1"
  openssl req -new -key "$certificates/$1.key" -subj "$2" |
    openssl x509 -req -CA "$certificates/ca.crt" -CAkey "$certificates/ca.key" -CAcreateserial -days 30 \
      -extfile <(echo "$extensions") -out "$certificates/$1.crt" 2>/dev/null
}

# write_client FILE SUBJECT [ALTERNATIVE_NAMES] : a certificate, and a kubeconfig that uses it from within the segment
write_client() {
  write_certificate "$@"
  write_kubeconfig "$1" "https://$api_server_address:$api_server_port" >"$certificates/$1.kubeconfig"
}

# write_kubeconfig USER SERVER : to stdout; the certificates are inside, so that the file works wherever it is copied
write_kubeconfig() {
  cat <<TEXT
apiVersion: v1
kind: Config
clusters:
- name: $name
  cluster:
    server: $2
    certificate-authority-data: $(base64 -w0 "$certificates/ca.crt")
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w0 "$certificates/$1.crt")
    client-key-data: $(base64 -w0 "$certificates/$1.key")
contexts:
- name: $name
  context: {cluster: $name, user: $1}
current-context: $name
TEXT
}
