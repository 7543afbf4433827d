"""Sends one message with Python's smtplib. What to send and where is in the environment: tests/clients/send.rs."""

import os
import smtplib
import ssl
import sys


def main() -> None:
    env = os.environ
    host, port, security = env["SMTP_HOST"], int(env["SMTP_PORT"]), env["SMTP_SECURITY"]
    context = ssl.create_default_context(cafile=env["SMTP_CA"])
    with open(env["MESSAGE"], "rb") as file:
        message = file.read()
    with open(env["RCPT_TO"], encoding="utf-8") as file:
        recipients = file.read().split()

    if security == "implicit":
        smtp = smtplib.SMTP_SSL(host, port, context=context)
    else:
        smtp = smtplib.SMTP(host, port)
    with smtp:
        if security == "starttls":
            smtp.starttls(context=context)
        smtp.ehlo()
        if env["SMTP_MECHANISM"]:
            smtp.user, smtp.password = env["SMTP_USER"], env["SMTP_PASSWORD"]
            mechanism = {"PLAIN": smtp.auth_plain, "LOGIN": smtp.auth_login}[env["SMTP_MECHANISM"]]
            smtp.auth(env["SMTP_MECHANISM"], mechanism)
        options = [] if message.isascii() else ["BODY=8BITMIME"]
        if env["SMTPUTF8"]:
            options.append("SMTPUTF8")
        refused = smtp.sendmail(env["MAIL_FROM"], recipients, message, options)
        if refused:
            sys.exit(f"refused: {refused}")


try:
    main()
except (smtplib.SMTPException, OSError) as error:
    sys.exit(repr(error))
