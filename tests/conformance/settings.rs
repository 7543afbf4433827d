//! From the options line of a transcript to the configuration of a relay that behaves so.

use std::collections::HashMap;

use crate::relays::HOSTNAME;
use crate::transcript::Transcript;

/// `alice`, whose password is `s3cret`, so stored that SCRAM cannot prove it and is not offered (bcrypt).
const HASHED: &str = "{alice: '$2b$04$abcdefghijklmnopqrstuuLZYjhNQAOdpbzt4WxWlUHjv1wsyH5DG'}";
/// The user of RFC 7677 §3.
const PLAIN: &str = "{user: pencil}";

/// How a relay has to be set, in the words of its configuration.
pub(crate) struct Settings {
    tls: &'static str,
    authentication: &'static str,
    insecure_authentication: bool,
    users: &'static str,
    bare_newline: &'static str,
    message_bytes: String,
    recipients: String,
    messages: String,
    header_bytes: String,
    header_fields: String,
    /// Seconds of silence.
    timeout: u32,
    /// Whom it lets send, and where it knows a way to; empty for all.
    permitted: (&'static str, &'static str),
}

impl Settings {
    pub(crate) fn of(transcript: &Transcript) -> Self {
        let options: HashMap<&str, &str> = transcript.options();
        let number = |name, default: &str| (*options.get(name).unwrap_or(&default)).to_owned();
        Self {
            tls: match options.get("tls") {
                None => "None",
                Some(&"starttls") => "Optional",
                Some(&"required") => "Required",
                Some(&"established") => "Implicit",
                Some(other) => panic!("{}: tls={other}", transcript.file),
            },
            authentication: match options.get("auth") {
                None => "None",
                Some(&"optional") => "Optional",
                Some(&"required") => "Required",
                Some(other) => panic!("{}: auth={other}", transcript.file),
            },
            insecure_authentication: options.contains_key("clear"),
            users: if options.contains_key("scram") { PLAIN } else { HASHED },
            bare_newline: if options.contains_key("newline") { "Normalise" } else { "Reject" },
            message_bytes: number("size", "1000"),
            recipients: number("recipients", "100"),
            messages: number("messages", "1000"),
            header_bytes: number("headers", "100000"),
            header_fields: number("fields", "100"),
            timeout: if transcript.waits_for_a_timeout() { 1 } else { 300 },
            permitted: if transcript.mentions("refused@") { ("a@b.example", "d.example") } else { ("", "") },
        }
    }

    /// The whole configuration, with a listener at `address` and this `certificate` as a YAML value.
    pub(crate) fn render(&self, address: &str, certificate: &str) -> String {
        let Self { tls, authentication, insecure_authentication, users, bare_newline, timeout, .. } = self;
        let (senders, recipient_domains) = self.permitted;
        let certificate =
            if *tls == "None" { String::new() } else { format!("certificate: {certificate}\n") };
        format!(
            "version: relay-config.postroad.dev/v1
pool: {{namespace: mail, name: main}}
replicas: 1
hostname: {HOSTNAME}
listeners:
- name: smtp
  address: '{address}'
  tls: {tls}
  authentication: {authentication}
  insecureAuthentication: {insecure_authentication}
  bareNewline: {bare_newline}
{certificate}identities:
- {{name: local, match: {{network: {{cidrs: [127.0.0.0/8]}}}}, allowedSenders: [{senders}]}}
- {{name: users, match: {{password: {{users: {users}}}}}}}
routes: [{{name: all, recipientDomains: [{recipient_domains}], upstreams: [{{name: sandbox}}]}}]
upstreams:
- name: sandbox
  destination: {{sandbox: {{keepMessages: 10}}}}
  connections: {{maximum: 4, messagesPerConnection: 500, idleTimeoutSeconds: 30, maximumAgeSeconds: 900}}
queue: {{expireAfterSeconds: 600, minimumBackoffSeconds: 1, maximumBackoffSeconds: 2, maximumBytes: 1000000000}}
limits:
  messageBytes: {message_bytes}
  recipientsPerMessage: {recipients}
  connections: 100
  connectionsPerClient: 100
  messagesPerConnection: {messages}
  headerBytes: {header_bytes}
  headerFields: {header_fields}
  commandTimeoutSeconds: {timeout}
  contentTimeoutSeconds: {timeout}
shutdown: {{acceptSeconds: 0, gracePeriodSeconds: 10}}
",
            message_bytes = self.message_bytes,
            recipients = self.recipients,
            messages = self.messages,
            header_bytes = self.header_bytes,
            header_fields = self.header_fields,
        )
    }
}
