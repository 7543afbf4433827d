//! What a server session asks of its driver.

use crate::address::{ForwardPath, ReversePath};
use crate::auth::PlainCredentials;
use crate::parameter::Body;
use bytes::Bytes;
use std::fmt;

/// The next thing for the driver to do.
///
/// Every accepted [`Mail`](Self::Mail) is followed by exactly one end: a 2yz answer to
/// [`EndOfContent`](Self::EndOfContent), or [`Abort`](Self::Abort). (A connection that breaks ends without either.)
/// `Debug` shows neither content nor passwords.
#[derive(Clone, PartialEq, Eq)]
pub enum Event {
    /// 220 is in the output: write it, do the TLS handshake, call `tls_established`. Hand in no octets before that.
    StartTls,
    /// Check these; answer 235 or 535 ([`crate::auth::authentication_failed`]).
    Authenticate(PlainCredentials),
    /// A mail transaction may begin; answer 250 or a refusal.
    Mail {
        /// Where non-delivery would be reported.
        reverse_path: ReversePath,
        /// The size the client declared, in octets.
        size: Option<u64>,
        /// What the client declared about the content's octets.
        body: Body,
    },
    /// One more recipient; answer 250 or a refusal.
    Recipient {
        /// The recipient.
        forward_path: ForwardPath,
    },
    /// The client wants to send content; answer 354 or a refusal.
    Data,
    /// A slice of the content: unstuffed, with CRLF line ends. No answer is awaited.
    Content(Bytes),
    /// The content is complete. Answer 250 only when it is kept; 4yz or 5yz ends the transaction too, and `Abort` follows.
    EndOfContent,
    /// The transaction ended without its content being accepted: drop the draft. No answer is awaited.
    Abort,
    /// The session is over: write the output, close the connection. The last event.
    Closed,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartTls => f.write_str("StartTls"),
            Self::Authenticate(credentials) => f.debug_tuple("Authenticate").field(credentials).finish(),
            Self::Mail { reverse_path, size, body } => {
                write!(f, "Mail({reverse_path} size={size:?} body={body:?})")
            }
            Self::Recipient { forward_path } => write!(f, "Recipient({forward_path})"),
            Self::Data => f.write_str("Data"),
            Self::Content(slice) => write!(f, "Content({} octets)", slice.len()),
            Self::EndOfContent => f.write_str("EndOfContent"),
            Self::Abort => f.write_str("Abort"),
            Self::Closed => f.write_str("Closed"),
        }
    }
}
