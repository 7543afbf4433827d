//! Whose turn it is in a session, and what was asked of the driver.

use super::reception::{Chunk, Reception};
use crate::auth::{self, Exchange};
use crate::reply::Reply;
use crate::scram::ClientFirst;

/// What the next octets are, or whose turn it is.
#[derive(Debug)]
pub(super) enum Phase {
    /// A command line.
    Command,
    /// A SASL response.
    Exchange(Exchange),
    /// The driver's answer is awaited.
    Question(Question),
    /// The driver's TLS handshake is awaited.
    Handshake,
    /// Content, of a message or of a chunk.
    Content(Reception),
    /// Nothing any more.
    Closed,
}

/// What the driver was asked.
#[derive(Debug)]
pub(super) enum Question {
    Authenticate {
        username: String,
    },
    Keys(Box<ClientFirst>),
    Proof {
        username: String,
        proven: bool,
    },
    Mail {
        smtputf8: bool,
    },
    Recipient,
    Data,
    /// The same, behind the first BDAT.
    FirstChunk(Chunk),
    EndOfContent,
}

impl Question {
    /// The reply that this question can have: a positive one cannot stand for a proof that failed, nor for keys that were
    /// asked for.
    pub(super) fn permitted(&self, reply: Reply) -> Reply {
        match self {
            Self::Keys(_) | Self::Proof { proven: false, .. } if reply.is_positive() => {
                auth::authentication_failed()
            }
            _ => reply,
        }
    }
}
