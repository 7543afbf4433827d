#!/usr/bin/env bash
# Sends one message with curl. What to send and where is in the environment: tests/clients/send.rs.
set -euo pipefail

scheme=smtp
[ "$SMTP_SECURITY" != implicit ] || scheme=smtps
{
  echo "url = \"$scheme://$SMTP_HOST:$SMTP_PORT/client.example\""
  echo "mail-from = \"$MAIL_FROM\""
  sed 's/.*/mail-rcpt = "&"/' "$RCPT_TO"
  [ "$SMTP_SECURITY" = none ] || printf 'ssl-reqd\ncacert = "%s"\n' "$SMTP_CA"
  if [ -n "$SMTP_MECHANISM" ]; then
    printf 'user = "%s:%s"\nlogin-options = "AUTH=%s"\n' "$SMTP_USER" "$SMTP_PASSWORD" "$SMTP_MECHANISM"
  fi
} | curl --config - --upload-file "$MESSAGE" --silent --show-error --verbose
