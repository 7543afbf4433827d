//! What an attempt's fates mean for the message: its next state, when it is due again, whether its sender must be told.
//!
//! Pure; the driver stores the decision and sends the notification.

use std::time::Duration;

use crate::delivery::{Fate, Hold, HoldKind};
use crate::dsn::{Notice, Reason};
use crate::message::{DeliveryState, Envelope, RecipientState, Timestamp};
use crate::queue::schedule::{self, RetryPolicy};

/// How long a message may be under way before its sender is told, if it wants to be: what sendmail and Exim wait as well.
const DELAY_REPORTED_AFTER: Duration = Duration::from_secs(4 * 3600);

/// The rules that apply at this moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) retry: RetryPolicy,
    pub(super) expire_after: Duration,
    pub(super) now: Timestamp,
    /// A random number in 0..1 that spreads retries.
    pub(super) jitter: f64,
}

/// What is to be stored and told.
#[derive(Debug, PartialEq)]
pub(super) struct Decision {
    /// The message's state from now on; `None`: every recipient's fate is known, the message goes.
    pub(super) state: Option<DeliveryState>,
    /// What there is to tell the sender, whether or not it wants to hear it.
    pub(super) notices: Vec<Notice>,
    /// How many recipients of this attempt had which fate.
    pub(super) counts: Counts,
}

/// Recipients by fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) delivered: u64,
    pub(super) deferred: u64,
    pub(super) failed: u64,
    pub(super) expired: u64,
}

/// Applies `fates` (recipient index and fate) to the state. `last` says that no other part of this message is being
/// attempted, so that a remaining recipient gets its next attempt scheduled.
pub(super) fn decide(
    envelope: &Envelope,
    mut state: DeliveryState,
    fates: &[(usize, Fate)],
    last: bool,
    rules: &Rules,
) -> Decision {
    let expired = schedule::expired(envelope.accepted_at, rules.expire_after, rules.now);
    let mut notices = Vec::new();
    let mut counts = Counts::default();
    for (index, fate) in fates {
        let (Some(recipient), Some(address)) =
            (state.recipients.get_mut(*index), envelope.recipients.get(*index))
        else {
            continue;
        };
        let notice = |reason| Notice { recipient: address.clone(), reason };
        match fate {
            Fate::Delivered(_) => {
                *recipient = RecipientState::Delivered;
                counts.delivered += 1;
            }
            Fate::Relayed(reply) => {
                *recipient = RecipientState::Delivered;
                counts.delivered += 1;
                notices.push(notice(Reason::Relayed(reply.clone())));
            }
            Fate::Refused(reply) => {
                *recipient = RecipientState::Failed;
                counts.failed += 1;
                notices.push(notice(Reason::Refused(reply.clone())));
            }
            Fate::Unsupported(unmet) => {
                *recipient = RecipientState::Failed;
                counts.failed += 1;
                notices.push(notice(Reason::Unsupported(*unmet)));
            }
            Fate::Deferred(obstacle) | Fate::Held(Hold { why: obstacle, .. }) if expired => {
                *recipient = RecipientState::Expired;
                counts.expired += 1;
                notices.push(notice(Reason::Expired(obstacle.clone())));
            }
            Fate::Deferred(_) | Fate::Held(_) => counts.deferred += 1,
        }
    }
    if last && let Some(wait) = uncharged_wait(fates, rules) {
        state.due_at = rules.now.after(wait);
    } else if last {
        state.attempts = state.attempts.saturating_add(1);
        state.due_at = schedule::next_attempt(&rules.retry, state.attempts, rules.jitter, rules.now);
    }
    if last && !state.delay_reported && rules.now.since(envelope.accepted_at) >= DELAY_REPORTED_AFTER {
        notices.extend(delays(envelope, &state, fates, rules));
        state.delay_reported = true;
    }
    let remaining = state.queued().next().is_some();
    Decision { state: remaining.then_some(state), notices, counts }
}

/// What there is to tell of recipients that are still to be delivered (RFC 3461 §4.1).
fn delays<'a>(
    envelope: &'a Envelope,
    state: &'a DeliveryState,
    fates: &'a [(usize, Fate)],
    rules: &Rules,
) -> impl Iterator<Item = Notice> + 'a {
    let until = envelope.accepted_at.after(rules.expire_after);
    let obstacle = |index: usize| match fates.iter().find(|(of, _)| *of == index) {
        Some((_, Fate::Deferred(obstacle) | Fate::Held(Hold { why: obstacle, .. }))) => obstacle.clone(),
        _ => "it could not be delivered yet".to_owned(),
    };
    state.queued().filter_map(move |index| {
        let recipient = envelope.recipients.get(index)?.clone();
        Some(Notice { recipient, reason: Reason::Delayed { obstacle: obstacle(index), until } })
    })
}

/// How long the message waits without having been attempted: its undecided recipients are all held.
fn uncharged_wait(fates: &[(usize, Fate)], rules: &Rules) -> Option<Duration> {
    if fates.iter().any(|(_, fate)| matches!(fate, Fate::Deferred(_))) {
        return None;
    }
    let wait = |fate: &Fate| match fate {
        Fate::Held(Hold { kind: HoldKind::Parked(wait), .. }) => Some(*wait),
        Fate::Held(_) => Some(rules.retry.minimum),
        _ => None,
    };
    fates.iter().filter_map(|(_, fate)| wait(fate)).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageId;
    use smtp_protocol::Reply;

    fn envelope(recipients: usize) -> Envelope {
        Envelope {
            id: MessageId(1),
            reverse_path: "a@example.com".into(),
            recipients: (0..recipients).map(|index| format!("r{index}@example.net").into()).collect(),
            eight_bit: false,
            smtp_utf8: false,
            ret: None,
            envelope_id: None,
            size: 1,
            accepted_at: Timestamp(0),
            identity: None,
            user: None,
        }
    }

    fn delivered() -> Fate {
        Fate::Delivered(Reply::new(250, (2, 0, 0), "ok"))
    }

    fn rules(now: u64) -> Rules {
        let retry = RetryPolicy { minimum: Duration::from_secs(60), maximum: Duration::from_secs(3600) };
        Rules { retry, expire_after: Duration::from_secs(1000), now: Timestamp(now), jitter: 0.5 }
    }

    fn decide_for(fates: &[Fate], last: bool, now: u64) -> Decision {
        let fates: Vec<_> = fates.iter().cloned().enumerate().collect();
        let state = DeliveryState::new(fates.len(), Timestamp(0));
        decide(&envelope(fates.len()), state, &fates, last, &rules(now))
    }

    #[test]
    fn a_message_goes_when_every_fate_is_known() {
        let refused = Fate::Refused(Reply::new(550, (5, 1, 1), "unknown"));
        let decision = decide_for(&[delivered(), refused], true, 10);
        assert_eq!(decision.state, None);
        assert_eq!(decision.notices[0].recipient.address, "r1@example.net");
        assert_eq!(decision.counts, Counts { delivered: 1, failed: 1, ..Counts::default() });
    }

    #[test]
    fn only_what_was_put_off_is_tried_again_later() {
        let decision = decide_for(&[delivered(), Fate::Deferred("busy".into())], true, 10);
        let state = decision.state.unwrap();
        assert_eq!(state.queued().collect::<Vec<_>>(), [1]);
        assert!(state.attempts == 1 && state.due_at > Timestamp(10));
        assert!(decision.notices.is_empty(), "so short a delay is not reported");
    }

    #[test]
    fn another_part_in_flight_keeps_the_attempt_open() {
        let decision = decide_for(&[delivered(), Fate::Deferred("busy".into())], false, 10);
        assert_eq!(decision.state.unwrap().attempts, 0);
    }

    #[test]
    fn a_message_that_the_upstream_did_not_judge_waits_without_being_charged() {
        let parked =
            || Fate::Held(Hold { kind: HoldKind::Parked(Duration::from_secs(900)), why: "quota".into() });
        let state = decide_for(&[delivered(), parked()], true, 10).state.unwrap();
        assert_eq!((state.attempts, state.due_at), (0, Timestamp(900_010)));
        let state = decide_for(&[parked(), Fate::Deferred("busy".into())], true, 10).state.unwrap();
        assert_eq!(state.attempts, 1, "another recipient was judged");
        let decision = decide_for(&[parked()], true, 1_000_001);
        assert!(matches!(&decision.notices[0].reason, Reason::Expired(last) if last == "quota"));
    }

    #[test]
    fn a_delay_beyond_the_expiry_is_a_failure() {
        let decision = decide_for(&[Fate::Deferred("busy".into())], true, 1_000_001);
        assert_eq!(decision.state, None);
        assert!(matches!(&decision.notices[0].reason, Reason::Expired(last) if last == "busy"));
    }

    #[test]
    fn a_long_delay_is_reported_once() {
        let fates = [(0, Fate::Deferred("busy".into()))];
        let slow = Rules { expire_after: Duration::from_secs(100_000), ..rules(4 * 3_600_000) };
        let decision = decide(&envelope(1), DeliveryState::new(1, Timestamp(0)), &fates, true, &slow);
        let until = Timestamp(100_000_000);
        assert_eq!(decision.notices[0].reason, Reason::Delayed { obstacle: "busy".into(), until });
        let again = decide(&envelope(1), decision.state.unwrap(), &fates, true, &slow);
        assert!(again.notices.is_empty() && again.state.is_some());
    }

    #[test]
    fn success_that_the_upstream_will_not_report_is_to_be_told() {
        let decision = decide_for(&[Fate::Relayed(Reply::new(250, (2, 0, 0), "ok"))], true, 10);
        assert_eq!((decision.state, decision.counts.delivered), (None, 1));
        assert!(matches!(decision.notices[..], [Notice { reason: Reason::Relayed(_), .. }]));
    }
}
