//! The account of recipients (promise P2): what was accepted is what has ended, by fate, and what is still queued.
//!
//! Every record that changes the account says by how much, in the transaction that makes the change; each segment begins with
//! the account as it stands there, so it outlives the segments it sums up. Pure.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// How a recipient's stay in the spool ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// An upstream took responsibility for it.
    Delivered,
    /// Refused for good, and its sender told by a notification.
    FailedNotified,
    /// Refused for good, and nobody told: the null reverse-path, or `NOTIFY` without `FAILURE`.
    FailedUnnotified,
    /// Given up after the pool's expiry.
    Expired,
    /// Given up by a person, who is in the log.
    Dropped,
    /// Another relay took responsibility for it.
    HandedOver,
    /// Damaged on disk; what is left of it is in the quarantine directory.
    Quarantined,
}

impl Fate {
    /// Every fate.
    pub const ALL: [Self; 7] = [
        Self::Delivered,
        Self::FailedNotified,
        Self::FailedUnnotified,
        Self::Expired,
        Self::Dropped,
        Self::HandedOver,
        Self::Quarantined,
    ];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::FailedNotified => "failed_notified",
            Self::FailedUnnotified => "failed_unnotified",
            Self::Expired => "expired",
            Self::Dropped => "dropped",
            Self::HandedOver => "handed_over",
            Self::Quarantined => "quarantined",
        }
    }
}

/// Numbers of recipients by fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Fates {
    #[serde(skip_serializing_if = "is_zero")]
    delivered: u64,
    #[serde(skip_serializing_if = "is_zero")]
    failed_notified: u64,
    #[serde(skip_serializing_if = "is_zero")]
    failed_unnotified: u64,
    #[serde(skip_serializing_if = "is_zero")]
    expired: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dropped: u64,
    #[serde(skip_serializing_if = "is_zero")]
    handed_over: u64,
    #[serde(skip_serializing_if = "is_zero")]
    quarantined: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Fates {
    /// So many recipients of one fate, none of any other.
    #[must_use]
    pub fn of(fate: Fate, recipients: u64) -> Self {
        let mut fates = Self::default();
        fates.add(fate, recipients);
        fates
    }

    /// Counts so many more recipients of this fate.
    pub fn add(&mut self, fate: Fate, recipients: u64) {
        *self.number(fate) += recipients;
    }

    /// How many recipients had this fate.
    #[must_use]
    pub fn get(mut self, fate: Fate) -> u64 {
        *self.number(fate)
    }

    /// How many recipients had any.
    #[must_use]
    pub fn total(self) -> u64 {
        Fate::ALL.iter().map(|fate| self.get(*fate)).sum()
    }

    /// Whether no recipient had any.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn number(&mut self, fate: Fate) -> &mut u64 {
        match fate {
            Fate::Delivered => &mut self.delivered,
            Fate::FailedNotified => &mut self.failed_notified,
            Fate::FailedUnnotified => &mut self.failed_unnotified,
            Fate::Expired => &mut self.expired,
            Fate::Dropped => &mut self.dropped,
            Fate::HandedOver => &mut self.handed_over,
            Fate::Quarantined => &mut self.quarantined,
        }
    }
}

impl AddAssign for Fates {
    fn add_assign(&mut self, other: Self) {
        Fate::ALL.iter().for_each(|fate| self.add(*fate, other.get(*fate)));
    }
}

/// The account itself, or what one record adds to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Recipients ever accepted, those of notifications included.
    pub accepted: u64,
    /// What became of those that are no longer queued.
    pub fates: Fates,
}

impl Ledger {
    /// The account that takes most bytes to write.
    pub(super) fn largest() -> Self {
        let mut fates = Fates::default();
        Fate::ALL.iter().for_each(|fate| fates.add(*fate, u64::MAX));
        Self { accepted: u64::MAX, fates }
    }

    /// What the acceptance of so many recipients adds.
    pub(super) fn accepted(recipients: u64) -> Self {
        Self { accepted: recipients, fates: Fates::default() }
    }

    /// What so many ends add.
    pub(super) fn ended(fates: Fates) -> Self {
        Self { accepted: 0, fates }
    }

    /// Brings the account into agreement with `queued`, the recipients found, where damage may have taken some: those missing
    /// went into quarantine; those too many are back because the record of their end is lost, and count as accepted again.
    pub(super) fn reconcile(&mut self, queued: u64) {
        let (expected, found) = (self.accepted, self.fates.total() + queued);
        self.fates.add(Fate::Quarantined, expected.saturating_sub(found));
        self.accepted += found.saturating_sub(expected);
    }
}

impl AddAssign for Ledger {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.fates += other.fates;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fate_is_counted_for_itself() {
        let mut fates = Fates::default();
        for (number, fate) in (1..).zip(Fate::ALL) {
            fates += Fates::of(fate, number);
        }
        assert_eq!(Fate::ALL.map(|fate| fates.get(fate)), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!((fates.total(), fates.is_empty()), (28, false));
    }

    #[test]
    fn only_what_there_is_to_say_is_written() {
        let text = |fates: Fates| serde_json::to_string(&fates).unwrap();
        assert_eq!(text(Fates::default()), "{}");
        assert_eq!(text(Fates::of(Fate::HandedOver, 2)), r#"{"handedOver":2}"#);
        assert_eq!(serde_json::from_str::<Fates>("{}").unwrap(), Fates::default());
    }

    #[test]
    fn what_damage_took_is_quarantined_and_what_it_gave_back_is_accepted_again() {
        let ledger =
            |accepted, quarantined| Ledger { accepted, fates: Fates::of(Fate::Quarantined, quarantined) };
        let check = |queued, expected| {
            let mut account = ledger(10, 3);
            account.reconcile(queued);
            assert_eq!(account, expected);
        };
        check(7, ledger(10, 3));
        check(5, ledger(10, 5));
        check(8, ledger(11, 3));
    }
}
