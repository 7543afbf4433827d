//! A count over the last so many seconds, in bounded memory. Pure.
//!
//! The window is a ring of [`SLOTS`] slots and the one that is being filled. What is in them covers a little more than the window,
//! never less: the count errs to the safe side by at most one slot, less than a hundredth of the window, and a limit at full
//! use gives that much less than it could.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::message::Timestamp;

/// The present rate is that of so many slots: an eighth of a window.
const PRESENT: u64 = 16;
/// At most as many slots cover a window.
const SLOTS: u64 = 128;

/// A count over the last `length` milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Window {
    /// Milliseconds.
    length: u64,
    /// Slots in use, oldest first: number (time divided by the slot's length) and count.
    slots: VecDeque<(u64, u64)>,
}

impl Window {
    pub(super) fn new(length: u64) -> Self {
        Self { length, slots: VecDeque::new() }
    }

    fn slot_length(&self) -> u64 {
        self.length.div_ceil(SLOTS).max(1)
    }

    /// The oldest slot that still counts at `now`.
    fn oldest(&self, now: Timestamp) -> u64 {
        let slot = self.slot_length();
        (now.0 / slot).saturating_sub(self.length.div_ceil(slot))
    }

    pub(super) fn add(&mut self, amount: u64, now: Timestamp) {
        let oldest = self.oldest(now);
        while self.slots.front().is_some_and(|(number, _)| *number < oldest) {
            self.slots.pop_front();
        }
        // A clock that steps back counts in the newest slot: later, hence safe.
        let number = (now.0 / self.slot_length()).max(self.slots.back().map_or(0, |(number, _)| *number));
        match self.slots.back_mut() {
            Some((last, count)) if *last == number => *count += amount,
            _ => self.slots.push_back((number, amount)),
        }
    }

    /// What counts at `now`.
    pub(super) fn count(&self, now: Timestamp) -> u64 {
        let oldest = self.oldest(now);
        self.slots.iter().filter(|(number, _)| *number >= oldest).map(|(_, count)| count).sum()
    }

    /// How long until `limit` counts if as much is added from now on as over the last [`PRESENT`] slots; `None` when it never does,
    /// because enough falls out of the window meanwhile.
    pub(super) fn fills_in(&self, limit: u64, now: Timestamp) -> Option<Duration> {
        let (slot, at) = (self.slot_length(), now.0 / self.slot_length());
        let recent = self.slots.iter().filter(|(number, _)| *number + PRESENT > at && *number <= at);
        let added: u64 = recent.map(|(_, count)| count).sum();
        // Counted in parts of a slot's amount, so that nothing is rounded.
        let mut count = self.count(now) * PRESENT;
        let mut falling = self.slots.iter().filter(|(number, _)| *number >= self.oldest(now)).peekable();
        for ahead in 0..=self.length.div_ceil(slot) {
            let oldest = self.oldest(Timestamp(now.0 + ahead * slot));
            while let Some((_, amount)) = falling.next_if(|(number, _)| *number < oldest) {
                count -= amount * PRESENT;
            }
            if count + ahead * added >= limit * PRESENT {
                return Some(Duration::from_millis(ahead * slot));
            }
        }
        None
    }

    /// The first moment from `now` on at which no more than `most` counts, if nothing is added.
    pub(super) fn falls_to(&self, most: u64, now: Timestamp) -> Timestamp {
        let (slot, mut count) = (self.slot_length(), self.count(now));
        let oldest = self.oldest(now);
        for (number, held) in self.slots.iter().filter(|(number, _)| *number >= oldest) {
            if count <= most {
                break;
            }
            count -= held;
            if count <= most {
                return Timestamp((number + self.length.div_ceil(slot) + 1) * slot);
            }
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Adds one whenever the limit allows it, at the given times, and returns when it did.
    fn admitted(limit: u64, length: u64, steps: &[u64]) -> Vec<u64> {
        let (mut window, mut now, mut times) = (Window::new(length), 1_000_000_u64, Vec::new());
        for step in steps {
            now += step;
            if window.count(Timestamp(now)) < limit {
                window.add(1, Timestamp(now));
                times.push(now);
            }
        }
        times
    }

    #[test]
    fn a_limit_at_full_use_gives_at_least_99_in_100() {
        for (length, limit) in [(1_000, 100), (60_000, 600), (86_400_000, 5_000)] {
            let step = length / limit / 4;
            let steps = vec![step; usize::try_from(20 * length / step).unwrap()];
            let given = admitted(limit, length, &steps).len() as f64;
            assert!(given >= 0.99 * 20.0 * limit as f64, "{length}: {given} of {}", 20 * limit);
        }
    }

    #[test]
    fn the_moment_at_which_there_is_room_is_the_first() {
        let mut window = Window::new(1_000);
        window.add(3, Timestamp(10_000));
        window.add(2, Timestamp(10_500));
        let moment = window.falls_to(2, Timestamp(10_600));
        assert_eq!((window.count(Timestamp(moment.0 - 1)), window.count(moment)), (5, 2));
        assert!(moment.0 > 11_000 && moment.0 <= 11_010, "{moment:?}");
        assert_eq!(window.falls_to(5, Timestamp(10_600)), Timestamp(10_600), "there is room already");
    }

    #[test]
    fn a_window_is_foreseen_to_be_full_when_more_comes_than_falls_out_of_it() {
        let check = |limit: u64, every: u64, expected: Option<u64>| {
            let mut window = Window::new(128_000);
            (0..64_000 / every).for_each(|index| window.add(1, Timestamp(1_000_000 + index * every)));
            let found = window.fills_in(limit, Timestamp(1_063_999)).map(|wait| wait.as_secs());
            assert_eq!(found, expected, "{limit}, one in {every} ms");
        };
        check(64, 1_000, Some(0));
        check(100, 1_000, Some(36));
        check(120, 500, Some(0));
        check(1_000, 1_000, None);
        check(0, 1_000, Some(0));
        assert_eq!(Window::new(1_000).fills_in(5, Timestamp(9_000)), None, "nothing comes");
    }

    #[test]
    fn a_day_of_50_000_is_kept_in_129_slots() {
        let mut window = Window::new(86_400_000);
        (0..50_000_u64).for_each(|index| window.add(1, Timestamp(index * 1_728)));
        assert!(window.slots.len() <= 129, "{}", window.slots.len());
    }

    proptest! {
        #[test]
        fn no_window_of_the_length_holds_more_than_the_limit(
            limit in 1_u64..20, length in 1_u64..5_000, steps in prop::collection::vec(0_u64..400, 1..400),
        ) {
            let times = admitted(limit, length, &steps);
            let ahead = usize::try_from(limit).unwrap();
            for (index, first) in times.iter().enumerate() {
                if let Some(later) = times.get(index + ahead) {
                    prop_assert!(later - first >= length, "{} within {}", limit + 1, later - first);
                }
            }
        }
    }
}
