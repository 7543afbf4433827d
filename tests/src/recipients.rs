//! The relay's own account of recipients (promise P2), as one scrape tells it, and what must hold of it.
//!
//! Checked by `relay_process` at every look at the metrics and around every kill; suites compare it with what the clients and
//! the upstream know.

use std::collections::BTreeMap;

use crate::prometheus::Metrics;

/// The account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipients {
    /// Ever accepted, those of notifications included.
    pub accepted: u64,
    /// No longer queued, by fate.
    pub ended: BTreeMap<String, u64>,
    /// Still to be delivered.
    pub queued: u64,
}

impl Recipients {
    /// The account in `metrics`; `None` before the relay has read all of its spool.
    #[must_use]
    pub fn read(metrics: &Metrics) -> Option<Self> {
        let whole = |value: f64| value as u64;
        let fate = |series: &str| Some(series.split_once("fate=\"")?.1.split_once('"')?.0.to_owned());
        let ended = metrics.named("postroad_relay_ledger_ended_total");
        let ended: BTreeMap<_, _> =
            ended.filter_map(|(series, value)| Some((fate(series)?, whole(value)))).collect();
        if ended.is_empty() {
            return None;
        }
        let accepted = whole(metrics.value("postroad_relay_ledger_accepted_total")?);
        Some(Self { accepted, ended, queued: whole(metrics.value("postroad_relay_ledger_queued")?) })
    }

    /// How many had this fate.
    #[must_use]
    pub fn ended_as(&self, fate: &str) -> u64 {
        self.ended.get(fate).copied().unwrap_or_default()
    }

    /// Whether what was accepted has ended or is queued, and nothing that was counted `before`, by this process or an earlier one
    /// over the same spool, is forgotten.
    ///
    /// # Errors
    /// A sentence that says which.
    pub fn check(&self, before: Option<&Self>) -> Result<(), String> {
        let ended: u64 = self.ended.values().sum();
        if self.accepted != ended + self.queued {
            return Err(format!("recipients are unaccounted for: {self:?}"));
        }
        let Some(before) = before else { return Ok(()) };
        let forgotten = before.ended.iter().any(|(fate, count)| self.ended_as(fate) < *count);
        if self.accepted < before.accepted || forgotten {
            return Err(format!("the account has forgotten recipients: {before:?}, then {self:?}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape(accepted: u64, delivered: u64, queued: u64) -> Recipients {
        let text = format!(
            "postroad_relay_ledger_accepted_total {accepted}\npostroad_relay_ledger_queued {queued}\n\
             postroad_relay_ledger_ended_total{{fate=\"delivered\"}} {delivered}\n\
             postroad_relay_ledger_ended_total{{fate=\"expired\"}} 1\n"
        );
        Recipients::read(&Metrics::parse(&text)).unwrap()
    }

    #[test]
    fn an_account_that_does_not_balance_or_forgets_is_found() {
        let account = scrape(5, 2, 2);
        assert_eq!((account.ended_as("delivered"), account.check(None)), (2, Ok(())));
        assert!(scrape(5, 2, 1).check(None).is_err() && scrape(5, 3, 2).check(None).is_err());
        assert_eq!(scrape(6, 3, 2).check(Some(&account)), Ok(()));
        assert!(scrape(5, 1, 3).check(Some(&account)).is_err(), "an end is forgotten");
        assert!(scrape(4, 2, 1).check(Some(&account)).is_err(), "an acceptance is forgotten");
    }

    #[test]
    fn a_relay_that_does_not_know_yet_has_no_account() {
        assert_eq!(Recipients::read(&Metrics::parse("postroad_relay_ledger_queued 0\n")), None);
    }
}
