#!/usr/bin/env bash
# Runs the torture suite: builds it as the calling user, then runs it as root in a mount and a network namespace of its own, so that
# nothing it mounts outlives it and no packet that it drops is anybody else's. Loop devices detach with their mounts.
#
# Usage: run.sh short|long        (about 3 minutes; up to an hour)
# Writes a line of JSON for each scenario to target/torture/results.jsonl.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { echo "torture: $*" >&2; }
case ${1-} in
  short) kills=20 cuts=6 flips=10 handed=1000 handed_kills=10 ;;
  long) kills=1000 cuts=100 flips=50 handed=10000 handed_kills=60 ;;
  *) say "usage: run.sh short|long"; exit 2 ;;
esac
root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { say "it mounts file systems: run it as root, or install sudo"; exit 1; }
  root=(sudo)
fi
for needed in unshare mkfs.ext4 mkfs.xfs strace ip nft; do
  PATH=$PATH:/usr/sbin:/sbin command -v "$needed" >/dev/null || { say "$needed is missing: make setup installs it"; exit 1; }
done
[ -e /dev/fuse ] || { say "/dev/fuse is missing: the kernel has to offer FUSE, for a disk that loses power"; exit 1; }

cargo build -p postroad-relay
build=$(cargo test -p postroad-tests --test torture --no-run 2>&1) || { echo "$build" >&2; exit 1; }
suite=$(sed -n 's/^ *Executable .*(\(.*\))$/\1/p' <<<"$build")
results=$PWD/target/torture/results.jsonl
mkdir -p "${results%/*}"
rm -f "$results"
# The namespace's loopback is down at first.
# shellcheck disable=SC2016 # "$@" is the inner shell's
"${root[@]}" unshare --mount --propagation private --net env "PATH=$PATH:/usr/sbin:/sbin" POSTROAD_TORTURE_NAMESPACE=1 \
  POSTROAD_TORTURE_KILLS=$kills POSTROAD_TORTURE_CUTS=$cuts POSTROAD_TORTURE_FLIPS=$flips \
  POSTROAD_TORTURE_HAND_OVER=$handed POSTROAD_TORTURE_HAND_OVER_KILLS=$handed_kills \
  POSTROAD_TORTURE_RESULTS="$results" sh -c 'ip link set lo up && exec "$@"' torture \
  "$suite" --include-ignored --test-threads 1
say "done; the figures are in ${results#"$PWD"/}"
