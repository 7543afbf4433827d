#!/usr/bin/env bash
# Makes the test clients that are not scripts: prepare.sh FOLDER puts the Go program and the Java class into FOLDER, and prints as
# its last line where install.sh has put the libraries that come from npm and Maven.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../setup/go.sh
. "$here/../setup/go.sh"
libraries=${POSTROAD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/postroad}/clients

for library in nodemailer/node_modules/nodemailer jakarta-mail/installed; do
  [ -e "$libraries/$library" ] || { echo "error: $libraries/$library is not there: run 'make setup'" >&2; exit 1; }
done
require_go "$here/net-smtp"
(cd "$here/net-smtp" && CGO_ENABLED=0 go build -o "$1/net-smtp" .) &
javac -d "$1" -cp "$libraries/jakarta-mail/*" "$here/jakarta-mail/Send.java"
wait $!
echo "$libraries"
