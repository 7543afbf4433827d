//! What a client session and a mail transaction are made with.

use super::authentication::Credentials;
use crate::address::{ForwardPath, ReversePath};
use crate::parameter::Body;

/// Settings of a session with an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// The name given in EHLO: a host name or an address literal.
    pub ehlo_name: String,
    /// How the session is protected.
    pub tls: ClientTls,
    /// What to authenticate with; `None`: no AUTH.
    pub credentials: Option<Credentials>,
    /// Random printable characters without a comma, new for each session, for mechanisms that need them; at least 18.
    pub nonce: String,
}

/// How a session with an upstream is protected. TLS is never optional: what is asked for is had, or the session fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientTls {
    /// Not at all; credentials travel in clear because the configuration says so.
    None,
    /// By STARTTLS (RFC 3207).
    StartTls,
    /// By a TLS handshake before the first octet (RFC 8314 §3); the session starts inside it.
    Implicit,
}

/// One mail transaction to perform: the envelope and what MAIL declares about the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Where non-delivery is reported.
    pub reverse_path: ReversePath,
    /// The recipients, one RCPT each, in this order.
    pub recipients: Vec<ForwardPath>,
    /// Octets of the content, line ends included; declared where SIZE is offered.
    pub size: u64,
    /// Whether the content has octets above 127. Declared where 8BITMIME is offered; a server that does not offer it
    /// gets the same octets without a declaration (conversion is not done here).
    pub body: Body,
}
