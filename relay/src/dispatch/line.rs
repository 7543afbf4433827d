//! What the log says of each recipient of a settlement. Pure; [`observer`](super::observer) writes it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::attempt::Attempt;
use crate::delivery::Fate;
use crate::message::{Envelope, RecipientState, Timestamp};

/// One recipient, and what an attempt has come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) recipient: String,
    /// Where it stands now.
    pub(super) state: RecipientState,
    /// The upstream; `None` when no route takes the recipient.
    pub(super) upstream: Option<Arc<str>>,
    /// Where the session led; `None` for a sandbox, and without one.
    pub(super) address: Option<SocketAddr>,
    pub(super) took: Option<Duration>,
    /// Whether the message is a notification that this relay, or the one it came from, has composed.
    pub(super) notification: bool,
    /// The upstream's reply, or why there is none.
    pub(super) text: String,
    /// When it is tried again; `None` when it is not, or when that is known only after the rest of the message.
    pub(super) next: Option<Timestamp>,
}

/// The lines of a settlement: `results` says where its recipients stand now, `next` when those that are left are tried again.
pub(super) fn lines(
    envelope: &Envelope,
    fates: &[(usize, Fate)],
    attempts: &[Attempt],
    results: &[(usize, RecipientState)],
    next: Option<Timestamp>,
) -> Vec<Line> {
    let texts: HashMap<usize, &Fate> = fates.iter().map(|(index, fate)| (*index, fate)).collect();
    let by: HashMap<usize, &Attempt> = attempts
        .iter()
        .flat_map(|attempt| attempt.recipients.iter().map(move |index| (*index, attempt)))
        .collect();
    let line = |(index, state): &(usize, RecipientState)| {
        let attempt = by.get(index);
        Some(Line {
            recipient: envelope.recipients.get(*index)?.address.clone(),
            state: *state,
            upstream: attempt.map(|attempt| attempt.upstream.clone()),
            address: attempt.and_then(|attempt| attempt.address),
            took: attempt.map(|attempt| attempt.took),
            notification: envelope.is_notification(),
            text: texts.get(index)?.text(),
            next: next.filter(|_| *state == RecipientState::Queued),
        })
    };
    results.iter().filter_map(line).collect()
}
