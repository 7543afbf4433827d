//! What an attempt's fates mean for the message: its next state, when it is due again, whether its sender must be told.
//!
//! Pure; the driver stores the decision and sends the notification.

use std::time::Duration;

use crate::delivery::{Fate, Hold, HoldKind, Obstacle};
use crate::dsn::{Notice, Reason};
use crate::message::{DeliveryState, Envelope, Recipient, RecipientState, Timestamp};
use crate::queue::schedule::{self, RetryPolicy};
use crate::spool::{self, Fates};

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
    /// Whether a message that may have arrived is held.
    pub(super) hold_ambiguous: bool,
}

/// What is to be stored and told.
#[derive(Debug, PartialEq)]
pub(super) struct Decision {
    /// The message's state from now on; `None`: every recipient's fate is known, the message goes.
    pub(super) state: Option<DeliveryState>,
    /// What there is to tell the sender, whether or not it wants to hear it.
    pub(super) notices: Vec<Notice>,
    /// How many recipients are queued no longer, by what became of them.
    pub(super) ended: Fates,
    /// Where the recipients given stand now, by index.
    pub(super) results: Vec<(usize, RecipientState)>,
    /// Whether the message is held from now on, as it may have arrived.
    pub(super) held: bool,
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
    let mut ended = Fates::default();
    let mut results = Vec::with_capacity(fates.len());
    let mut held = false;
    // As Notice::is_wanted: who is told is part of the account.
    let told = |recipient: &Recipient| !envelope.reverse_path.is_empty() && recipient.notify_of_failure();
    let failed =
        |recipient| if told(recipient) { spool::Fate::FailedNotified } else { spool::Fate::FailedUnnotified };
    for (index, fate) in fates {
        let (Some(recipient), Some(address)) =
            (state.recipients.get_mut(*index), envelope.recipients.get(*index))
        else {
            continue;
        };
        if *recipient != RecipientState::Queued {
            continue;
        }
        let notice = |reason| Notice { recipient: address.clone(), reason };
        match fate {
            Fate::Delivered(_) => {
                *recipient = RecipientState::Delivered;
                ended.add(spool::Fate::Delivered, 1);
            }
            Fate::Relayed(reply) => {
                *recipient = RecipientState::Delivered;
                ended.add(spool::Fate::Delivered, 1);
                notices.push(notice(Reason::Relayed(reply.clone())));
            }
            Fate::Refused(reply) => {
                *recipient = RecipientState::Failed;
                ended.add(failed(address), 1);
                notices.push(notice(Reason::Refused(reply.clone())));
            }
            Fate::Unsupported(unmet) => {
                *recipient = RecipientState::Failed;
                ended.add(failed(address), 1);
                notices.push(notice(Reason::Unsupported(*unmet)));
            }
            Fate::Ambiguous(_) if rules.hold_ambiguous => held = true,
            Fate::Deferred(Obstacle { why: obstacle, .. })
            | Fate::Ambiguous(obstacle)
            | Fate::Held(Hold { why: obstacle, .. })
                if expired =>
            {
                *recipient = RecipientState::Expired;
                ended.add(spool::Fate::Expired, 1);
                notices.push(notice(Reason::Expired(obstacle.clone())));
            }
            Fate::Deferred(_) | Fate::Ambiguous(_) | Fate::Held(_) => {}
        }
        results.push((*index, *recipient));
    }
    state.held |= held;
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
    Decision { state: remaining.then_some(state), notices, ended, results, held }
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
        Some((
            _,
            Fate::Deferred(Obstacle { why: obstacle, .. })
            | Fate::Ambiguous(obstacle)
            | Fate::Held(Hold { why: obstacle, .. }),
        )) => obstacle.clone(),
        _ => "it could not be delivered yet".to_owned(),
    };
    state.queued().filter_map(move |index| {
        let recipient = envelope.recipients.get(index)?.clone();
        Some(Notice { recipient, reason: Reason::Delayed { obstacle: obstacle(index), until } })
    })
}

/// How long the message waits without having been attempted: its undecided recipients are all held.
fn uncharged_wait(fates: &[(usize, Fate)], rules: &Rules) -> Option<Duration> {
    if fates.iter().any(|(_, fate)| matches!(fate, Fate::Deferred(_) | Fate::Ambiguous(_))) {
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
    use smtp_protocol::{Notify, Reply};

    fn delivered() -> Fate {
        Fate::Delivered(Reply::new(250, (2, 0, 0), "ok"))
    }

    fn rules(now: u64) -> Rules {
        let retry = RetryPolicy { minimum: Duration::from_secs(60), maximum: Duration::from_secs(3600) };
        Rules {
            retry,
            expire_after: Duration::from_secs(1000),
            now: Timestamp(now),
            jitter: 0.5,
            hold_ambiguous: false,
        }
    }

    fn fates<const N: usize>(counts: [(spool::Fate, u64); N]) -> Fates {
        let mut fates = Fates::default();
        counts.into_iter().for_each(|(fate, recipients)| fates.add(fate, recipients));
        fates
    }

    fn decide_for(fates: &[Fate], last: bool, now: u64) -> Decision {
        let fates: Vec<_> = fates.iter().cloned().enumerate().collect();
        let state = DeliveryState::new(fates.len(), Timestamp(0));
        decide(&Envelope::example(fates.len()), state, &fates, last, &rules(now))
    }

    #[test]
    fn a_message_goes_when_every_fate_is_known() {
        let refused = Fate::Refused(Reply::new(550, (5, 1, 1), "unknown"));
        let decision = decide_for(&[delivered(), refused], true, 10);
        assert_eq!(decision.state, None);
        assert_eq!(decision.notices[0].recipient.address, "r1@example.net");
        assert_eq!(decision.ended, fates([(spool::Fate::Delivered, 1), (spool::Fate::FailedNotified, 1)]));
    }

    #[test]
    fn a_failure_that_nobody_is_told_of_is_counted_as_such() {
        let refused = [(0, Fate::Refused(Reply::new(550, (5, 1, 1), "unknown")))];
        let decide = |envelope: &Envelope| {
            decide(envelope, DeliveryState::new(1, Timestamp(0)), &refused, true, &rules(10)).ended
        };
        let untold = fates([(spool::Fate::FailedUnnotified, 1)]);
        assert_eq!(decide(&Envelope { reverse_path: String::new(), ..Envelope::example(1) }), untold);
        let never = Recipient { notify: Some(Notify::NEVER), ..Recipient::new("r0@example.net") };
        assert_eq!(decide(&Envelope { recipients: vec![never], ..Envelope::example(1) }), untold);
    }

    #[test]
    fn a_recipient_whose_fate_is_known_ends_only_once() {
        let state = decide_for(&[delivered(), Fate::Deferred("busy".into())], false, 10).state.unwrap();
        let again = [(0, Fate::Refused(Reply::new(550, (5, 1, 1), "unknown")))];
        let decision = decide(&Envelope::example(2), state, &again, true, &rules(10));
        assert_eq!((decision.ended, decision.notices.len()), (Fates::default(), 0));
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
    fn what_may_have_arrived_is_sent_again_or_held_and_then_does_not_expire() {
        let fates = [(0, Fate::Ambiguous("the session broke".into()))];
        let decide = |hold_ambiguous, now| {
            let rules = Rules { hold_ambiguous, ..rules(now) };
            decide(&Envelope::example(1), DeliveryState::new(1, Timestamp(0)), &fates, true, &rules)
        };
        let again = decide(false, 10);
        assert!(!again.held && again.state.is_some_and(|state| !state.held && state.attempts == 1));
        assert_eq!(decide(false, 1_000_001).state, None);
        for now in [10, 1_000_001] {
            let held = decide(true, now);
            assert!(held.held && held.notices.is_empty() && held.state.is_some_and(|state| state.held));
        }
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
        let decision =
            decide(&Envelope::example(1), DeliveryState::new(1, Timestamp(0)), &fates, true, &slow);
        let until = Timestamp(100_000_000);
        assert_eq!(decision.notices[0].reason, Reason::Delayed { obstacle: "busy".into(), until });
        let again = decide(&Envelope::example(1), decision.state.unwrap(), &fates, true, &slow);
        assert!(again.notices.is_empty() && again.state.is_some());
    }

    #[test]
    fn success_that_the_upstream_will_not_report_is_to_be_told() {
        let decision = decide_for(&[Fate::Relayed(Reply::new(250, (2, 0, 0), "ok"))], true, 10);
        assert_eq!((decision.state, decision.ended), (None, fates([(spool::Fate::Delivered, 1)])));
        assert!(matches!(decision.notices[..], [Notice { reason: Reason::Relayed(_), .. }]));
    }
}
