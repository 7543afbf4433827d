//! What a server session is made with.

use crate::auth::Mechanism;
use crate::data::{BareNewline, ContentLimits};
use std::time::Duration;

const DEFAULT_MESSAGE_BYTES: u64 = 25 * 1024 * 1024;

/// Settings of a listener's sessions. `Default` gives a plain one named `localhost`; use it for the fields you leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// The name in the greeting, the EHLO reply and 421 replies (RFC 5321 §4.3.1).
    pub hostname: String,
    /// What stands behind the host name in the greeting, such as `ESMTP Postroad`.
    pub banner_text: String,
    /// The largest content in octets, line ends included, stuffed dots not (RFC 1870 §3). 0: no limit. Default 25 MiB.
    pub message_bytes: u64,
    /// The largest header section in octets; beyond it 552 5.3.4. 0: no limit. Default 256 KiB.
    pub header_bytes: u64,
    /// The most header fields; beyond them 554 5.6.0. 0: no limit. Default 1000.
    pub header_fields: u32,
    /// Accepted recipients of one message; one more gets 452 4.5.3. At least 100 (RFC 5321 §4.5.3.1.8). Default 1000.
    pub recipients: usize,
    /// Accepted messages of one session; MAIL for one more gets 421 4.7.0. 0: no limit, the default.
    pub messages: u32,
    /// What TLS is offered.
    pub tls: TlsOffer,
    /// What authentication is offered.
    pub authentication: AuthOffer,
    /// The mechanisms of AUTH, in the order offered. Default PLAIN and LOGIN; SCRAM-SHA-256 needs a driver that answers
    /// [`Event::LookUpKeys`](super::Event::LookUpKeys).
    pub mechanisms: Vec<Mechanism>,
    /// Offer and accept AUTH without TLS too. Default false: passwords in clear are refused with 538 5.7.11.
    pub auth_without_tls: bool,
    /// Offer SMTPUTF8 (RFC 6531): for drivers that hand internationalised messages only to servers that take them.
    /// Default false: such an address gets 553 5.6.7.
    pub smtputf8: bool,
    /// Offer DSN (RFC 3461): for drivers that do what NOTIFY, RET, ENVID and ORCPT ask. Default false: 555 5.5.4.
    pub dsn: bool,
    /// Offer CHUNKING (RFC 3030). Default true: it asks nothing of the driver.
    pub chunking: bool,
    /// What becomes of a bare LF in content. Default: the message is refused.
    pub bare_newline: BareNewline,
    /// Refused commands (5yz) since the last accepted message before the session is ended with 421 4.7.0. Default 20.
    pub errors: u32,
    /// Commands that lead nowhere (NOOP, RSET, EHLO, VRFY, HELP) since the last accepted message before the session is
    /// ended with 421 4.7.0. Default 100.
    pub idle_commands: u32,
    /// How long to wait for the peer.
    pub timeouts: ServerTimeouts,
}

impl ServerConfig {
    /// The largest chunk, in octets, that is read although it is refused: four times the largest content, because a client
    /// that reads a refusal behind its chunk is worth more than the octets; 100 MiB where content has no limit.
    pub fn refused_chunk_bytes(&self) -> u64 {
        let content = if self.message_bytes == 0 { DEFAULT_MESSAGE_BYTES } else { self.message_bytes };
        content.saturating_mul(4)
    }

    /// The limits of one message's content.
    pub fn content_limits(&self) -> ContentLimits {
        ContentLimits {
            message_bytes: self.message_bytes,
            header_bytes: self.header_bytes,
            header_fields: self.header_fields,
        }
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            banner_text: "ESMTP".to_owned(),
            message_bytes: DEFAULT_MESSAGE_BYTES,
            header_bytes: 256 * 1024,
            header_fields: 1000,
            recipients: 1000,
            messages: 0,
            tls: TlsOffer::None,
            authentication: AuthOffer::None,
            mechanisms: vec![Mechanism::Plain, Mechanism::Login],
            auth_without_tls: false,
            smtputf8: false,
            dsn: false,
            chunking: true,
            bare_newline: BareNewline::Reject,
            errors: 20,
            idle_commands: 100,
            timeouts: ServerTimeouts::default(),
        }
    }
}

/// What TLS a listener offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TlsOffer {
    /// None: STARTTLS gets 502.
    #[default]
    None,
    /// STARTTLS (RFC 3207), mail is taken without it too.
    StartTls,
    /// STARTTLS, and nothing else before it: 530 5.7.0.
    StartTlsRequired,
    /// The connection began with a TLS handshake (RFC 8314 §3).
    Established,
}

/// What authentication a listener offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AuthOffer {
    /// None: AUTH gets 502.
    #[default]
    None,
    /// AUTH, under TLS unless [`ServerConfig::auth_without_tls`] says otherwise.
    Optional,
    /// The same, and MAIL gets 530 5.7.0 before it succeeded.
    Required,
}

/// How long to wait for the peer's next octets (RFC 5321 §4.5.3.2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerTimeouts {
    /// For a command or a SASL response. Default 5 minutes.
    pub command: Duration,
    /// For more content. Default 5 minutes.
    pub content: Duration,
}

impl Default for ServerTimeouts {
    fn default() -> Self {
        Self { command: Duration::from_secs(300), content: Duration::from_secs(300) }
    }
}
