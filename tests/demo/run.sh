#!/usr/bin/env bash
# The quickstart on this machine, without Kubernetes: local mode runs the manifests of docs/quickstart, swaks (an SMTP client that
# shares no code with Postroad) sends real messages, and the sandbox shows what arrived and which session carried it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

need() { command -v "$1" >/dev/null || { echo "error: $1 is missing: run 'make setup'" >&2; exit 1; }; }
need swaks
need openssl

folder=target/demo
rm -rf "$folder"
mkdir -p "$folder/manifests"
cp docs/quickstart/{upstream,relay-pool,users}.yaml "$folder/manifests/"

echo "== a certificate for the pool, in a Secret beside the manifests"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=localhost \
  -addext subjectAltName=DNS:localhost -keyout "$folder/tls.key" -out "$folder/tls.crt" 2>/dev/null
(umask 077 && cat >"$folder/manifests/tls.yaml" <<YAML
apiVersion: v1
kind: Secret
metadata: {name: main-tls, namespace: mail}
type: kubernetes.io/tls
data:
  tls.crt: $(base64 -w0 "$folder/tls.crt")
  tls.key: $(base64 -w0 "$folder/tls.key")
YAML
)

echo "== postroad-operator local $folder/manifests"
target/debug/postroad-operator local "$folder/manifests" --data "$folder/data" >"$folder/log" 2>&1 &
operator=$!
stop() { kill "$operator" 2>/dev/null || true; wait "$operator" 2>/dev/null || true; }
trap stop EXIT
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
for port in 10025 10587; do
  for ((tries = 0; tries < 200; tries++)); do
    listens "$port" && continue 2
    kill -0 "$operator" 2>/dev/null || break
    sleep 0.05
  done
  echo "error: nothing listens on port $port:" >&2
  cat "$folder/log" >&2
  exit 1
done
sed '/^$/d; / | /d' "$folder/log"

send() { swaks --server localhost --to customer@example.net --silent 2 "$@"; }
echo "== three messages with STARTTLS, user and password, one in the clear from this machine's network"
for number in 1 2 3; do
  send --port 10587 --tls --tls-verify --tls-ca-path "$folder/tls.crt" --auth PLAIN --auth-user app --auth-password change-me \
    --from "app@example.com" --header "Subject: order $number is on its way"
done
send --port 10025 --from cron@example.com --header 'Subject: nightly report'

echo "== and one with a wrong password, which is refused"
if send --port 10587 --tls --auth PLAIN --auth-user app --auth-password wrong --from app@example.com; then
  echo 'error: a wrong password was accepted' >&2
  exit 1
fi

echo "== what arrived, and the persistent session that carried it"
captured() { target/debug/postroad-relay sandbox list --data "$folder/data/mail/main-0"; }
for ((tries = 0; tries < 200; tries++)); do
  [ "$(captured | wc -l)" -ge 4 ] && break
  sleep 0.05
done
captured
[ "$(captured | wc -l)" -eq 4 ] || { echo 'error: not every message arrived' >&2; exit 1; }

echo "== stopping"
stop
trap - EXIT
echo "Manifests, log and mail are in $folder. To play with it: target/debug/postroad-operator local $folder/manifests --data $folder/data"
