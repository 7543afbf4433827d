//! How the fake upstream presents itself: what is fixed at its start ([`Options`]) and what a test may change while it
//! runs ([`Settings`]). Values only; `session` acts on them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::certificates::{CertificateAuthority, IssuedCertificate};
use crate::smtp_server::faults::Fault;

/// How connections are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// In the clear; STARTTLS is not offered.
    #[default]
    None,
    /// In the clear until the client asks for TLS (RFC 3207).
    StartTls,
    /// TLS from the first octet (RFC 8314 §3.3).
    Implicit,
}

/// What is fixed when the server starts.
#[derive(Default)]
pub struct Options {
    /// Where it listens; a free port of 127.0.0.1 when `None`.
    pub listen: Option<SocketAddr>,
    /// How connections are encrypted.
    pub tls: TlsMode,
    /// Names the certificate is issued for besides `localhost` and `127.0.0.1`.
    pub names: Vec<String>,
    /// Who issues the certificate; a new authority when `None`.
    pub authority: Option<CertificateAuthority>,
    /// The certificate it presents; one issued by `authority` when `None`.
    pub certificate: Option<IssuedCertificate>,
    /// How the server behaves at first.
    pub settings: Settings,
    /// Faults in force from the first connection on.
    pub faults: Vec<Fault>,
}

/// What a test may change while the server runs. A session looks at each value when it needs it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name in the greeting and in the answer to EHLO.
    pub hostname: String,
    /// Refuse MAIL with 530 until the connection is encrypted.
    pub require_tls: bool,
    /// Refuse MAIL with 530 until the client has authenticated.
    pub require_authentication: bool,
    /// Who may authenticate, with which password. AUTH PLAIN and LOGIN are offered when this is not empty.
    pub users: BTreeMap<String, String>,
    /// Who may authenticate with which OAuth 2.0 access token. AUTH XOAUTH2 is offered when this is not empty.
    pub access_tokens: BTreeMap<String, String>,
    /// The reply to MAIL in a session whose password or token is no longer its user's. `None`: what has authenticated stays so.
    pub expired_credentials: Option<String>,
    /// Offer AUTH on connections in the clear as well. RFC 4954 §4 forbids it, some upstreams do it.
    pub authentication_in_the_clear: bool,
    /// Offer AUTH PLAIN; off leaves LOGIN alone.
    pub offer_plain: bool,
    /// Offer PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// Offer CHUNKING (RFC 3030).
    pub chunking: bool,
    /// Offer SIZE with this maximum (RFC 1870); longer messages get 552. `None` offers no SIZE and takes all.
    pub size: Option<u64>,
    /// Offer 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// Offer ENHANCEDSTATUSCODES and send them (RFC 2034).
    pub enhanced_status_codes: bool,
    /// Further lines for the answer to EHLO, as `DSN`.
    pub further_extensions: Vec<String>,
    /// Refuse EHLO with 502, so that only HELO is left (RFC 5321 §3.2).
    pub helo_only: bool,
    /// Answer connections beyond this many at once with 421 and close them.
    pub session_limit: Option<usize>,
    /// Read slowly.
    pub pace: Option<Pace>,
}

impl Default for Settings {
    /// A server with PIPELINING, SIZE, 8BITMIME and ENHANCEDSTATUSCODES, no users, nothing required and no limits but a maximum size of 50 MiB.
    fn default() -> Self {
        Self {
            hostname: "upstream.test".to_owned(),
            require_tls: false,
            require_authentication: false,
            users: BTreeMap::new(),
            access_tokens: BTreeMap::new(),
            expired_credentials: None,
            authentication_in_the_clear: false,
            offer_plain: true,
            pipelining: true,
            chunking: false,
            size: Some(50 * 1024 * 1024),
            eight_bit_mime: true,
            enhanced_status_codes: true,
            further_extensions: Vec::new(),
            helo_only: false,
            session_limit: None,
            pace: None,
        }
    }
}

impl Settings {
    /// These settings with a user who may authenticate.
    #[must_use]
    pub fn with_user(mut self, name: &str, password: &str) -> Self {
        self.users.insert(name.to_owned(), password.to_owned());
        self
    }
}

/// A reader that takes at most `octets` and then rests for `rest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Octets taken at once; at least one.
    pub octets: usize,
    /// Rest after each read.
    pub rest: Duration,
}
