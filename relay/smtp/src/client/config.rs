//! What a client session and a mail transaction are made with.

use super::authentication::Credentials;
use crate::address::{ForwardPath, ReversePath};
use crate::dsn_parameter::{EnvelopeId, Notify, OriginalRecipient, Return};
use crate::extension::Extensions;
use crate::parameter::Body;
use crate::reply::EnhancedStatusCode;

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
    pub recipients: Vec<TransactionRecipient>,
    /// Whether all recipients shall have the message or none: the content is sent only once every RCPT has been accepted, which
    /// costs a round trip where there are several.
    pub whole: bool,
    /// Octets of the content, line ends included; declared where SIZE is offered.
    pub size: u64,
    /// Whether the content has octets above 127. Declared where 8BITMIME is offered; see [`unmet`](Self::unmet).
    pub body: Body,
    /// Whether an address or the header section has characters above 127. Declared where SMTPUTF8 is offered; see
    /// [`unmet`](Self::unmet).
    pub smtputf8: bool,
    /// How much a notification of failure shall return. Passed on where DSN is offered.
    pub ret: Option<Return>,
    /// The sender's own name for the message. Passed on where DSN is offered.
    pub envelope_id: Option<EnvelopeId>,
}

/// One recipient of a transaction. The parameters are passed on where DSN is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionRecipient {
    /// The address.
    pub path: ForwardPath,
    /// When to notify the sender.
    pub notify: Option<Notify>,
    /// The recipient as the sender first wrote it.
    pub original: Option<OriginalRecipient>,
}

impl From<ForwardPath> for TransactionRecipient {
    /// Without any wish about notifications.
    fn from(path: ForwardPath) -> Self {
        Self { path, notify: None, original: None }
    }
}

/// What a transaction needs and a server does not offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unmet {
    /// The content has octets above 127 (RFC 6152 §3).
    #[error("it does not offer 8BITMIME and the content is 8-bit")]
    EightBitMime,
    /// An address or the header section is internationalised (RFC 6531 §3.5).
    #[error("it does not offer SMTPUTF8 and an address or the header section is internationalised")]
    SmtpUtf8,
}

impl Unmet {
    /// The status of a message returned for it: 5.6.3, conversion required but not supported (RFC 3463 §3.7), or 5.6.7,
    /// non-ASCII addresses not permitted (RFC 6531 §3.5).
    pub fn status(self) -> EnhancedStatusCode {
        match self {
            Self::EightBitMime => (5, 6, 3).into(),
            Self::SmtpUtf8 => (5, 6, 7).into(),
        }
    }
}

impl Transaction {
    /// What this transaction needs and a server with these extensions does not offer: it is not to be sent there then.
    /// Where [`start`](super::ClientSession::start) is called all the same, the parameter is left out.
    pub fn unmet(&self, offered: &Extensions) -> Option<Unmet> {
        if self.smtputf8 && !offered.smtputf8 {
            return Some(Unmet::SmtpUtf8);
        }
        (self.body == Body::EightBitMime && !offered.eight_bit_mime).then_some(Unmet::EightBitMime)
    }
}
