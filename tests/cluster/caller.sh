# shellcheck shell=bash
# caller.sh: who asked for the cluster. Only namespaces and the like need root: under sudo, compiling is the caller's business as it is
# without, and so are the cache and the kubeconfig. Sourced by cluster.sh.

caller=${SUDO_USER:-$(id -un)}
if [ -n "${SUDO_USER:-}" ]; then
  caller_home=$(getent passwd "$caller" | cut -d: -f6)
  export POSTROAD_CACHE=${POSTROAD_CACHE:-$caller_home/.cache/postroad}
fi

as_caller() {
  if [ -n "${SUDO_USER:-}" ]; then
    runuser --user "$caller" -- env HOME="$caller_home" "$@"
  else
    "$@"
  fi
}
