//! The messages in flight: which parts of each are still under way and which outcomes are to be settled.
//!
//! Pure. Settlements of one message follow each other, because each builds on the state that the one before has stored; so
//! every method that may allow the next one returns it.

use std::collections::BTreeMap;

use super::settle::Unsettled;
use crate::attempt::Attempt;
use crate::delivery::Fate;
use crate::message::MessageId;

/// All messages in flight.
#[derive(Debug, Default)]
pub(super) struct InFlight(BTreeMap<MessageId, Message>);

#[derive(Debug, Default)]
struct Message {
    /// Parts that are planned and have no outcome yet.
    parts: u32,
    /// Outcomes that no settlement covers yet. Boxed, because few have any and a million messages may be here.
    outcomes: Option<Box<Outcomes>>,
    /// Whether a settlement is under way.
    settling: bool,
}

#[derive(Debug, Default)]
struct Outcomes {
    /// Recipient index and fate.
    fates: Vec<(usize, Fate)>,
    /// The attempts they come from.
    attempts: Vec<Attempt>,
}

impl InFlight {
    /// The message, or a part of it planned anew, now travels in `parts` more parts; `decided` are recipients whose fate needs
    /// no attempt.
    pub(super) fn planned(
        &mut self,
        id: MessageId,
        parts: u32,
        decided: Vec<(usize, Fate)>,
    ) -> Option<Unsettled> {
        let message = self.0.entry(id).or_default();
        message.parts += parts;
        if !decided.is_empty() {
            message.outcomes.get_or_insert_default().fates.extend(decided);
        }
        self.next(id)
    }

    /// One part is to be planned anew: it ends without an outcome, and [`planned`](Self::planned) follows.
    pub(super) fn replanned(&mut self, id: MessageId) {
        if let Some(message) = self.0.get_mut(&id) {
            message.parts = message.parts.saturating_sub(1);
        }
    }

    /// One part has its outcome: a fate for each recipient of the attempt. Ignored for a message that is no longer in flight.
    pub(super) fn outcome(&mut self, id: MessageId, fates: Vec<Fate>, attempt: Attempt) -> Option<Unsettled> {
        let message = self.0.get_mut(&id)?;
        message.parts = message.parts.saturating_sub(1);
        let outcomes = message.outcomes.get_or_insert_default();
        outcomes.fates.extend(attempt.recipients.iter().copied().zip(fates));
        outcomes.attempts.push(attempt);
        self.next(id)
    }

    /// The settlement under way is on stable storage. The message is in flight no longer when it was the last.
    pub(super) fn settled(&mut self, id: MessageId, last: bool) -> Option<Unsettled> {
        if last {
            self.0.remove(&id);
            return None;
        }
        self.0.get_mut(&id)?.settling = false;
        self.next(id)
    }

    /// Takes back a message of which all parts still wait, so many: nothing is being done about it from here on. False, and
    /// nothing has changed, when a session has a part of it, or one is being planned, or an outcome is to be settled.
    pub(super) fn withdraw(&mut self, id: MessageId, waiting: u32) -> bool {
        let idle = |message: &Message| {
            !message.settling && message.outcomes.is_none() && message.parts == waiting && waiting > 0
        };
        self.0.get(&id).is_some_and(idle) && self.0.remove(&id).is_some()
    }

    /// Nothing more is done about the message.
    pub(super) fn forget(&mut self, id: MessageId) {
        self.0.remove(&id);
    }

    /// The settlement that may begin now: there are outcomes, or no part is left.
    fn next(&mut self, id: MessageId) -> Option<Unsettled> {
        let message = self.0.get_mut(&id)?;
        if message.settling || (message.outcomes.is_none() && message.parts > 0) {
            return None;
        }
        message.settling = true;
        let Outcomes { fates, attempts } = message.outcomes.take().map_or_else(Outcomes::default, |all| *all);
        Some(Unsettled { id, fates, attempts, last: message.parts == 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const ID: MessageId = MessageId(1);

    fn deferred(index: usize) -> (usize, Fate) {
        (index, Fate::Deferred("busy".into()))
    }

    fn outcome(messages: &mut InFlight, index: usize) -> Option<Unsettled> {
        let (upstream, took) = ("ses".into(), Duration::ZERO);
        let attempt = Attempt { upstream, address: None, took, recipients: [index].into() };
        messages.outcome(ID, vec![deferred(index).1], attempt)
    }

    fn shape(unsettled: Option<Unsettled>) -> Option<(Vec<usize>, bool)> {
        unsettled.map(|unsettled| (unsettled.fates.iter().map(|(index, _)| *index).collect(), unsettled.last))
    }

    #[test]
    fn settlements_of_one_message_follow_each_other_and_the_last_ends_it() {
        let mut messages = InFlight::default();
        assert_eq!(shape(messages.planned(ID, 3, Vec::new())), None);
        assert_eq!(shape(outcome(&mut messages, 0)), Some((vec![0], false)));
        assert_eq!(shape(outcome(&mut messages, 1)), None, "one settlement at a time");
        assert_eq!(shape(outcome(&mut messages, 2)), None);
        assert_eq!(shape(messages.settled(ID, false)), Some((vec![1, 2], true)));
        assert_eq!(shape(messages.settled(ID, true)), None);
        assert_eq!(shape(outcome(&mut messages, 0)), None, "it is gone");
    }

    #[test]
    fn a_message_without_a_recipient_left_is_settled_at_once() {
        assert_eq!(shape(InFlight::default().planned(ID, 0, Vec::new())), Some((vec![], true)));
    }

    #[test]
    fn recipients_without_a_route_do_not_wait_for_the_others() {
        let mut messages = InFlight::default();
        assert_eq!(shape(messages.planned(ID, 1, vec![deferred(4)])), Some((vec![4], false)));
    }

    #[test]
    fn only_a_message_whose_parts_all_wait_is_taken_back() {
        let mut messages = InFlight::default();
        messages.planned(ID, 2, Vec::new());
        assert!(!messages.withdraw(ID, 1), "a session has the other part");
        assert!(messages.withdraw(ID, 2) && !messages.withdraw(ID, 2));
        messages.planned(ID, 2, Vec::new());
        outcome(&mut messages, 0);
        assert!(!messages.withdraw(ID, 1), "an outcome is being settled");
        assert!(!InFlight::default().withdraw(ID, 0), "it is being planned");
    }

    #[test]
    fn a_part_planned_anew_keeps_the_message_in_flight() {
        let mut messages = InFlight::default();
        messages.planned(ID, 1, Vec::new());
        messages.replanned(ID);
        assert_eq!(shape(messages.planned(ID, 2, Vec::new())), None);
        assert_eq!(shape(outcome(&mut messages, 0)), Some((vec![0], false)));
    }
}
