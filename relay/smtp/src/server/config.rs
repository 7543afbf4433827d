//! What a server session is made with.

use std::time::Duration;

/// Settings of a listener's sessions. `Default` gives a plain one named `localhost`; use it for the fields you leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// The name in the greeting, the EHLO reply and 421 replies (RFC 5321 §4.3.1).
    pub hostname: String,
    /// What stands behind the host name in the greeting, such as `ESMTP Postroad`.
    pub banner_text: String,
    /// The largest content in octets, line ends included, stuffed dots not (RFC 1870 §3). 0: no limit. Default 25 MiB.
    pub message_bytes: u64,
    /// Accepted recipients of one message; one more gets 452 4.5.3. At least 100 (RFC 5321 §4.5.3.1.8). Default 1000.
    pub recipients: usize,
    /// What TLS is offered.
    pub tls: TlsOffer,
    /// What authentication is offered. AUTH is spoken under TLS only.
    pub authentication: AuthOffer,
    /// Refused commands (5yz) since the last accepted message before the session is ended with 421 4.7.0. Default 20.
    pub errors: u32,
    /// How long to wait for the peer.
    pub timeouts: ServerTimeouts,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            banner_text: "ESMTP".to_owned(),
            message_bytes: 25 * 1024 * 1024,
            recipients: 1000,
            tls: TlsOffer::None,
            authentication: AuthOffer::None,
            errors: 20,
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
    /// AUTH PLAIN and LOGIN under TLS.
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
