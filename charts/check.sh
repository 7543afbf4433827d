#!/usr/bin/env bash
# Checks the chart without a cluster: every value set in postroad/ci lints without a warning and renders, and what the schema or
# the supported Kubernetes versions exclude is refused. The installation itself is tested against a real API server in tests/.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
assets=${KUBEBUILDER_ASSETS:-$("$here/../tests/control-plane/build.sh")}
helm=$assets/helm
[ -x "$helm" ] || helm=$(command -v helm) || { echo "error: no helm in $assets nor in PATH: run 'make control-plane'" >&2; exit 1; }
chart=$here/postroad
passed=0 failed=0

report() { # report OUTCOME WHAT DETAIL
  if [ "$1" = passed ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
  printf '%s: %s\n' "$1" "$2"
  [ "$1" = passed ] || printf '%s\n' "$3"
}

renders() { # renders FILE
  local output
  if output=$("$helm" lint --strict "$chart" --values "$1" 2>&1 && "$helm" template postroad "$chart" --namespace postroad-system --values "$1" 2>&1 >/dev/null); then
    report passed "renders with $(basename "$1")" ''
  else
    report FAILED "renders with $(basename "$1")" "$output"
  fi
}

refuses() { # refuses TEXT ARGUMENT… : the rendering fails with a message that holds TEXT
  local text=$1 output
  shift
  if output=$("$helm" template postroad "$chart" "$@" 2>&1); then
    report FAILED "refuses $*" "it was accepted"
  elif [[ $output == *"$text"* ]]; then
    report passed "refuses $*" ''
  else
    report FAILED "refuses $*" "the message does not say '$text': $output"
  fi
}

for values in "$chart"/ci/*-values.yaml; do renders "$values"; done
refuses "replicas" --set replicas=-1
refuses "'relpicas' not allowed" --set relpicas=2
refuses "'tagg' not allowed" --set relay.image.tagg=edge
refuses "/image/digest" --set image.digest=latest
refuses "/log/format" --set log.format=xml
refuses "/watchNamespaces/0" --set 'watchNamespaces={Team_A}'
refuses "kubeVersion" --kube-version 1.32.0

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
