# shellcheck shell=bash
# images.sh: the images that the cluster itself needs, since it has no registry to fetch them from, and how images get onto its nodes.
# Sourced by cluster.sh.

workspace=$(cd "$here/../.." && pwd)
# The tag is the state of the sources: an image of other sources is another image.
images_key=$({ cat "$here/pause.c" "$here/images.sh" "$workspace"/charts/images/*.go "$workspace/charts/images/go.sum" \
  "$workspace"/tests/control-plane/coredns/go.*; uname -m; } | sha256sum | cut -c1-16)
images=${POSTROAD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/postroad}/cluster-images/$images_key
pause_image=postroad.test/pause:$images_key
coredns_image=postroad.test/coredns:$images_key

# build_own_images : as archives in the cache, once for each state of the sources
build_own_images() {
  mkdir -p "$images"
  touch "$images"
  [ ! -e "$images/pause.tar" ] || [ ! -e "$images/coredns.tar" ] || return 0
  say "making the images of pause and CoreDNS"
  (
    workshop=$(mktemp -d "$images/unfinished.XXXXXX")
    trap 'rm -rf "$workshop"' EXIT
    # shellcheck source=../setup/go.sh
    . "$workspace/tests/setup/go.sh"
    require_go "$workspace/charts/images"
    cc -O2 -static -Wall -Werror -o "$workshop/pause" "$here/pause.c"
    cd "$workspace/charts/images"
    GOWORK=off CGO_ENABLED=0 go build -mod=readonly -o "$workshop/images" .
    "$workshop/images" pack --binary "$workshop/pause" --out "$images/pause.tar" "$pause_image"
    "$workshop/images" pack --binary "$bin/coredns" --out "$images/coredns.tar" "$coredns_image"
  )
  # Images that nobody has asked for during a month belong to sources that are gone.
  find "$(dirname "$images")" -mindepth 1 -maxdepth 1 -type d -mtime +30 -exec rm -rf {} +
}

# load_own_images NODE
load_own_images() {
  has_image "$1" "$pause_image" || import_archive "$1" "$images/pause.tar"
  has_image "$1" "$coredns_image" || import_archive "$1" "$images/coredns.tar"
}

# load_product_images : operator and relay, where they have been built
load_product_images() {
  local archive archives=()
  for archive in "$workspace"/target/images/postroad-{operator,relay}.tar; do
    [ ! -e "$archive" ] || archives+=("$archive")
  done
  if [ ${#archives[@]} = 0 ]; then
    say "no images of operator and relay in target/images: make them with 'make images' and run this again, or load others with load-image"
  else
    load_archives "${archives[@]}"
  fi
}

load_archives() {
  local node archive
  for archive; do [ -e "$archive" ] || fail "$archive does not exist: 'make images' builds operator and relay into target/images"; done
  for node in $nodes; do node_is_up "$node" || fail "node$node is down: images are loaded onto running nodes"; done
  for archive; do
    for node in $nodes; do import_archive "$node" "$archive" || fail "node$node cannot read $archive"; done
    say "loaded $(basename "$archive") on every node"
  done
}

on_node() { ctr --address "$(node_folder "$1")/containerd.sock" --namespace k8s.io "${@:2}"; }
has_image() { on_node "$1" images list --quiet "name==$2" | grep -qxF "$2"; }
import_archive() { on_node "$1" images import "$2" >/dev/null; }
