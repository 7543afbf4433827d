//! The sending side of SMTP: [`ClientSession`] (RFC 5321 §3 and §4, RFC 1870, 2920, 3030, 3207, 3461, 4954, 6152, 6531).
//!
//! Not here: where to connect and when, the TLS handshake, time (the driver measures
//! [`ClientSession::read_timeout`]), what a reply means for a message.

mod authentication;
mod config;
mod content;
mod event;
mod scram;
mod session;
mod transaction;

pub use authentication::{AccessToken, Credentials};
pub use config::{ClientConfig, ClientTls, Transaction, TransactionRecipient, Unmet};
pub use event::{
    ClientEvent, RecipientReply, SessionFailure, TransactionCommand, TransactionReplies, Undecided,
};
pub use session::ClientSession;
