#!/usr/bin/env bash
# Sends one message with msmtp. What to send and where is in the environment: tests/clients/send.rs.
set -euo pipefail

arguments=(
  --host="$SMTP_HOST" --port="$SMTP_PORT" --domain=client.example --from="$MAIL_FROM"
  --set-from-header=off --set-date-header=off --set-msgid-header=off --remove-bcc-headers=off
)
case $SMTP_SECURITY in
none) arguments+=(--tls=off) ;;
starttls) arguments+=(--tls=on --tls-starttls=on --tls-trust-file="$SMTP_CA") ;;
implicit) arguments+=(--tls=on --tls-starttls=off --tls-trust-file="$SMTP_CA") ;;
esac
if [ -n "$SMTP_MECHANISM" ]; then
  mechanism=$(echo "$SMTP_MECHANISM" | tr '[:upper:]' '[:lower:]')
  arguments+=(--auth="$mechanism" --user="$SMTP_USER" --passwordeval='printenv SMTP_PASSWORD')
fi
mapfile -t recipients <"$RCPT_TO"
exec msmtp "${arguments[@]}" -- "${recipients[@]}" <"$MESSAGE"
