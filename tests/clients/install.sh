#!/usr/bin/env bash
# Fetches the libraries of the test clients that come from npm and Maven, at the versions pinned beside the clients, into
# ${POSTROAD_CACHE:-${XDG_CACHE_HOME:-~/.cache}/postroad}/clients. Does nothing when they are there. Called by
# tests/setup/install.sh, which has installed npm and mvn.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
libraries=${POSTROAD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/postroad}/clients
say() { echo "setup: $*" >&2; }

# A folder is up to date when the file "installed" in it equals the file that pins the versions.
up_to_date() { cmp --silent "$1" "$2/installed"; }

pinned=$here/nodemailer/package-lock.json folder=$libraries/nodemailer
if up_to_date "$pinned" "$folder"; then
  say "nodemailer: already there"
else
  say "nodemailer: installing with npm into $folder"
  rm -rf "$folder" && mkdir -p "$folder"
  cp "$here/nodemailer/package.json" "$pinned" "$folder"
  npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --silent >&2
  cp "$pinned" "$folder/installed"
fi

pinned=$here/jakarta-mail/pom.xml folder=$libraries/jakarta-mail
if up_to_date "$pinned" "$folder"; then
  say "Jakarta Mail: already there"
else
  say "Jakarta Mail: installing with Maven into $folder"
  rm -rf "$folder" && mkdir -p "$folder"
  mvn --quiet --batch-mode --file "$pinned" dependency:copy-dependencies "-DoutputDirectory=$folder" >&2
  cp "$pinned" "$folder/installed"
fi
