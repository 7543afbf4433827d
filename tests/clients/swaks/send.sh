#!/usr/bin/env bash
# Sends one message with swaks. What to send and where is in the environment: tests/clients/send.rs.
set -euo pipefail

arguments=(
  --server "$SMTP_HOST" --port "$SMTP_PORT" --helo client.example
  --from "$MAIL_FROM" --to "$(paste -sd, "$RCPT_TO")" --data "@$MESSAGE"
)
case $SMTP_SECURITY in
starttls) arguments+=(--tls --tls-verify --tls-ca-path "$SMTP_CA") ;;
implicit) arguments+=(--tls-on-connect --tls-verify --tls-ca-path "$SMTP_CA") ;;
esac
if [ -n "$SMTP_MECHANISM" ]; then
  arguments+=(--auth "$SMTP_MECHANISM" --auth-user "$SMTP_USER" --auth-password "$SMTP_PASSWORD")
fi
exec swaks "${arguments[@]}" --hide-send
