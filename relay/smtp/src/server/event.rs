//! What a server session asks of its driver.

use crate::address::{ForwardPath, ReversePath};
use crate::auth::PlainCredentials;
use crate::dsn_parameter::{EnvelopeId, Notify, OriginalRecipient, Return};
use crate::parameter::Body;
use bytes::Bytes;
use std::fmt;

/// The next thing for the driver to do.
///
/// | event | answer |
/// |---|---|
/// | `StartTls` | [`tls_established`](super::ServerSession::tls_established), or close the connection |
/// | `Authenticate` | [`respond`](super::ServerSession::respond): 235, 535 ([`crate::auth::authentication_failed`]) or 454 |
/// | `LookUpKeys` | [`provide_keys`](super::ServerSession::provide_keys), or `respond` with a refusal |
/// | `Proof` | `respond`: 235 where it is proven, else 535; 454 |
/// | `Mail` | `respond`: 250, 4yz or 5yz |
/// | `Recipient` | `respond`: 250, 4yz or 5yz |
/// | `Data` | `respond`: 354, 4yz or 5yz; asked once a message, behind DATA as behind the first BDAT |
/// | `Content` | none |
/// | `EndOfContent` | `respond`: 250, 4yz or 5yz |
/// | `Abort`, `Closed` | none |
///
/// 421 in any place ends the session.
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
    /// SCRAM: give the keys of this user and a fresh nonce. Give keys for a user who does not exist too
    /// ([`crate::scram::ScramKeys`] says which), or whoever asks learns who exists.
    LookUpKeys {
        /// The user name.
        username: String,
    },
    /// SCRAM: the user has proven to know the password, or has not. A positive answer to a failed proof becomes 535.
    Proof {
        /// The user name.
        username: String,
        /// Whether the password is known.
        proven: bool,
    },
    /// A mail transaction may begin; answer 250 or a refusal.
    Mail {
        /// Where non-delivery would be reported.
        reverse_path: ReversePath,
        /// The size the client declared, in octets.
        size: Option<u64>,
        /// What the client declared about the content's octets.
        body: Body,
        /// Whether the client asked for SMTPUTF8 (RFC 6531 §3.4): the message may go only where it is offered.
        smtputf8: bool,
        /// RET: how much of the message a notification returns.
        ret: Option<Return>,
        /// ENVID: the sender's name for the transaction.
        envelope_id: Option<EnvelopeId>,
    },
    /// One more recipient; answer 250 or a refusal.
    Recipient {
        /// The recipient, without a source route.
        forward_path: ForwardPath,
        /// NOTIFY: which notifications are asked for.
        notify: Option<Notify>,
        /// ORCPT: the recipient as first written.
        original_recipient: Option<OriginalRecipient>,
    },
    /// The client wants to send content; answer 354 or a refusal. Behind BDAT the 354 is not sent, a refusal is once the
    /// chunk has been read, and it ends the transaction.
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
            Self::LookUpKeys { username } => write!(f, "LookUpKeys({username})"),
            Self::Proof { username, proven } => write!(f, "Proof({username} proven={proven})"),
            Self::Mail { reverse_path, size, body, smtputf8, ret, envelope_id } => {
                write!(f, "Mail({reverse_path} size={size:?} body={body:?}")?;
                if *smtputf8 {
                    f.write_str(" SMTPUTF8")?;
                }
                show(f, "RET", ret.as_ref())?;
                show(f, "ENVID", envelope_id.as_ref())?;
                f.write_str(")")
            }
            Self::Recipient { forward_path, notify, original_recipient } => {
                write!(f, "Recipient({forward_path}")?;
                show(f, "NOTIFY", notify.as_ref())?;
                show(f, "ORCPT", original_recipient.as_ref())?;
                f.write_str(")")
            }
            Self::Data => f.write_str("Data"),
            Self::Content(slice) => write!(f, "Content({} octets)", slice.len()),
            Self::EndOfContent => f.write_str("EndOfContent"),
            Self::Abort => f.write_str("Abort"),
            Self::Closed => f.write_str("Closed"),
        }
    }
}

fn show(f: &mut fmt::Formatter<'_>, keyword: &str, value: Option<&impl fmt::Display>) -> fmt::Result {
    value.map_or(Ok(()), |value| write!(f, " {keyword}={value}"))
}
