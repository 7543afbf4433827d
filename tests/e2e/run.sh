#!/usr/bin/env bash
# Runs the end-to-end suite: images, cluster, tests one after the other, cluster down. On a machine that cannot run the cluster it says so
# and skips, unless POSTROAD_REQUIRE_CLUSTER=1 makes that a failure, as CI does.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: run.sh [FILTER...]
  FILTER   run only the tests whose names hold it
Environment:
  POSTROAD_TEST_KUBECONFIG     use this cluster, which holds the images of images.sh; with POSTROAD_TEST_DESTRUCTIVE=1 nodes are drained there
  POSTROAD_REQUIRE_CLUSTER=1   fail where the suite cannot run
  POSTROAD_KEEP_CLUSTER=1      leave the cluster up
  POSTROAD_TEST_FAULT=NAME     of the faults and departures, this one only (names: faults.rs, departures.rs)
  UPDATE=1                     write docs/reference/resilience.md
TEXT
}

case ${1:-} in -h | --help) usage; exit ;; esac
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cluster=$here/../cluster/cluster.sh

down() { [ "${POSTROAD_KEEP_CLUSTER:-}" = 1 ] || "$cluster" down; }

"$here/images.sh" >/dev/null
if [ -z "${POSTROAD_TEST_KUBECONFIG:-}" ]; then
  # A cluster that was up before is a developer's, and stays.
  if "$cluster" status >/dev/null 2>&1; then export POSTROAD_KEEP_CLUSTER=1; fi
  trap down EXIT
  outcome=0
  "$cluster" up >&2 || outcome=$?
  if [ "$outcome" = 5 ] && [ "${POSTROAD_REQUIRE_CLUSTER:-}" != 1 ]; then
    echo "e2e: SKIPPED: this machine cannot run the cluster (its reason is above)" >&2
    exit 0
  fi
  [ "$outcome" = 0 ] || exit "$outcome"
fi
cd "$here/../.."
cargo test -p postroad-tests --test e2e -- --ignored --test-threads=1 --nocapture "$@"
