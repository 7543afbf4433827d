#!/usr/bin/env bash
# Makes a fresh Debian 12+ or Ubuntu 22.04+ machine able to build and test this repository: system packages, the Rust toolchain,
# Go, mail clients. Every step says what it does and does nothing when its result is there already. As root, or with sudo for the
# packages; everything else goes into the user's own folders. The control plane for tests is not part of it: tests/control-plane/build.sh.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: install.sh
Installs what is missing of
  packages  with apt-get: a C toolchain, curl, git, what the nodes of the test cluster run (containerd, runc, network tools; no
            service of these needs to run), and the mail clients of tests/clients with what they run on: swaks, msmtp, Postfix
            (not started; it takes the place of another mail server), Python, Node.js, Java
  Rust      with rustup, from https://sh.rustup.rs, into ~/.cargo and ~/.rustup
  Go        with apt-get where the distribution has one that can fetch the release needed, else from https://go.dev/dl/ into
            ${POSTROAD_CACHE:-${XDG_CACHE_HOME:-~/.cache}/postroad}/go
  clients   nodemailer with npm, Jakarta Mail with Maven, into .../postroad/clients of the same cache
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
workspace=$(cd "$here/../.." && pwd)
go_module=$workspace/tests/control-plane/kubernetes
# The release that is unpacked where the distribution's Go is too old even to fetch a newer one.
go_release=1.26.8
# shellcheck source=go.sh
. "$here/go.sh"

say() { echo "setup: $*" >&2; }
fail() { say "error: $*"; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "'$*' needs root: run this as root, or install sudo"
  fi
}

# One package a line, with what needs it. Any of several packages will do where a bar is; the first is installed.
packages() {
  sed 's/ *#.*//; /^$/d' <<'TEXT'
build-essential              # cargo links with cc; the static C library for container images; C in the crypto provider
busybox-static               # the test cluster's check runs it in a pod
ca-certificates              # downloads
conntrack                    # kube-proxy
containerd|containerd.io     # the test cluster's nodes
containernetworking-plugins  # the network of their pods
curl                         # downloads
e2fsprogs                    # file systems of the torture suite
ethtool                      # kubelet
git                          # the commit in the image labels
iproute2                     # the test cluster's segment
iptables                     # kubelet, port mappings
libfaketime                  # the torture suite moves the relay's clock with it
libnet-ssleay-perl           # swaks speaks TLS with it
libsasl2-modules             # AUTH for Postfix, as client and as upstream
msmtp                        # a client of tests/clients
nftables                     # kube-proxy
openssl                      # certificates of the demo and of the test cluster
postfix                      # a client of tests/clients and an upstream; it gets no configuration here and does not run
python3                      # a client of tests/clients
runc|containerd.io           # containers
sasl2-bin                    # users of the upstream Postfix
shellcheck                   # lints of the scripts
socat                        # the way from this machine's loopback to the test cluster's API server
strace                       # the torture suite sees the syncs with it
swaks                        # a client of tests/clients and of the demo
xfsprogs                     # file systems of the torture suite
TEXT
}

# A command a line, with the package that has it where the machine does not: Node.js and Java often come from elsewhere.
commands() {
  cat <<'TEXT'
node nodejs
npm npm
javac default-jdk-headless
mvn maven
TEXT
}

# is_installed PACKAGE[|PACKAGE…]
is_installed() {
  local package
  for package in ${1//|/ }; do
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" != installed ] || return 0
  done
  return 1
}

apt_index_is_fresh=''
apt_install() {
  if [ -z "$apt_index_is_fresh" ]; then
    say "refreshing the package index"
    as_root apt-get -qq update
    apt_index_is_fresh=yes
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 install --yes --no-install-recommends "$@" >&2
}

install_packages() {
  local command package missing=()
  for package in $(packages); do
    is_installed "$package" || missing+=("${package%%|*}")
  done
  while read -r command package; do
    command -v "$command" >/dev/null || missing+=("$package")
  done < <(commands)
  if [ ${#missing[@]} = 0 ]; then
    say "packages: already there: $(packages | xargs)"
    return
  fi
  command -v apt-get >/dev/null || fail "this set-up knows Debian and Ubuntu only: install the counterparts of: ${missing[*]}"
  say "packages: installing ${missing[*]}"
  # Without this, Postfix would be configured to take mail and started.
  echo 'postfix postfix/main_mailer_type select No configuration' | as_root debconf-set-selections
  apt_install "${missing[@]}"
}

rust_needed() { sed -n 's/^rust-version = "\(.*\)"/\1/p' "$workspace/Cargo.toml"; }

rust_channel() {
  local channel=''
  [ ! -e "$workspace/rust-toolchain.toml" ] || channel=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' "$workspace/rust-toolchain.toml")
  echo "${channel:-$(rust_needed)}"
}

rust_version() { (cd "$workspace" && rustc --version 2>/dev/null | cut -d' ' -f2); }

rust_ready() {
  local own
  own=$(rust_version) && [ -n "$own" ] || return 1
  [ "$(version_number "$own")" -ge "$(version_number "$(rust_needed)")" ] || return 1
  (cd "$workspace" && cargo --version && cargo fmt --version && cargo clippy --version) >/dev/null 2>&1
}

install_rust() {
  PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
  if rust_ready; then
    say "Rust: already there: $(rust_version)"
    return
  fi
  if ! command -v rustup >/dev/null; then
    say "Rust: installing rustup from https://sh.rustup.rs"
    # --no-modify-path: the shell's start-up files are the user's; make finds ~/.cargo/bin by itself.
    curl --proto '=https' --tlsv1.2 -fsSL https://sh.rustup.rs | sh -s -- -y --no-modify-path --profile minimal --default-toolchain none >&2 ||
      fail "rustup could not be installed from https://sh.rustup.rs: install Rust $(rust_channel) another way and run this again"
  fi
  say "Rust: installing $(rust_channel) with rustup"
  rustup toolchain install "$(rust_channel)" --profile minimal --component rustfmt --component clippy >&2
  rust_ready || fail "Rust $(rust_needed) with rustfmt and clippy is still not there: 'rustup show' in $workspace says what is used instead"
}

# The newest Go of the distribution that can fetch newer ones, as a package name; nothing when there is none.
go_package() {
  local package
  package=$(apt-cache pkgnames golang-1. | grep -E '^golang-1\.[0-9]+-go$' | sort --version-sort | tail -n 1) || return 0
  [ "$(version_number "${package#golang-}")" -lt "$(version_number 1.21)" ] || echo "$package"
}

unpack_go() {
  local machine archive folder
  case $(uname -m) in
  x86_64) machine=amd64 ;;
  aarch64) machine=arm64 ;;
  *) fail "Go: no release is known for $(uname -m): install Go $(go_needed "$go_module") yourself" ;;
  esac
  archive=https://go.dev/dl/go$go_release.linux-$machine.tar.gz
  folder=${POSTROAD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/postroad}/go
  say "Go: unpacking $archive into $folder/$go_release"
  mkdir -p "$folder"
  rm -rf "$folder/.unfinished" && mkdir "$folder/.unfinished"
  curl --proto '=https' --tlsv1.2 -fsSL "$archive" | tar -xz -C "$folder/.unfinished" --strip-components=1 ||
    fail "Go could not be fetched from $archive: install Go $(go_needed "$go_module") or later another way and run this again"
  rm -rf "${folder:?}/$go_release"
  mv "$folder/.unfinished" "$folder/$go_release"
}

install_go() {
  local package
  if ! go_ready "$go_module"; then
    package=$(go_package)
    if [ -n "$package" ]; then
      say "Go: installing $package"
      apt_install "$package"
    fi
    go_ready "$go_module" || unpack_go
    require_go "$go_module"
    say "Go: installed: $(cd "$go_module" && go env GOVERSION) in $(command -v go)"
  else
    say "Go: already there: $(cd "$go_module" && go env GOVERSION) in $(command -v go)"
  fi
}

case "${1:-}" in
'') ;;
-h | --help) usage; exit ;;
*) usage >&2; exit 2 ;;
esac

install_packages
install_rust
install_go
"$workspace/tests/clients/install.sh"
say "done: Rust $(rust_version), $(cd "$go_module" && go env GOVERSION)"
