//! Carries out a [`settlement`](super::settlement) decision: one atomic change of the spool that ends or reschedules the
//! message and, where its sender must be told, accepts the notification in the same instant.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use smtp_protocol::Return;

use super::answer;
use super::line::{self, Line};
use super::settlement::{self, Decision, Rules};
use crate::attempt::{self, Attempt};
use crate::config::{AmbiguousDelivery, Policy};
use crate::delivery::Fate;
use crate::dsn::{self, Notice, Returned};
use crate::handover::Tombstones;
use crate::message::{DeliveryState, Envelope, MessageId, Timestamp};
use crate::messages::Messages;
use crate::spool::{Fates, Settlement, Spool, SpoolError};
use crate::submission::Accepted;

/// How much of a message's beginning is searched for its header section.
const HEADER_SECTION: u64 = 64 * 1024;
/// The largest message that is returned whole, where its sender asked for it; of a larger one the header section.
const RETURNED: u64 = 1024 * 1024;

/// The fates of one part of a message, to be settled.
#[derive(Debug)]
pub(super) struct Unsettled {
    pub(super) id: MessageId,
    /// Recipient index and fate.
    pub(super) fates: Vec<(usize, Fate)>,
    /// The attempts they come from; none for recipients without a route.
    pub(super) attempts: Vec<Attempt>,
    /// Whether no other part of the message is being attempted.
    pub(super) last: bool,
}

impl Unsettled {
    /// Recipients that an upstream has taken responsibility for.
    pub(super) fn delivered(&self) -> u64 {
        let delivered = |(_, fate): &&(usize, Fate)| matches!(fate, Fate::Delivered(_) | Fate::Relayed(_));
        self.fates.iter().filter(delivered).count() as u64
    }
}

/// A settlement that could not be stored.
#[derive(Debug)]
pub(super) struct Unrecorded {
    pub(super) id: MessageId,
    /// Recipients that an upstream has taken responsibility for, of which nothing is known on disk.
    pub(super) delivered: u64,
    pub(super) error: SpoolError,
}

/// What is on stable storage now.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) id: MessageId,
    pub(super) last: bool,
    /// How long the message waits now; `None` when it is done. Not a time, as the clock may step while this is on its way.
    pub(super) wait: Option<Duration>,
    /// The notification to its sender, now a message of its own.
    pub(super) notification: Option<Accepted>,
    /// The recipients that are queued no longer, by what became of them.
    pub(super) ended: Fates,
    /// Whether it is held from now on, as it may have arrived.
    pub(super) held: bool,
    /// What there is to log of the recipients.
    pub(super) recipients: Vec<Line>,
}

/// Settles: the client of a message in transit is answered; of any other it is durable when it returns.
///
/// # Errors
/// When the message cannot be read or the spool takes no change; nothing has changed then.
pub(super) async fn settle(
    Messages { spool, transit }: &Messages,
    tombstones: &Tombstones,
    policy: &Policy,
    unsettled: Unsettled,
) -> Result<Settled, SpoolError> {
    if let Some(passing) = transit.take(unsettled.id) {
        let reply = answer::reply(&passing.envelope, &unsettled.fates);
        let settled = answer::settled(&passing.envelope, unsettled);
        passing.answer(reply);
        return Ok(settled);
    }
    let stored = spool.load(unsettled.id).await?;
    let now = SystemTime::now();
    let rules = Rules {
        retry: policy.retry,
        expire_after: policy.expire_after,
        now: Timestamp::from(now),
        jitter: rand::random(),
        hold_ambiguous: policy.ambiguous_delivery == AmbiguousDelivery::Hold,
    };
    let handed_over_by = stored.state.handed_over_by;
    let decision =
        settlement::decide(&stored.envelope, stored.state, &unsettled.fates, unsettled.last, &rules);
    let notification = notification(spool, policy, &stored.envelope, decision.notices, now).await;
    let accept: Vec<_> = notification.iter().cloned().collect();
    let Decision { mut state, ended, results, held, .. } = decision;
    let Unsettled { id, fates, attempts, last } = unsettled;
    let due_at = state.as_ref().map(DeliveryState::next_due);
    let next = due_at.filter(|due_at| last && *due_at < Timestamp::NEVER);
    let recipients = line::lines(&stored.envelope, &fates, &attempts, &results, next);
    let wait = due_at.map(|due_at| due_at.since(rules.now));
    if let Some(state) = &mut state {
        remember(state, &fates, &attempts, rules.now);
    }
    let under_way = if last { Vec::new() } else { under_way(state.as_ref(), &fates) };
    let settlement = Settlement { id, state, fates: ended, under_way, accept };
    tombstones.settle(spool, handed_over_by, settlement).await?;
    let accepted = notification.map(|(envelope, state, _)| Accepted::stored(envelope, state));
    Ok(Settled { id, last, wait, notification: accepted, ended, held, recipients })
}

/// The recipients that other parts of the message may be on their way to.
fn under_way(state: Option<&DeliveryState>, fates: &[(usize, Fate)]) -> Vec<usize> {
    let decided: HashSet<usize> = fates.iter().map(|(index, _)| *index).collect();
    state.into_iter().flat_map(DeliveryState::queued).filter(|index| !decided.contains(index)).collect()
}

/// Keeps the attempts with the state, for people who ask why the message is still here.
fn remember(state: &mut DeliveryState, fates: &[(usize, Fate)], attempts: &[Attempt], now: Timestamp) {
    let fates: HashMap<usize, &Fate> = fates.iter().map(|(index, fate)| (*index, fate)).collect();
    for attempt in attempts {
        attempt::remember(&mut state.history, attempt, |index| Some(fates.get(&index)?.text()), now);
    }
}

/// The message that tells the sender, unless there is nothing to tell or nobody to tell it to.
async fn notification(
    spool: &Spool,
    policy: &Policy,
    envelope: &Envelope,
    mut notices: Vec<Notice>,
    now: SystemTime,
) -> Option<(Envelope, DeliveryState, Bytes)> {
    notices.retain(Notice::is_wanted);
    if notices.is_empty() || envelope.reverse_path.is_empty() {
        return None;
    }
    let accepted_at = Timestamp::from(now);
    let id = MessageId::new(accepted_at, rand::random());
    // RFC 3461 §4.3: RET is about failures; other notifications return the header section.
    let full = envelope.ret == Some(Return::Full)
        && envelope.size <= RETURNED
        && notices.iter().any(|notice| notice.reason.is_failure());
    let original = beginning(spool, envelope.id, if full { RETURNED } else { HEADER_SECTION }).await;
    let report = dsn::Report {
        envelope,
        returned: if full { Returned::Full(&original) } else { Returned::Headers(&original) },
        notices: &notices,
        hostname: &policy.hostname,
        id,
        now,
    };
    let dsn::Composed { content, smtp_utf8 } = dsn::compose(&report);
    let notification = Envelope {
        id,
        reverse_path: String::new(),
        recipients: vec![envelope.reverse_path.as_str().into()],
        eight_bit: !content.is_ascii(),
        smtp_utf8,
        ret: None,
        envelope_id: None,
        size: content.len() as u64,
        accepted_at,
        identity: None,
        user: None,
    };
    Some((notification, DeliveryState::new(1, accepted_at), Bytes::from(content)))
}

/// At most `octets` of the beginning of the content; what cannot be read is left out of the notification.
async fn beginning(spool: &Spool, id: MessageId, octets: u64) -> Vec<u8> {
    let mut read = Vec::new();
    let octets = usize::try_from(octets).unwrap_or(usize::MAX);
    let Ok(mut content) = spool.content(id) else { return read };
    while read.len() < octets {
        match content.next().await {
            Ok(Some(chunk)) => read.extend_from_slice(&chunk[..chunk.len().min(octets - read.len())]),
            Ok(None) | Err(_) => break,
        }
    }
    read
}
