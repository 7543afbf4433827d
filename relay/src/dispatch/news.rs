//! What dispatch has decided or learnt that people and metrics are told of.

use std::sync::Arc;
use std::time::Duration;

use super::line::Line;
use super::ways::Change;
use crate::delivery::{Fate, Hold, ReplyCounts};
use crate::message::MessageId;
use crate::order::Act;
use crate::spool::SpoolError;

/// Something worth a log line or a count; [`observer`](super::observer) makes both of it.
#[derive(Debug)]
pub(super) enum News {
    /// The connections that this relay may have with the upstream have been decided.
    Share { upstream: Arc<str>, connections: u32 },
    /// A session stands; `again`: the first after failures.
    SessionOpened { upstream: Arc<str>, again: bool },
    /// A session could not be opened; `known`: and the last one for the same reason.
    SessionNotOpened { upstream: Arc<str>, reason: String, credentials_rejected: bool, known: bool },
    /// The upstream takes no session beside those that stand.
    SessionDeclined { upstream: Arc<str>, reason: String },
    /// So many sessions are worth it now.
    Allowed { upstream: Arc<str>, sessions: usize },
    /// So many sessions are open now.
    OpenSessions { upstream: Arc<str>, count: usize },
    /// A session broke under the message before it had an outcome.
    SessionLost { upstream: Arc<str>, id: MessageId, reason: String },
    /// Recipients of one message have their fates: so many of each kind, by replies in a transaction or without one.
    Attempted { upstream: Arc<str>, replies: Option<ReplyCounts>, delivered: u64, deferred: u64, failed: u64 },
    /// The outcome of an attempt is on stable storage.
    Settled { id: MessageId, recipients: Vec<Line> },
    /// A reply asks to leave the upstream alone; `known`: the last one asked for the same.
    Held { upstream: Arc<str>, hold: Hold, known: bool },
    /// A person has ordered that the upstream is given no more mail, or that it is given some again.
    Drained { upstream: Arc<str>, drained: bool },
    /// The configuration names the upstream no more, and its last session has ended.
    Gone { upstream: Arc<str> },
    /// Messages of a route go another way now.
    Way(Change),
    /// The upstream takes mail again.
    TakesMailAgain { upstream: Arc<str> },
    /// So many recipients were given up.
    Expired(u64),
    /// The sender of `about` is told by a notification, which is a message of its own.
    Notified { id: MessageId, about: MessageId },
    /// The wall clock has stepped back, so that what waits has been made due so much earlier.
    SteppedBack(Duration),
    /// A person's order has been carried out; the recipients are those that were queued.
    Obeyed { id: MessageId, act: Act, recipients: Vec<String> },
    /// So many recipients of a message may have it already.
    Ambiguous { id: MessageId, upstream: Arc<str>, recipients: u64, reason: String },
    /// The message is held, as it may have arrived.
    HeldAsAmbiguous { id: MessageId },
    /// A settlement could not be stored, by which so many recipients are delivered.
    Unrecorded { id: MessageId, delivered: u64, error: SpoolError },
    /// A message could not be read, and this is done about it.
    Unreadable { id: MessageId, error: SpoolError, remedy: Remedy },
}

impl News {
    /// Counts the fates.
    pub(super) fn attempted(upstream: &Arc<str>, fates: &[Fate], replies: Option<ReplyCounts>) -> Self {
        let (mut delivered, mut deferred, mut failed) = (0, 0, 0);
        for fate in fates {
            match fate {
                Fate::Delivered(_) | Fate::Relayed(_) => delivered += 1,
                Fate::Refused(_) | Fate::Unsupported(_) => failed += 1,
                Fate::Deferred(_) | Fate::Ambiguous(_) | Fate::Held(_) => deferred += 1,
            }
        }
        Self::Attempted { upstream: upstream.clone(), replies, delivered, deferred, failed }
    }
}

/// What is done about a message that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nothing: it is gone.
    None,
    /// It is tried again later.
    Later,
    /// It goes into quarantine.
    Quarantine,
}
