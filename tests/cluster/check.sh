#!/usr/bin/env bash
# Shows that the test cluster keeps what its usage text promises: pods under restricted Pod Security with cluster DNS and volumes, the
# faults, a second cluster beside the first, and that nothing is left of any of them, nor of runs that were killed half-way.
# Says what it saw, with times. Its clusters have names of its own: others are left alone. On a machine that cannot run the cluster it
# says so and skips, unless POSTROAD_REQUIRE_CLUSTER=1 makes that a failure.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
first=check-$$ second=check-$$-beside
started=$(date +%s%N)

seen() { printf '%6d ms  %s\n' $((($(date +%s%N) - started) / 1000000)) "$*"; }
fail() { echo "check: error: $*" >&2; exit 1; }
cluster() { "$here/cluster.sh" --name "$first" "$@"; }
k() { kubectl --namespace check "$@"; }
in_pod() { k exec probe-0 -- /busybox "$@"; }

scratch=$(mktemp -d)
remove_all() {
  local name
  for name in "$first" "$second"; do "$here/cluster.sh" --name "$name" down >/dev/null 2>&1 || true; done
  rm -rf "$scratch"
}
trap remove_all EXIT

# eventually SECONDS WHAT COMMAND...
eventually() {
  local until=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $until ] || fail "not within the time allowed: $what"
    sleep 0.1
  done
}

# Everything on this machine that belongs to a cluster of that name, one line each.
leftovers() {
  find /run/netns /run/lock /var/lib/postroad-clusters -mindepth 1 -maxdepth 1 -name "*$1*" 2>/dev/null
  grep -F "$1" /proc/self/mounts
  find /sys/fs/cgroup -type d -name "$1-*" 2>/dev/null
  processes_of "$1"
  shared_folders | comm -23 - "$scratch/before"
}

# By control group, which no process can leave by itself, or by what it was started with. Those that only wait to be reaped by this
# machine's first process are ended.
processes_of() {
  local found process
  found=$(grep -lsF "$1-" /proc/[0-9]*/cgroup || true; grep -lsF "/$1/" /proc/[0-9]*/cmdline || true)
  for process in $found; do
    process=$(dirname "$process")
    grep -qsE '^State:[[:space:]]*[^Z[:space:]]' "$process/status" && echo "$process: $(tr '\0' ' ' <"$process/cmdline")"
  done
}

# What containerd and kubelets make in the machine's own folders, unless they are kept from it.
shared_folders() { find /var/lib /run -maxdepth 1 \( -name kubelet -o -name cni -o -name containerd \) | sort; }

nothing_left() {
  local found
  found=$(leftovers "$1" || true)
  [ -z "$found" ] || fail "left of $1:"$'\n'"$found"
  seen "nothing is left of $1"
}

# A program that is not ours and does enough: names, files, HTTP.
load_busybox() {
  # shellcheck source=../setup/go.sh
  . "$here/../setup/go.sh"
  require_go "$here/../../charts/images"
  (cd "$here/../../charts/images" && GOWORK=off CGO_ENABLED=0 go run -mod=readonly . pack --binary /bin/busybox --out "$scratch/busybox.tar" postroad.test/busybox:1)
  cluster load-image "$scratch/busybox.tar"
}

check_pods() {
  kubectl apply -f "$here/manifests/check.yaml" >/dev/null
  k rollout status statefulset/probe --timeout=60s >/dev/null
  seen "a pod with a volume is Ready under restricted Pod Security"
  in_pod nslookup probe.check.svc.cluster.local >/dev/null || fail "cluster DNS does not know a Service"
  [ "$(in_pod wget -qO- http://probe.check.svc.cluster.local:8080/file)" = kept ] || fail "the Service does not answer"
  ! in_pod nslookup example.com >/dev/null 2>&1 || fail "a name outside the cluster was found"
  seen "cluster DNS finds Services, and nothing outside; the Service answers"
  if k run privileged --image=postroad.test/busybox:1 --privileged >/dev/null 2>&1; then fail "a privileged pod was admitted"; fi
  seen "a privileged pod is refused"
}

node_ready() { [ "$(kubectl get node "$1" -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}')" = "$2" ]; }
probe_runs_elsewhere() { [ "$(k get pod probe-0 -o jsonpath='{.spec.nodeName} {.status.containerStatuses[0].ready}')" = "$1 true" ]; }

check_power_off() {
  local node other
  node=$(k get pod probe-0 -o jsonpath='{.spec.nodeName}')
  other=node$((3 - ${node#node}))
  cluster node kill "${node#node}"
  seen "the power of $node is off"
  eventually 60 "$node counts as lost" node_ready "$node" Unknown
  seen "$node counts as lost"
  kubectl taint node "$node" node.kubernetes.io/out-of-service=nodeshutdown:NoExecute >/dev/null
  eventually 120 "the pod runs on $other" probe_runs_elsewhere "$other"
  [ "$(in_pod cat /data/file)" = kept ] || fail "the volume did not follow"
  seen "the pod runs on $other, with its volume"
  kubectl taint node "$node" node.kubernetes.io/out-of-service- >/dev/null
  cluster node start "${node#node}"
  eventually 60 "$node is back" node_ready "$node" True
  seen "the power of $node is on, and it is Ready"
}

check_api_server() {
  cluster api-server kill
  ! kubectl get nodes >/dev/null 2>&1 || fail "the API server answers after its death"
  cluster api-server start
  eventually 30 "the API server answers" kubectl get nodes
  seen "the API server was killed and is back"
}

check_volumes() {
  k delete statefulset/probe persistentvolumeclaim/data-probe-0 >/dev/null
  eventually 60 "the volume is released" released_volume_exists
  cluster volumes 8
  [ "$(kubectl get persistentvolumes -o name | wc -l)" = 8 ] || fail "there are not 8 volumes"
  ! released_volume_exists || fail "a released volume was kept"
  seen "the released volume was replaced by a new one"
}
released_volume_exists() { kubectl get persistentvolumes | grep -q Released; }

# Anonymous resident memory (what is not also on disk) of everything in the cluster's control groups.
memory_of() {
  find /sys/fs/cgroup/pids -path "*/$1-*" -name cgroup.procs -exec cat {} + | while read -r process; do
    cat "/proc/$process/status" 2>/dev/null || true
  done | awk '/^RssAnon/ { kilobytes += $2 } END { print int(kilobytes / 1024) " MiB" }'
}

# refused REASON COMMAND... : with exit code 5, the reason and the way out, and without having made anything
refused() {
  local reason=$1 code=0 words
  shift
  words=$("$@" 2>&1) || code=$?
  [ "$code" = 5 ] || fail "expected a refusal because of '$reason', got exit code $code: $words"
  [[ $words = *"$reason"*POSTROAD_TEST_KUBECONFIG* ]] || fail "expected a refusal because of '$reason', got: $words"
  nothing_left "$second"
}

check_refusals() {
  local up=("$here/cluster.sh" --name "$second" up)
  refused "not root" setpriv --reuid=65534 --regid=65534 --clear-groups "${up[@]}"
  refused "control groups v2 only" unshare --mount bash -c 'mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"' bash "${up[@]}"
  # shellcheck disable=SC2016 # the inner shell expands it
  refused "containernetworking-plugins" unshare --mount bash -c 'mount -t tmpfs none /usr/lib/cni && exec "$@"' bash "${up[@]}"
  seen "machines that cannot run it are refused: not root, cgroup v2 only, a package that is missing"
}

# killed_run SECONDS : `up` and all its children that it has not let go die after so long; then `down`
killed_run() {
  setsid "$here/cluster.sh" --name "$second" up >/dev/null 2>&1 &
  local run=$!
  sleep "$1"
  # It may have been faster this time; what it made must go all the same.
  kill -KILL -- "-$run" 2>/dev/null || true
  wait "$run" 2>/dev/null || true
  seen "'up' was killed after $1 s: left are $(leftovers "$second" | wc -l) things"
  "$here/cluster.sh" --name "$second" down 2>/dev/null
  nothing_left "$second"
}

main() {
  shared_folders >"$scratch/before"
  local outcome=0 eighths began=$SECONDS
  cluster up >/dev/null || outcome=$?
  if [ "$outcome" = 5 ] && [ "${POSTROAD_REQUIRE_CLUSTER:-}" != 1 ]; then
    seen "SKIPPED: this machine cannot run the cluster (its reason is above)"
    exit
  fi
  [ "$outcome" = 0 ] || exit "$outcome"
  local whole_run=$((SECONDS - began))
  seen "$first is up"
  eval "$(cluster env)"
  cluster up >/dev/null
  seen "'up' again, with nothing to do"
  check_refusals
  load_busybox
  check_pods
  seen "private memory of all processes: $(memory_of "$first")"
  "$here/cluster.sh" --name "$second" up >/dev/null
  seen "$second is up beside it"
  "$here/cluster.sh" --name "$second" down
  nothing_left "$second"
  k exec probe-0 -- /busybox true || fail "the first cluster suffered from the second"
  check_power_off
  check_api_server
  check_volumes
  cluster down
  nothing_left "$first"
  for eighths in 1 3 5 7; do killed_run "$(awk "BEGIN { print $whole_run * $eighths / 8 }")"; done
  [ -n "$(ls /var/lib/postroad-clusters 2>/dev/null)" ] || [ ! -e /var/lib/postroad-clusters ] || fail "the folder of all clusters was left, empty"
  seen "done"
}

main
