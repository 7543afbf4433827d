#!/usr/bin/env bash
# Builds the images of the end-to-end suite: operator and relay under the names and tag the chart uses by default, the relay a
# second time under another tag (for rolling updates), the fake upstream and the app. No container engine, no registry.
# They hold debug builds: overflow and debug assertions are on, and they are compiled in minutes less.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: images.sh [OUT]
  OUT   where the archives go (default: target/e2e/images)
The last lines on stdout are the archives.
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
workspace=$(cd "$here/../.." && pwd)
# shellcheck source=../setup/go.sh
. "$workspace/tests/setup/go.sh"

case ${1:-} in
-h | --help) usage; exit ;;
-*) usage >&2; exit 2 ;;
esac
out=${1:-$workspace/target/e2e/images}
mkdir -p "$out"
out=$(cd "$out" && pwd)
binaries=$out/binaries
mkdir -p "$binaries"

target=$(uname -m)-unknown-linux-gnu
# As in charts/images/build.sh: naming the target keeps the flag away from what must be dynamic. Without debug information the
# archives are a fifth of their size.
(cd "$workspace" && RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" CARGO_PROFILE_DEV_DEBUG=none \
  cargo build --locked --target "$target" -p postroad-operator -p postroad-relay -p postroad-tests --bins >&2)
built=${CARGO_TARGET_DIR:-$workspace/target}/$target/debug
require_go "$workspace/charts/images"
for program in postroad-operator postroad-relay fake-upstream; do cp "$built/$program" "$binaries/$program"; done
(cd "$here/app" && GOWORK=off CGO_ENABLED=0 go build -mod=readonly -trimpath -o "$binaries/app" .)
(cd "$workspace/charts/images" && GOWORK=off CGO_ENABLED=0 go build -mod=readonly -o "$binaries/images" .)

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$workspace/Cargo.toml")
pack() { # pack ARCHIVE PROGRAM REFERENCE
  "$binaries/images" pack --binary "$binaries/$2" --out "$out/$1.tar" "$3"
  echo "$out/$1.tar"
}
pack postroad-operator postroad-operator "ghcr.io/postroad/postroad-operator:$version"
pack postroad-relay postroad-relay "ghcr.io/postroad/postroad-relay:$version"
pack postroad-relay-next postroad-relay "ghcr.io/postroad/postroad-relay:next"
pack fake-upstream fake-upstream localhost/postroad-test/fake-upstream:1
pack app app localhost/postroad-test/app:1
