#!/usr/bin/env bash
# Builds the Kubernetes that the tests run against (the control plane, what a node runs beside containerd, cluster DNS, kubectl
# and helm) from its Go modules, at the versions that */go.mod and */go.sum pin, into a cache outside the tree:
#   ${POSTROAD_CACHE:-${XDG_CACHE_HOME:-~/.cache}/postroad}/control-plane/<hash of the inputs>/bin
# The last and only line on stdout is that folder; progress goes to stderr. With an up-to-date cache it returns at once; two
# runs at a time are safe (the second waits), and a run that was cut short leaves nothing half-written.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: build.sh [--print]
  (nothing)  build what the cache lacks, then print the folder of the binaries
  --print    only print the folder, built or not
Environment: POSTROAD_CACHE, where builds are kept (default: ${XDG_CACHE_HOME:-~/.cache}/postroad).
TEXT
}

# One line a part: name, module folder, package, variant of the linker flags (see linker_flags). A part built from a module
# that is listed already shares that module's compiled packages: keep those together.
parts='
etcd                     kubernetes  go.etcd.io/etcd/server/v3                      plain
helm                     helm        helm.sh/helm/v3/cmd/helm                       helm
kube-apiserver           kubernetes  k8s.io/kubernetes/cmd/kube-apiserver           kubernetes
kube-controller-manager  kubernetes  k8s.io/kubernetes/cmd/kube-controller-manager  kubernetes
kubectl                  kubernetes  k8s.io/kubernetes/cmd/kubectl                  kubernetes
kube-scheduler           kubernetes  k8s.io/kubernetes/cmd/kube-scheduler           kubernetes
kubelet                  kubernetes  k8s.io/kubernetes/cmd/kubelet                  kubernetes
kube-proxy               kubernetes  k8s.io/kubernetes/cmd/kube-proxy               kubernetes
coredns                  coredns     github.com/coredns/coredns                     plain
'

say() { echo "control-plane: $*" >&2; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
builds=${POSTROAD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/postroad}/control-plane

# The inputs in a fixed order, and the architecture: a home folder may be shared between machines.
key() {
  { uname -sm; cd "$here" && cat build.sh {kubernetes,helm,coredns}/go.{mod,sum}; } | sha256sum | cut -c1-16
}

# each_part FUNCTION : calls it for every part with the columns above, until one fails.
each_part() {
  local name module package variant
  while read -r name module package variant <&3; do
    [ -z "$name" ] || "$1" "$name" "$module" "$package" "$variant" || return
  done 3<<<"$parts"
}

is_built() { [ -x "$bin/$1" ]; }

module_version() { (cd "$here/$1" && go list -mod=readonly -m -f '{{.Version}}' "$2"); }

# Without these, `kubectl version` and /version would say v0.0.0, and helm would render for a Kubernetes of long ago, which the
# chart's kubeVersion refuses.
linker_flags() {
  local version minor package
  case $1 in
  kubernetes)
    version=$(module_version kubernetes k8s.io/kubernetes)
    minor=${version#v1.} minor=${minor%%.*}
    for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
      printf -- '-X %s.gitVersion=%s -X %s.gitMajor=1 -X %s.gitMinor=%s ' $package "$version" $package $package "$minor"
    done ;;
  helm)
    printf -- '-X helm.sh/helm/v3/internal/version.version=%s ' "$(module_version helm helm.sh/helm/v3)"
    minor=$(module_version helm k8s.io/client-go)
    minor=${minor#v0.} minor=${minor%%.*}
    for package in helm.sh/helm/v3/pkg/chartutil helm.sh/helm/v3/pkg/lint/rules; do
      printf -- '-X %s.k8sVersionMajor=1 -X %s.k8sVersionMinor=%s ' $package $package "$minor"
    done ;;
  esac
  printf -- '-s -w'
}

build_part() {
  is_built "$1" && return
  local started=$SECONDS
  say "building $1 ($3)"
  # nice: minutes of compiling must not make the machine unusable meanwhile. One part at a time: each uses all cores.
  (cd "$here/$2" && nice -n 10 env GOWORK=off CGO_ENABLED=0 go build -mod=readonly -trimpath -buildvcs=false \
    -ldflags "$(linker_flags "$4")" -o "$unfinished/$1" "$3" >&2) || {
      say "error: $1 could not be built; the compiler's own message is above"
      return 1
    }
  mv "$unfinished/$1" "$bin/$1"
  say "built $1 in $((SECONDS - started)) s"
}

# A build that nobody has asked for during a month belongs to a version that is gone.
remove_old_builds() {
  find "$builds" -mindepth 1 -maxdepth 1 -type d -mtime +30 ! -path "$root" -exec rm -rf {} +
}

case "${1:-}" in
'') ;;
--print) echo "$builds/$(key)/bin"; exit ;;
-h | --help) usage; exit ;;
*) usage >&2; exit 2 ;;
esac

root=$builds/$(key)
bin=$root/bin
if each_part is_built; then
  touch "$root"
  echo "$bin"
  exit
fi

# shellcheck source=../setup/go.sh
. "$here/../setup/go.sh"
require_go "$here/kubernetes"

mkdir -p "$bin"
exec 9>"$root/lock"
if ! flock --nonblock 9; then
  say "another run is building into $root: waiting for it"
  flock 9
fi
rm -rf "$root"/unfinished.* # of a run that was killed; the lock says that none is running
unfinished=$(mktemp -d "$root/unfinished.XXXXXX")
trap 'rm -rf "$unfinished"' EXIT
each_part is_built || say "building into $bin: minutes from an empty Go cache (seven on two cores), seconds with a warm one"
each_part build_part
remove_old_builds
echo "$bin"
