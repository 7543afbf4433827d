#!/usr/bin/env bash
# Builds the container images of the operator and the relay: static binaries by cargo, packed by the Go program beside this
# script. Needs no container engine, no registry and no root; the same sources give the same images.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: build.sh [--binaries DIR] [OUT]
  OUT             where the archives go (default: target/images): postroad-operator.tar and postroad-relay.tar
  --binaries DIR  pack the static binaries in DIR instead of building them
Load an archive with `docker load -i`, `podman load -i`, `ctr --namespace k8s.io images import` or `kind load image-archive`.
The images carry the names that the chart uses by default: ghcr.io/postroad/<name>:<version>.
Environment: SOURCE_DATE_EPOCH, the images' creation time (default: 0).
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
workspace=$(cd "$here/../.." && pwd)
# shellcheck source=../../tests/setup/go.sh
. "$workspace/tests/setup/go.sh"

say() { echo "images: $*" >&2; }

build_binaries() {
  local target
  target=$(uname -m)-unknown-linux-gnu
  command -v cargo >/dev/null || { say "error: cargo is not installed: run 'make setup', or install it from https://rustup.rs"; return 1; }
  say "building static binaries for $target"
  # Naming the target keeps the flag away from build scripts and procedural macros, which must be dynamic.
  (cd "$workspace" && RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" \
    cargo build --release --locked --target "$target" -p postroad-operator -p postroad-relay >&2)
  binaries=${CARGO_TARGET_DIR:-$workspace/target}/$target/release
}

workspace_version() { sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$workspace/Cargo.toml"; }

# The commit, but only when it tells the truth about what is built.
revision() {
  [ -z "$(git -C "$workspace" status --porcelain 2>/dev/null || echo unknown)" ] || return 0
  git -C "$workspace" rev-parse HEAD
}

binaries='' out=$workspace/target/images
while [ $# -gt 0 ]; do
  case $1 in
  --binaries) binaries=${2:?"--binaries needs a folder"}; shift 2 ;;
  -h | --help) usage; exit ;;
  -*) usage >&2; exit 2 ;;
  *) out=$1; shift; [ $# -eq 0 ] || { usage >&2; exit 2; } ;;
  esac
done

require_go "$here"
[ -n "$binaries" ] || build_binaries
mkdir -p "$out"
binaries=$(cd "$binaries" && pwd) out=$(cd "$out" && pwd)
say "packing $binaries into $out"
program=$(mktemp -d)
trap 'rm -rf "$program"' EXIT
(cd "$here" && GOWORK=off CGO_ENABLED=0 go build -mod=readonly -o "$program/images" .)
"$program/images" build --binaries "$binaries" --out "$out" \
  --version "$(workspace_version)" --revision "$(revision)" --created "${SOURCE_DATE_EPOCH:-0}"
