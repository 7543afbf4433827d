# shellcheck shell=bash
# go.sh: which Go builds the Go modules of this repository. Sourced by tests/control-plane/build.sh, charts/images/*.sh and
# tests/setup/install.sh; it defines functions and runs nothing.

# version_number VERSION : "go1.26.3", "1.26" or "1.95.0-nightly" as one comparable number (1026003)
version_number() {
  local major minor patch
  IFS=. read -r major minor patch <<<"${1#go}"
  minor=${minor:-0} minor=${minor%%[!0-9]*} patch=${patch:-0} patch=${patch%%[!0-9]*}
  echo $((major * 1000000 + ${minor:-0} * 1000 + ${patch:-0}))
}

# go_needed MODULE_DIR : the Go version that the module's go.mod asks for
go_needed() { sed -n 's/^go //p' "$1/go.mod"; }

# go_places : the folders with a go command, the best first: the one in PATH, the usual places of a hand-made installation and
# of distribution packages, and where install.sh unpacks one
go_places() {
  local place
  place=$(command -v go) && dirname "$place"
  for place in /usr/local/go/bin $(printf '%s\n' /usr/lib/go-*/bin | sort --version-sort --reverse) \
    "${POSTROAD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/postroad}"/go/*/bin; do
    [ ! -x "$place/go" ] || echo "$place"
  done
}

# go_builds PLACE MODULE_DIR : succeeds when the Go in PLACE can build the module, by itself or with a toolchain that it downloads
go_builds() {
  local own
  own=$(cd / && GOTOOLCHAIN=local "$1/go" env GOVERSION 2>/dev/null) || return 1
  [ "$(version_number "$own")" -lt "$(version_number "$(go_needed "$2")")" ] || return 0
  # 1.21 was the first Go that fetches another one: as a module, golang.org/toolchain, checked like any other.
  [ "$(version_number "$own")" -ge "$(version_number 1.21)" ] && (cd "$2" && "$1/go" env GOVERSION >/dev/null 2>&1)
}

# go_ready MODULE_DIR : succeeds when a Go on this machine can build the module, and puts it first in PATH
go_ready() {
  local place toolchain
  # Debian and Ubuntu build Go so that it stays with the installed release unless told otherwise; who has set the variable
  # is not overruled.
  for toolchain in "${GOTOOLCHAIN:-}" "${GOTOOLCHAIN:-auto}"; do
    for place in $(go_places); do
      if GOTOOLCHAIN=$toolchain go_builds "$place" "$1"; then
        PATH=$place:$PATH
        [ -z "$toolchain" ] || export GOTOOLCHAIN=$toolchain
        return 0
      fi
    done
  done
  return 1
}

# require_go MODULE_DIR : go_ready, or one sentence on stderr that says what to do
require_go() {
  go_ready "$1" && return
  local found
  found=$(go_places | head -n 1)
  if [ -n "$found" ]; then
    echo "error: $found/go is $(cd / && GOTOOLCHAIN=local "$found/go" env GOVERSION) and cannot fetch Go $(go_needed "$1"), which is needed: run 'make setup', or install it from https://go.dev/dl/" >&2
  else
    echo "error: Go is not installed, and $(go_needed "$1") or later is needed: run 'make setup', or install it from https://go.dev/dl/" >&2
  fi
  return 1
}
