//! The order in which messages are due: in memory, rebuilt from the spool at start.
//!
//! Pure: no IO, no clock (`now` is passed in), no task. A message *waits* until it is due, is *ready* until it has its turn
//! ([`fair`]), then *in flight* until dispatch settles it or gives it a new due time. One that is due [`Timestamp::NEVER`] is *held*
//! until somebody releases it. The envelope and content stay in the
//! spool; a message costs about 120 bytes here. Retry times are computed in [`schedule`]. Called by dispatch.

pub mod fair;
pub mod schedule;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::message::{MessageId, Timestamp};
use fair::{Cost, Fair, Priority, Rank, Tenant};

/// Messages ordered by due time, on ties by id, which is the order of acceptance; of those that are due, tenants take turns.
///
/// Every message is held once: a second [`insert`](Queue::insert) of an id changes nothing.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: BTreeSet<(Timestamp, MessageId)>,
    /// What is due. A message that has left by another way than its turn is still in it and passed over.
    ready: Fair<MessageId>,
    messages: BTreeMap<MessageId, Slot>,
    in_flight: usize,
    /// How many of those that wait are held.
    held: usize,
    /// Those of the high class, which are few.
    high: BTreeSet<MessageId>,
    tenants: Tenants,
}

/// What is planned next costs a turn, whoever it goes to.
impl Cost for MessageId {
    fn cost(&self) -> u32 {
        1
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    due_at: Timestamp,
    tenant: Tenant,
    priority: Priority,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Ready,
    InFlight,
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a message that waits until `due_at`; false when the queue holds it already.
    ///
    /// `tenant` is whom the message is counted for: the identity that let its client in.
    pub fn insert(&mut self, id: MessageId, due_at: Timestamp, tenant: &str, priority: Priority) -> bool {
        if self.messages.contains_key(&id) {
            return false;
        }
        let tenant = Tenant(self.tenants.enter(tenant));
        if priority == Priority::High {
            self.high.insert(id);
        }
        self.messages.insert(id, Slot { due_at, tenant, priority, stage: Stage::Waiting });
        self.wait(id, due_at)
    }

    /// Takes the message that is due at `now` and has its turn, which is in flight from here on.
    pub fn due(&mut self, now: Timestamp) -> Option<MessageId> {
        while let Some((_, id)) = self.waiting.first().copied().filter(|(due_at, _)| *due_at <= now) {
            self.waiting.pop_first();
            let slot = self.messages.get_mut(&id).expect("what waits has a slot");
            slot.stage = Stage::Ready;
            self.ready.push(Rank { tenant: slot.tenant, priority: slot.priority }, id);
        }
        while let Some(id) = self.ready.pop() {
            if let Some(slot) = self.messages.get_mut(&id).filter(|slot| slot.stage == Stage::Ready) {
                slot.stage = Stage::InFlight;
                self.in_flight += 1;
                return Some(id);
            }
        }
        None
    }

    /// Takes this message if it is not in flight, due or not; it is from here on. False when it is, or is not here.
    pub fn take(&mut self, id: MessageId) -> bool {
        let Some(slot) = self.messages.get(&id).copied().filter(|slot| slot.stage != Stage::InFlight) else {
            return false;
        };
        self.leave(id, slot);
        self.set(id, Slot { stage: Stage::InFlight, ..slot });
        self.in_flight += 1;
        true
    }

    /// When the next message is due; in the past when some are due already, `None` when none waits but those that are held.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let waiting = self.waiting.first().map(|(due_at, _)| *due_at).filter(|at| *at < Timestamp::NEVER);
        if self.ready.is_empty() { waiting } else { Some(Timestamp(0)) }
    }

    /// Forgets a message, wherever it is: its last recipient's fate is known. False when it is not here.
    pub fn settle(&mut self, id: MessageId) -> bool {
        let Some(slot) = self.messages.remove(&id) else { return false };
        self.leave(id, slot);
        self.high.remove(&id);
        self.tenants.leave(slot.tenant.0);
        true
    }

    /// Lets a message, wherever it is, wait until `due_at`. False when it is not here.
    pub fn reschedule(&mut self, id: MessageId, due_at: Timestamp) -> bool {
        let Some(slot) = self.messages.get(&id).copied() else { return false };
        self.leave(id, slot);
        self.set(id, Slot { due_at, stage: Stage::Waiting, ..slot });
        self.wait(id, due_at)
    }

    /// Lets everything that waits be due `by` earlier, so that after a step back of the clock it waits no longer than it was to.
    /// Looks at every waiting message.
    pub fn hasten(&mut self, by: Duration) {
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        self.waiting = waiting.map(|(due_at, id)| (due_at.before(by), id)).collect();
        for (due_at, id) in &self.waiting {
            if let Some(slot) = self.messages.get_mut(id) {
                slot.due_at = *due_at;
            }
        }
    }

    fn wait(&mut self, id: MessageId, due_at: Timestamp) -> bool {
        self.held += usize::from(due_at == Timestamp::NEVER);
        self.waiting.insert((due_at, id))
    }

    fn leave(&mut self, id: MessageId, slot: Slot) {
        match slot.stage {
            Stage::Waiting => {
                self.held -= usize::from(slot.due_at == Timestamp::NEVER);
                self.waiting.remove(&(slot.due_at, id));
            }
            // It is passed over when its turn comes.
            Stage::Ready => {}
            Stage::InFlight => self.in_flight -= 1,
        }
    }

    fn set(&mut self, id: MessageId, slot: Slot) {
        self.messages.insert(id, slot);
    }

    /// What decides when the message has its turn; `None` when it is not here.
    #[must_use]
    pub fn rank(&self, id: MessageId) -> Option<Rank> {
        self.messages.get(&id).map(|slot| Rank { tenant: slot.tenant, priority: slot.priority })
    }

    /// All messages: waiting, ready and in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there is no message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Messages taken by [`due`](Queue::due) and neither settled nor rescheduled.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The message accepted first of all; its id tells when ([`MessageId`] starts with its time).
    #[must_use]
    pub fn oldest(&self) -> Option<MessageId> {
        self.messages.first_key_value().map(|(id, _)| *id)
    }

    /// How many messages of this class there are, and which of them was accepted first. Passes over those of the high class that are
    /// older than the first of the normal one.
    #[must_use]
    pub fn class(&self, priority: Priority) -> (usize, Option<MessageId>) {
        match priority {
            Priority::High => (self.high.len(), self.high.first().copied()),
            Priority::Normal => {
                let mut normal = self.messages.iter().filter(|(_, slot)| slot.priority == Priority::Normal);
                (self.messages.len() - self.high.len(), normal.next().map(|(id, _)| *id))
            }
        }
    }

    /// How many messages are held, and which of them was accepted first.
    #[must_use]
    pub fn held(&self) -> (usize, Option<MessageId>) {
        let first = || self.waiting.range((Timestamp::NEVER, MessageId(0))..).next().map(|(_, id)| *id);
        (self.held, if self.held > 0 { first() } else { None })
    }

    /// How many messages there are for each tenant that has any, in no order.
    pub fn tenants(&self) -> impl Iterator<Item = (&str, usize)> {
        self.tenants.counts()
    }
}

/// The tenants' names, each kept once; a slot refers to one by number. Numbers of tenants without messages are reused.
#[derive(Debug, Default)]
struct Tenants {
    numbers: HashMap<Arc<str>, u32>,
    entries: Vec<(Arc<str>, usize)>,
    free: Vec<u32>,
}

impl Tenants {
    fn enter(&mut self, name: &str) -> u32 {
        let number = match self.numbers.get(name) {
            Some(number) => *number,
            None => self.add(name.into()),
        };
        self.entries[number as usize].1 += 1;
        number
    }

    fn add(&mut self, name: Arc<str>) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.entries.push((name.clone(), 0));
            u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 identities")
        });
        self.entries[number as usize] = (name.clone(), 0);
        self.numbers.insert(name, number);
        number
    }

    fn leave(&mut self, number: u32) {
        let (name, count) = &mut self.entries[number as usize];
        *count -= 1;
        if *count == 0 {
            self.numbers.remove(name);
            self.free.push(number);
        }
    }

    fn counts(&self) -> impl Iterator<Item = (&str, usize)> {
        self.entries.iter().filter(|(_, count)| *count > 0).map(|(name, count)| (&**name, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_000);

    fn queue(messages: &[(u128, u64)]) -> Queue {
        let mut queue = Queue::new();
        for &(id, due_at) in messages {
            assert!(queue.insert(MessageId(id), Timestamp(due_at), "apps", Priority::Normal));
        }
        queue
    }

    #[test]
    fn each_class_has_its_depth_and_its_oldest() {
        let mut queue = queue(&[(2, 0), (3, 0)]);
        assert_eq!(queue.class(Priority::High), (0, None));
        for id in [1, 4] {
            queue.insert(MessageId(id), NOW, "urgent", Priority::High);
        }
        assert_eq!(queue.class(Priority::High), (2, Some(MessageId(1))));
        assert_eq!(queue.class(Priority::Normal), (2, Some(MessageId(2))));
        queue.settle(MessageId(1));
        queue.settle(MessageId(2));
        assert_eq!(queue.class(Priority::High), (1, Some(MessageId(4))));
        assert_eq!(queue.class(Priority::Normal), (1, Some(MessageId(3))));
    }

    fn drain(queue: &mut Queue, now: Timestamp) -> Vec<u128> {
        std::iter::from_fn(|| queue.due(now)).map(|id| id.0).collect()
    }

    #[test]
    fn messages_come_by_due_time_and_on_ties_in_the_order_of_acceptance() {
        let mut queue = queue(&[(3, 5), (1, 7), (2, 5), (4, 1_000), (5, 1_001)]);
        assert_eq!(drain(&mut queue, NOW), [2, 3, 1, 4]);
        assert_eq!(queue.next_due(), Some(Timestamp(1_001)));
        assert_eq!((queue.len(), queue.in_flight(), queue.oldest()), (5, 4, Some(MessageId(1))));
    }

    #[test]
    fn what_waits_is_due_earlier_once_hastened_and_can_still_be_taken_and_settled() {
        let mut queue = queue(&[(1, 5_000), (2, 9_000), (3, 0)]);
        assert_eq!(drain(&mut queue, NOW), [3]);
        queue.hasten(Duration::from_secs(4));
        assert_eq!(drain(&mut queue, NOW), [1]);
        assert_eq!(queue.next_due(), Some(Timestamp(5_000)));
        assert!(queue.settle(MessageId(2)) && queue.next_due().is_none());
    }

    #[test]
    fn what_is_held_is_never_due_and_is_counted_until_it_is_released() {
        let mut queue = queue(&[(1, 5_000), (2, u64::MAX), (3, u64::MAX)]);
        assert_eq!(queue.held(), (2, Some(MessageId(2))));
        assert!(queue.reschedule(MessageId(1), Timestamp::NEVER));
        assert_eq!((queue.held(), queue.next_due()), ((3, Some(MessageId(1))), None));
        queue.hasten(Duration::from_secs(4));
        assert_eq!((queue.held().0, queue.due(Timestamp(u64::MAX - 1))), (3, None));
        assert!(
            queue.take(MessageId(1)) && queue.reschedule(MessageId(2), NOW) && queue.settle(MessageId(3))
        );
        assert_eq!((queue.held(), drain(&mut queue, NOW)), ((0, None), vec![2]));
    }

    #[test]
    fn a_message_in_flight_is_not_given_out_twice_and_waits_again_once_rescheduled() {
        let mut queue = queue(&[(1, 0)]);
        assert_eq!(queue.due(NOW), Some(MessageId(1)));
        assert_eq!(queue.due(NOW), None);
        assert!(!queue.insert(MessageId(1), Timestamp(0), "apps", Priority::Normal), "held already");
        assert_eq!(queue.next_due(), None);
        assert!(queue.reschedule(MessageId(1), Timestamp(2_000)));
        assert_eq!((queue.in_flight(), queue.due(NOW)), (0, None));
        assert_eq!(queue.due(Timestamp(2_000)), Some(MessageId(1)));
    }

    #[test]
    fn a_settled_message_is_gone_whether_it_waited_or_was_in_flight() {
        let mut queue = queue(&[(1, 0), (2, 9)]);
        queue.due(NOW);
        assert!(queue.settle(MessageId(1)) && queue.settle(MessageId(2)));
        assert!(!queue.settle(MessageId(1)) && !queue.reschedule(MessageId(2), NOW));
        assert!(queue.is_empty() && queue.in_flight() == 0 && queue.due(NOW).is_none());
    }

    #[test]
    fn messages_are_counted_by_tenant() {
        let mut queue = Queue::new();
        for (id, tenant) in [(1, "a"), (2, "b"), (3, "a")] {
            queue.insert(MessageId(id), NOW, tenant, Priority::Normal);
        }
        queue.settle(MessageId(2));
        queue.insert(MessageId(4), NOW, "c", Priority::Normal);
        let mut counts: Vec<_> = queue.tenants().collect();
        counts.sort_unstable();
        assert_eq!(counts, [("a", 2), ("c", 1)]);
    }

    #[test]
    fn of_what_is_due_tenants_take_turns_and_the_high_class_goes_first() {
        let mut queue = Queue::new();
        for (id, tenant, priority) in [
            (1, "bulk", Priority::Normal),
            (2, "bulk", Priority::Normal),
            (3, "shop", Priority::Normal),
            (4, "reset", Priority::High),
        ] {
            queue.insert(MessageId(id), NOW, tenant, priority);
        }
        assert_eq!(drain(&mut queue, NOW), [4, 1, 3, 2]);
    }

    #[test]
    fn a_message_that_left_by_another_way_than_its_turn_is_passed_over() {
        let mut queue = queue(&[(1, 0), (2, 0), (3, 0), (4, 0)]);
        assert_eq!(queue.due(NOW), Some(MessageId(1)));
        assert!(queue.settle(MessageId(2)) && queue.take(MessageId(3)) && !queue.take(MessageId(3)));
        assert_eq!((queue.in_flight(), queue.next_due()), (2, Some(Timestamp(0))));
        assert_eq!(drain(&mut queue, NOW), [4]);
        assert_eq!(queue.next_due(), None);
    }

    proptest! {
        #[test]
        fn every_message_is_given_out_once_between_reschedules_and_never_early(
            operations in prop::collection::vec((0_u8..4, 0_u128..20, 0_u64..50), 0..200),
        ) {
            let mut queue = Queue::new();
            let mut model: BTreeMap<u128, (u64, bool)> = BTreeMap::new();
            let mut now = 0;
            for (operation, id, time) in operations {
                let key = MessageId(id);
                match operation {
                    0 => {
                        let new = queue.insert(key, Timestamp(time), "t", Priority::Normal);
                        prop_assert_eq!(new, model.entry(id).or_insert((time, false)) == &(time, false) && new);
                    }
                    1 => prop_assert_eq!(queue.settle(key), model.remove(&id).is_some()),
                    2 => {
                        let known = model.contains_key(&id);
                        prop_assert_eq!(queue.reschedule(key, Timestamp(time)), known);
                        if known { model.insert(id, (time, false)); }
                    }
                    _ => {
                        now += time / 10;
                        let given = queue.due(Timestamp(now)).map(|id| id.0);
                        let may_go = |slot: &(u64, bool)| !slot.1 && slot.0 <= now;
                        match given {
                            Some(id) => {
                                let slot = model.get_mut(&id).expect("it is held");
                                prop_assert!(may_go(slot));
                                slot.1 = true;
                            }
                            None => prop_assert!(!model.values().any(may_go)),
                        }
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.in_flight(), model.values().filter(|slot| slot.1).count());
            }
        }
    }
}
