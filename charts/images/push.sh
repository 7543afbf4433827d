#!/usr/bin/env bash
# Pushes the images that build.sh made to a registry and prints each pushed reference with its digest, which is what
# `image.digest` in the chart's values wants.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: push.sh [--from DIR] REGISTRY [TAG]
  REGISTRY    a registry with the path below it, such as ghcr.io/example or 127.0.0.1:5000
  TAG         default: the version in Cargo.toml
  --from DIR  where build.sh put the archives (default: target/images)
Credentials are those of `docker login` (~/.docker/config.json).
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
workspace=$(cd "$here/../.." && pwd)
# shellcheck source=../../tests/setup/go.sh
. "$workspace/tests/setup/go.sh"

from=$workspace/target/images
while [ $# -gt 0 ]; do
  case $1 in
  --from) from=${2:?"--from needs a folder"}; shift 2 ;;
  -h | --help) usage; exit ;;
  -*) usage >&2; exit 2 ;;
  *) break ;;
  esac
done
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  usage >&2
  exit 2
fi
registry=$1
tag=${2:-$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$workspace/Cargo.toml")}

require_go "$here"
[ -d "$from" ] || { echo "error: $from does not exist: run charts/images/build.sh first" >&2; exit 1; }
from=$(cd "$from" && pwd)
program=$(mktemp -d)
trap 'rm -rf "$program"' EXIT
(cd "$here" && GOWORK=off CGO_ENABLED=0 go build -mod=readonly -o "$program/images" .)
"$program/images" push --from "$from" --tag "$tag" "$registry"
