//! All windows of one scope as one budget, and how much of it may be spent before a restart could forget it. Pure.
//!
//! What is spent of windows longer than [`SHORT`] is recorded ahead: a record on disk covers an amount that is spent after it, and
//! whoever reads it after a crash counts that amount as spent. Shorter windows are not recorded; a relay starts with them used up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::window::Window;
use crate::message::Timestamp;

/// Windows up to this length are waited out after a start instead of being recorded.
const SHORT: Duration = Duration::from_secs(10);
/// One record covers this part of the smallest limit.
const RECORD_PART: u64 = 50;
/// After a record could not be written.
const RECORD_AGAIN: Duration = Duration::from_secs(5);

/// A bound on what goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At most so many.
    pub limit: u64,
    /// Of these.
    pub unit: Unit,
    /// In every span of this length.
    pub per: Duration,
}

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Mail transactions.
    Messages,
    /// Their recipients.
    Recipients,
}

/// Why nothing may be spent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A window is full until then.
    Until(Timestamp),
    /// What is under way has to end first, or a record has to be written.
    Event,
}

/// What a ledger holds of one scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Saved {
    windows: Vec<(Unit, u64, Window)>,
    /// May have been spent since, in recipients.
    ahead: u64,
}

impl Saved {
    /// What is taken to be spent when it cannot be read: more than any limit.
    #[must_use]
    pub fn unknown() -> Self {
        Self { windows: Vec::new(), ahead: u64::from(u32::MAX) }
    }
}

#[derive(Debug)]
struct Counted {
    rate: Rate,
    window: Window,
}

/// What of one scope may go.
#[derive(Debug)]
pub struct Budget {
    windows: Vec<Counted>,
    /// Given to sessions and without an outcome: messages and recipients.
    under_way: (u64, u64),
    /// Recipients spent since the start, and the amount that records cover.
    spent: u64,
    covered: u64,
    /// The recipients of a message that no record covered.
    uncovered: u64,
    writing: bool,
    not_before: Timestamp,
    /// Grows whenever there may be more room than before, beside by time.
    revision: u64,
}

impl Budget {
    /// A budget of these rates. `saved` is what the last process recorded.
    #[must_use]
    pub fn new(rates: &[Rate], saved: Option<Saved>, now: Timestamp) -> Self {
        let saved = saved.unwrap_or(Saved { windows: Vec::new(), ahead: 0 });
        let counted = |rate: &Rate| {
            let known = saved.windows.iter().find(|(unit, length, _)| (*unit, *length) == key(rate));
            let mut window = known.map_or_else(|| Window::new(key(rate).1), |(_, _, window)| window.clone());
            if rate.per <= SHORT {
                window.add(rate.limit, now);
            } else if saved.ahead > 0 {
                window.add(saved.ahead, now);
            }
            Counted { rate: *rate, window }
        };
        Self {
            windows: rates.iter().map(counted).collect(),
            under_way: (0, 0),
            spent: 0,
            covered: 0,
            uncovered: 0,
            writing: false,
            not_before: Timestamp(0),
            revision: 0,
        }
    }

    /// Puts other rates in force. Windows of the same length and unit keep what they have counted.
    pub fn change(&mut self, rates: &[Rate]) {
        self.revision += 1;
        let mut old = std::mem::take(&mut self.windows);
        self.windows = rates
            .iter()
            .map(|rate| match old.iter().position(|held| key(&held.rate) == key(rate)) {
                Some(at) => Counted { rate: *rate, window: old.swap_remove(at).window },
                None => Counted { rate: *rate, window: Window::new(key(rate).1) },
            })
            .collect();
    }

    /// The most recipients one transaction may have.
    #[must_use]
    pub fn largest(&self) -> usize {
        let of_recipients = self.windows.iter().filter(|held| held.rate.unit == Unit::Recipients);
        let least = of_recipients.map(|held| held.rate.limit).min().unwrap_or(u64::MAX);
        usize::try_from(least.max(1)).unwrap_or(usize::MAX)
    }

    /// Whether one message of so many recipients may be [spent](Self::spend).
    ///
    /// # Errors
    /// When a window has no room for it or no record covers it.
    pub fn admit(&mut self, recipients: u64, now: Timestamp) -> Result<(), Refusal> {
        for held in &self.windows {
            let (amount, under_way) = match held.rate.unit {
                Unit::Messages => (1, self.under_way.0),
                Unit::Recipients => (recipients, self.under_way.1),
            };
            let Some(most) = held.rate.limit.checked_sub(amount + under_way) else {
                return Err(Refusal::Event);
            };
            if held.window.count(now) > most {
                return Err(Refusal::Until(held.window.falls_to(most, now)));
            }
        }
        if self.is_recorded() && self.spent + recipients > self.covered {
            self.uncovered = recipients;
            return Err(Refusal::Event);
        }
        Ok(())
    }

    /// Spends a message that was admitted; an outcome must follow.
    pub fn spend(&mut self, recipients: u64) {
        self.spent += recipients;
        self.under_way = (self.under_way.0 + 1, self.under_way.1 + recipients);
    }

    /// The outcome of a message that was spent.
    pub fn outcome(&mut self, recipients: u64, now: Timestamp) {
        self.revision += 1;
        self.under_way.0 = self.under_way.0.saturating_sub(1);
        self.under_way.1 = self.under_way.1.saturating_sub(recipients);
        for held in &mut self.windows {
            let amount = if held.rate.unit == Unit::Messages { 1 } else { recipients };
            held.window.add(amount, now);
        }
    }

    /// Another number when there may be more room than before though no time has passed.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn is_recorded(&self) -> bool {
        self.windows.iter().any(|held| held.rate.per > SHORT)
    }

    /// The record that has to be on stable storage before much more is spent, with the amount to confirm it by: when a message
    /// was refused for want of one, or half of what the last one covers is spent.
    pub fn record(&mut self, now: Timestamp) -> Option<(Saved, u64)> {
        let recorded = self.windows.iter().filter(|held| held.rate.per > SHORT);
        let part = recorded.map(|held| held.rate.limit / RECORD_PART).min()?.max(self.uncovered).max(1);
        let half_spent = part > 1 && self.covered > 0 && self.spent + part / 2 > self.covered;
        if self.writing || now < self.not_before || (self.uncovered == 0 && !half_spent) {
            return None;
        }
        self.writing = true;
        Some((
            self.saved(part + self.covered.saturating_sub(self.spent)),
            self.covered.max(self.spent) + part,
        ))
    }

    /// The record to leave behind when nothing more is spent; `None` when nothing is recorded.
    #[must_use]
    pub fn last_record(&self) -> Option<Saved> {
        self.is_recorded().then(|| self.saved(0))
    }

    /// What is under way arrives later than it is recorded, so it belongs to what is spent after the record.
    fn saved(&self, ahead: u64) -> Saved {
        let recorded = self.windows.iter().filter(|held| held.rate.per > SHORT);
        let windows = recorded.map(|held| (held.rate.unit, key(&held.rate).1, held.window.clone())).collect();
        Saved { windows, ahead: ahead + self.under_way.1 }
    }

    /// The record that covers this amount is on stable storage.
    pub fn recorded(&mut self, covered: u64) {
        self.writing = false;
        self.uncovered = 0;
        self.revision += 1;
        self.covered = self.covered.max(covered);
    }

    /// The record could not be written; nothing more is spent than the last one covers.
    pub fn not_recorded(&mut self, now: Timestamp) {
        self.writing = false;
        self.not_before = now.after(RECORD_AGAIN);
    }

    /// Whether what is counted fits into every window, as it may not after a limit was lowered.
    #[must_use]
    pub fn fits(&self, now: Timestamp) -> bool {
        self.windows.iter().all(|held| {
            let under_way =
                if held.rate.unit == Unit::Messages { self.under_way.0 } else { self.under_way.1 };
            held.window.count(now) + under_way <= held.rate.limit
        })
    }

    /// How long until the first window longer than [`SHORT`] is used up at the present rate; `None` when none will be.
    #[must_use]
    pub fn exhausted_in(&self, now: Timestamp) -> Option<Duration> {
        let recorded = self.windows.iter().filter(|held| held.rate.per > SHORT);
        recorded.filter_map(|held| held.window.fills_in(held.rate.limit, now)).min()
    }

    /// How much of the fullest window is used, in percent; `None` without rates.
    #[must_use]
    pub fn used_percent(&self, now: Timestamp) -> Option<u64> {
        let used = |held: &Counted| {
            let under_way =
                if held.rate.unit == Unit::Messages { self.under_way.0 } else { self.under_way.1 };
            (held.window.count(now) + under_way) * 100 / held.rate.limit.max(1)
        };
        self.windows.iter().map(used).max()
    }
}

fn key(rate: &Rate) -> (Unit, u64) {
    (rate.unit, u64::try_from(rate.per.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(limit: u64, unit: Unit, seconds: u64) -> Rate {
        Rate { limit, unit, per: Duration::from_secs(seconds) }
    }

    fn spend(budget: &mut Budget, recipients: u64, now: Timestamp) -> Result<(), Refusal> {
        budget.admit(recipients, now).map(|()| budget.spend(recipients))
    }

    /// Writes the record that is due for a message, at once.
    fn write(budget: &mut Budget, next: u64, now: Timestamp) -> Option<Saved> {
        let _ = budget.admit(next, now);
        let (saved, covered) = budget.record(now)?;
        budget.recorded(covered);
        Some(saved)
    }

    #[test]
    fn what_is_under_way_counts_and_its_window_begins_with_its_outcome() {
        let rates = [rate(2, Unit::Messages, 1)];
        let (mut budget, start) = (Budget::new(&rates, None, Timestamp(0)), Timestamp(5_000));
        assert_eq!(spend(&mut budget, 9, start), Ok(()));
        assert_eq!(spend(&mut budget, 9, start), Ok(()));
        assert_eq!(spend(&mut budget, 9, Timestamp(60_000)), Err(Refusal::Event), "two are under way");
        budget.outcome(9, Timestamp(60_000));
        let Err(Refusal::Until(moment)) = spend(&mut budget, 9, Timestamp(60_001)) else {
            panic!("the window is full")
        };
        assert!(moment.0 > 61_000, "{moment:?}");
        budget.outcome(9, Timestamp(60_001));
        assert_eq!(spend(&mut budget, 9, Timestamp(61_020)), Ok(()));
    }

    #[test]
    fn a_start_waits_short_windows_out() {
        let mut budget = Budget::new(&[rate(100, Unit::Messages, 1)], None, Timestamp(5_000));
        assert!(matches!(spend(&mut budget, 1, Timestamp(5_500)), Err(Refusal::Until(_))));
        assert_eq!(spend(&mut budget, 1, Timestamp(6_020)), Ok(()));
    }

    #[test]
    fn nothing_is_spent_that_no_record_covers() {
        let now = Timestamp(5_000);
        let mut budget = Budget::new(&[rate(100, Unit::Recipients, 3600)], None, now);
        assert_eq!(spend(&mut budget, 3, now), Err(Refusal::Event));
        assert!(budget.record(now).is_some() && budget.record(now).is_none(), "one at a time");
        budget.not_recorded(now);
        assert_eq!(spend(&mut budget, 3, now), Err(Refusal::Event), "the record failed");
        assert!(budget.record(now.after(RECORD_AGAIN)).is_some());
    }

    #[test]
    fn a_larger_limit_of_the_same_window_keeps_what_was_counted() {
        let (mut budget, now) =
            (Budget::new(&[rate(1, Unit::Messages, 3600)], None, Timestamp(0)), Timestamp(9));
        write(&mut budget, 1, now);
        spend(&mut budget, 1, now).unwrap();
        budget.outcome(1, now);
        budget.change(&[rate(2, Unit::Messages, 3600)]);
        write(&mut budget, 1, now);
        assert_eq!((spend(&mut budget, 1, now), budget.largest()), (Ok(()), usize::MAX));
        budget.outcome(1, now);
        assert!(spend(&mut budget, 1, now).is_err() && budget.used_percent(now) == Some(100));
    }

    proptest! {
        /// Messages are given, end, and the process dies at random; no window ever holds more than its limit.
        #[test]
        fn no_window_is_exceeded_over_crashes(
            limit in 1_u64..60, crashes in prop::collection::vec(0_u8..40, 1..600),
            step in 1_u64..3_000, recipients in 1_u64..5,
        ) {
            let rates = [rate(limit, Unit::Recipients, 60)];
            let mut now = Timestamp(1_000_000);
            let (mut disk, mut times): (Option<Saved>, Vec<(u64, u64)>) = (None, Vec::new());
            let mut budget = Budget::new(&rates, None, now);
            let recipients = recipients.min(limit);
            for crash in crashes {
                now = Timestamp(now.0 + step);
                if crash == 0 {
                    budget = Budget::new(&rates, disk.clone(), now);
                }
                if let Some(saved) = write(&mut budget, recipients, now) {
                    disk = Some(saved);
                }
                if spend(&mut budget, recipients, now).is_ok() {
                    times.push((now.0, recipients));
                    budget.outcome(recipients, now);
                }
            }
            for (index, (first, _)) in times.iter().enumerate() {
                let within: u64 = times[index..].iter().take_while(|(time, _)| time - first < 60_000).map(|(_, n)| n).sum();
                prop_assert!(within <= limit, "{within} of {limit}");
            }
        }
    }
}
