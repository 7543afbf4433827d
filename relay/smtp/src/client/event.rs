//! What a client session tells its driver.

use crate::reply::Reply;

/// The next thing for the driver to know or do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// The server is ready for TLS: do the handshake, call `tls_established`. Hand in no octets before that.
    StartTls,
    /// No transaction runs and the session may take one.
    Ready,
    /// The content of the transaction started last is to be sent: call `content` with it, piece by piece, then
    /// `end_of_content`.
    SendContent,
    /// The oldest transaction is over. `Ready` follows when it was the only one and the session goes on, else what became of
    /// the next one.
    Done(TransactionReplies),
    /// The oldest transaction ends without an outcome, because the session does.
    Undecided(Undecided),
    /// The session is of no further use. What becomes of each of its transactions follows, then `Closed`.
    Failed(SessionFailure),
    /// Write the output, close the connection. The last event.
    Closed,
}

/// What is known of a transaction that has no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Undecided {
    /// The server never came to it, and no recipient has it: it is to be tried on another session.
    NotBegun,
    /// The session broke under it, and no recipient has it.
    Broken,
    /// Its content had been put out to its end for at least one recipient and no reply had arrived: it may or may not have
    /// been delivered.
    Ambiguous,
}

/// How a transaction ended, recipient by recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionReplies {
    /// One entry per recipient, in the order of [`Transaction::recipients`](super::Transaction::recipients).
    pub recipients: Vec<RecipientReply>,
    /// Whether the session goes on (after RSET where that is needed). False after 421 or a surprise.
    pub reusable: bool,
    /// Whether the server was told what the sender wants to hear about the recipients: it offers DSN (RFC 3461 §5.2.1).
    pub notifies: bool,
}

/// The reply that decided a recipient's fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientReply {
    /// The reply.
    pub reply: Reply,
    /// The command it answered.
    pub command: TransactionCommand,
}

impl RecipientReply {
    /// Whether the server took responsibility for this recipient (RFC 5321 §4.2.5).
    pub fn is_delivered(&self) -> bool {
        self.command == TransactionCommand::Content && self.reply.is_completion()
    }
}

/// The commands of a mail transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransactionCommand {
    /// MAIL, or the RSET before it: the reply holds for every recipient.
    Mail,
    /// This recipient's RCPT.
    Recipient,
    /// DATA: the reply holds for every recipient accepted before.
    Data,
    /// The content up to its final dot, or the BDAT that holds it: the reply holds for every recipient accepted before.
    Content,
}

/// Why a session is of no further use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionFailure {
    /// The greeting was not 220.
    #[error("the server refused the session in its greeting: {0}")]
    Greeting(Reply),
    /// EHLO, and HELO after a 5yz to EHLO, were refused.
    #[error("the server refused EHLO: {0}")]
    Ehlo(Reply),
    /// TLS is required and STARTTLS is not offered.
    #[error("the server does not offer STARTTLS; nothing was sent in clear")]
    TlsNotOffered,
    /// STARTTLS was refused.
    #[error("the server refused STARTTLS: {0}")]
    StartTls(Reply),
    /// The server offers no AUTH mechanism that the credentials can be used with; the mechanisms it offers.
    #[error(
        "the server offers no AUTH mechanism for these credentials (a password: SCRAM-SHA-256, PLAIN, LOGIN; an access \
         token: XOAUTH2); it offers: {}",
        offered(.0)
    )]
    NoCommonMechanism(Vec<String>),
    /// The server refused the credentials.
    #[error("the server refused the credentials: {0}")]
    Authentication(Reply),
    /// The server does not follow the protocol, or the driver did not.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// 421 while no command was outstanding, or in answer to RSET.
    #[error("the server closed the session: {0}")]
    Unexpected421(Reply),
    /// The connection broke.
    #[error("the connection was lost: {0}")]
    Lost(String),
}

impl SessionFailure {
    /// The reply that caused the failure, if one did.
    pub fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Greeting(reply)
            | Self::Ehlo(reply)
            | Self::StartTls(reply)
            | Self::Authentication(reply)
            | Self::Unexpected421(reply) => Some(reply),
            Self::TlsNotOffered | Self::NoCommonMechanism(_) | Self::Protocol(_) | Self::Lost(_) => None,
        }
    }
}

fn offered(mechanisms: &[String]) -> String {
    if mechanisms.is_empty() { "none".to_owned() } else { mechanisms.join(" ") }
}
