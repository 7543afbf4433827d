// Sends one message with nodemailer. What to send and where is in the environment: tests/clients/send.rs.
const fs = require('node:fs');
const nodemailer = require('nodemailer');

const env = process.env;
const transport = nodemailer.createTransport({
  host: env.SMTP_HOST,
  port: Number(env.SMTP_PORT),
  secure: env.SMTP_SECURITY === 'implicit',
  requireTLS: env.SMTP_SECURITY === 'starttls',
  ignoreTLS: env.SMTP_SECURITY === 'none',
  tls: { ca: fs.readFileSync(env.SMTP_CA) },
  ...(env.SMTP_MECHANISM && {
    auth: { user: env.SMTP_USER, pass: env.SMTP_PASSWORD },
    authMethod: env.SMTP_MECHANISM,
  }),
});
const to = fs.readFileSync(env.RCPT_TO, 'utf8').split('\n').filter(Boolean);
const use8BitMime = fs.readFileSync(env.MESSAGE).some((octet) => octet > 127);

transport
  .sendMail({ envelope: { from: env.MAIL_FROM, to, use8BitMime }, raw: fs.readFileSync(env.MESSAGE) })
  .then((info) => {
    if (info.rejected.length > 0) throw new Error(info.rejectedErrors.join('\n'));
  })
  .catch((error) => {
    console.error(error);
    process.exitCode = 1;
  });
