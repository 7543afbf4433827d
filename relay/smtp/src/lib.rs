//! SMTP as state machines: no IO, no clock, no DNS, no TLS, no task.
//!
//! [`ServerSession`] and [`ClientSession`] are fed with the octets a peer sent and hand back events to act upon and
//! octets to write. A driver owns the socket, the TLS handshake and the timers. Any split of the same input gives
//! the same events and the same output (content may be cut into other slices).
//!
//! | file | subject | specification |
//! |---|---|---|
//! | [`address`] | mailboxes and paths | RFC 5321 §4.1.2, RFC 6531 §3.3 |
//! | [`parameter`] | MAIL and RCPT parameters | RFC 1870, RFC 6152, RFC 4954 §5, RFC 6531 §3.4 |
//! | [`dsn_parameter`] | the values of RET, ENVID, NOTIFY, ORCPT | RFC 3461 §4, RFC 6533 §3 |
//! | [`xtext`] | how a text travels in a parameter | RFC 3461 §4 |
//! | [`command`] | command lines | RFC 5321 §4.1.1 |
//! | [`reply`] | replies, their encoding and reading | RFC 5321 §4.2, RFC 2034, RFC 3463 |
//! | [`extension`] | what a server offers in its EHLO reply | RFC 5321 §4.1.1.1 |
//! | [`mod@line`] | command lines out of octets, strict CRLF | RFC 5321 §2.3.8 |
//! | [`data`] | mail data: transparency, chunks, strict CRLF, limits | RFC 5321 §4.5.2, RFC 3030 |
//! | [`auth`] | the exchanges of AUTH | RFC 4954, RFC 4616 |
//! | [`scram`] | SCRAM-SHA-256, the server's side | RFC 5802, RFC 7677 |
//! | [`server`] | the receiving session | RFC 5321 §3, §4.1.4 |
//! | [`client`] | the sending session, with SCRAM-SHA-256 and XOAUTH2 | RFC 5321 §3, RFC 2920, RFC 7677 |
//!
//! Not here: BINARYMIME, conversion of 8-bit content, normalisation of internationalised addresses, channel binding.

pub mod address;
pub mod auth;
pub mod client;
pub mod command;
pub mod data;
pub mod dsn_parameter;
pub mod extension;
pub mod line;
pub mod parameter;
pub mod reply;
pub mod scram;
mod scram_arithmetic;
pub mod server;
pub mod xtext;

pub use address::{AddressError, ForwardPath, Mailbox, ReversePath};
pub use auth::{Mechanism, PlainCredentials};
pub use client::{
    AccessToken, ClientConfig, ClientEvent, ClientSession, ClientTls, Credentials, RecipientReply,
    SessionFailure, Transaction, TransactionCommand, TransactionRecipient, TransactionReplies, Undecided,
    Unmet,
};
pub use data::{BareNewline, ContentLimits};
pub use dsn_parameter::{EnvelopeId, Notify, OriginalRecipient, Return};
pub use extension::Extensions;
pub use parameter::Body;
pub use reply::{EnhancedStatusCode, Reply, ReplyCode, ReplyError, ReplyReader, Severity};
pub use scram::ScramKeys;
pub use server::{AuthOffer, Event, ServerConfig, ServerSession, ServerTimeouts, TlsOffer};
