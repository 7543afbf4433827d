#!/usr/bin/env bash
# Sends one message with a Postfix of its own, which lives in $SCRATCH, listens nowhere and ends with this script. What to send and
# where is in the environment: tests/clients/send.rs. As root: Postfix gives up privileges that it must have first.
set -euo pipefail

say() { echo "postfix: $*" >&2; }
programs=$(postconf -d -h daemon_directory)
mkdir -p "$SCRATCH/configuration" "$SCRATCH/queue" "$SCRATCH/data"
chmod 755 "$SCRATCH" "$SCRATCH"/*
chown postfix "$SCRATCH/data"

case $SMTP_SECURITY in
none) level=none wrapper=no ;;
starttls) level=secure wrapper=no ;;
implicit) level=secure wrapper=yes ;;
esac
cat >"$SCRATCH/configuration/main.cf" <<TEXT
compatibility_level = 3.6
queue_directory = $SCRATCH/queue
data_directory = $SCRATCH/data
maillog_file = $SCRATCH/log
maillog_file_prefixes = $SCRATCH
myhostname = client.example
mydestination =
inet_protocols = ipv4
relayhost = [$SMTP_HOST]:$SMTP_PORT
smtp_host_lookup = native
smtp_destination_recipient_limit = 1000
smtp_tls_security_level = $level
smtp_tls_wrappermode = $wrapper
smtp_tls_CAfile = $SMTP_CA
smtp_tls_secure_cert_match = hostname
smtp_sasl_auth_soft_bounce = no
smtp_sasl_tls_security_options = noanonymous
message_size_limit = 0
mailbox_size_limit = 0
smtputf8_enable = yes
TEXT
if [ -n "$SMTP_MECHANISM" ]; then
  printf '[%s]:%s %s:%s\n' "$SMTP_HOST" "$SMTP_PORT" "$SMTP_USER" "$SMTP_PASSWORD" >"$SCRATCH/configuration/passwords"
  cat >>"$SCRATCH/configuration/main.cf" <<TEXT
smtp_sasl_auth_enable = yes
smtp_sasl_mechanism_filter = $SMTP_MECHANISM
smtp_sasl_password_maps = texthash:$SCRATCH/configuration/passwords
TEXT
fi
cat >"$SCRATCH/configuration/master.cf" <<TEXT
postlog   unix-dgram n - n - 1 postlogd
pickup    unix n - n 60 1 pickup
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
smtp      unix - - n - - smtp
relay     unix - - n - - smtp
error     unix - - n - - error
retry     unix - - n - - error
discard   unix - - n - - discard
showq     unix n - n - - showq
tlsmgr    unix - - n 1000? 1 tlsmgr
scache    unix - - n - 1 scache
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
TEXT

export MAIL_CONFIG=$SCRATCH/configuration
postfix -c "$MAIL_CONFIG" check 2>>"$SCRATCH/start" || { cat "$SCRATCH/start" >&2; exit 1; }
"$programs/master" -c "$MAIL_CONFIG" -d >>"$SCRATCH/start" 2>&1 &
master=$!
trap 'kill "$master" 2>/dev/null; wait "$master" 2>/dev/null || true' EXIT

mapfile -t recipients <"$RCPT_TO"
# The daemons come up while this waits for the queue's own files.
until [ -p "$SCRATCH/queue/public/pickup" ] || [ -S "$SCRATCH/queue/public/pickup" ]; do
  kill -0 "$master" 2>/dev/null || { cat "$SCRATCH/start" "$SCRATCH/log" >&2 || true; exit 1; }
  sleep 0.05
done
tr -d '\r' <"$MESSAGE" | sendmail -C "$MAIL_CONFIG" -i ${SMTPUTF8:+-O SMTPUTF8} -f "$MAIL_FROM" -- "${recipients[@]}"

# Each recipient's fate is a line of the log.
for _ in $(seq 1200); do
  settled=$(grep -c " to=<.*status=" "$SCRATCH/log" 2>/dev/null || true)
  [ "${settled:-0}" -lt "${#recipients[@]}" ] || break
  sleep 0.05
done
sent=$(grep -c " to=<.*status=sent" "$SCRATCH/log" || true)
[ "$sent" -eq "${#recipients[@]}" ] || { say "$sent of ${#recipients[@]} recipients were taken"; cat "$SCRATCH/start" "$SCRATCH/log" >&2; exit 1; }
