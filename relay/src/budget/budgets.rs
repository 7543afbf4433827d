//! The budgets of all scopes: a message goes when every scope that it counts for has room. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Budget, Clock, Rate, Refusal, Saved, Scope};

/// Why a message may not go now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What has no room for it.
    pub scope: Scope,
    /// When to ask again.
    pub until: Until,
}

/// When there may be room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// From then on.
    Moment(Instant),
    /// When [`Budgets::revision`] is another: what is under way has to end first, or a record has to be written.
    Revision(u64),
}

/// The budgets of all scopes that have rates. What has none is not bounded.
#[derive(Debug)]
pub struct Budgets {
    held: BTreeMap<Scope, Budget>,
    clock: Clock,
}

impl Budgets {
    /// None yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { held: BTreeMap::new(), clock }
    }

    /// Whether the scope has a budget here.
    #[must_use]
    pub fn knows(&self, scope: &Scope) -> bool {
        self.held.contains_key(scope)
    }

    /// Puts other rates in force. A scope that is new begins with what `saved` holds of it: with nothing recorded (`None`), or as
    /// used up where nobody has looked. One that is not among them is forgotten.
    pub fn configure(
        &mut self,
        rates: &BTreeMap<Scope, Vec<Rate>>,
        mut saved: BTreeMap<Scope, Option<Saved>>,
        now: Instant,
    ) {
        self.held.retain(|scope, _| rates.contains_key(scope));
        for (scope, rates) in rates {
            match self.held.get_mut(scope) {
                Some(budget) => budget.change(rates),
                None => {
                    let saved = saved.remove(scope).unwrap_or_else(|| Some(Saved::unknown()));
                    let budget = Budget::new(rates, saved, self.clock.time(now));
                    self.held.insert(scope.clone(), budget);
                }
            }
        }
    }

    /// The most recipients one transaction may have that counts for these scopes.
    pub fn largest<'a>(&self, scopes: impl IntoIterator<Item = &'a Scope>) -> usize {
        let held = scopes.into_iter().filter_map(|scope| self.held.get(scope));
        held.map(Budget::largest).min().unwrap_or(usize::MAX)
    }

    /// Whether the scope has room for one message of so many recipients.
    ///
    /// # Errors
    /// When to ask again.
    pub fn room(&mut self, scope: &Scope, recipients: u64, now: Instant) -> Result<(), Until> {
        let Some(budget) = self.held.get_mut(scope) else { return Ok(()) };
        budget.admit(recipients, self.clock.time(now)).map_err(|refusal| match refusal {
            Refusal::Until(time) => Until::Moment(self.clock.instant(time)),
            Refusal::Event => Until::Revision(budget.revision()),
        })
    }

    /// Spends one message of so many recipients in all of these scopes; an [outcome](Self::outcome) must follow.
    ///
    /// # Errors
    /// The first scope that has no room for it. Nothing is spent then.
    pub fn spend<'a>(
        &mut self,
        scopes: impl Iterator<Item = &'a Scope> + Clone,
        recipients: u64,
        now: Instant,
    ) -> Result<(), Refused> {
        for scope in scopes.clone() {
            if let Err(until) = self.room(scope, recipients, now) {
                return Err(Refused { scope: scope.clone(), until });
            }
        }
        for scope in scopes {
            if let Some(budget) = self.held.get_mut(scope) {
                budget.spend(recipients);
            }
        }
        Ok(())
    }

    /// The outcome of a message that was spent.
    pub fn outcome<'a>(&mut self, scopes: impl Iterator<Item = &'a Scope>, recipients: u64, now: Instant) {
        for scope in scopes {
            if let Some(budget) = self.held.get_mut(scope) {
                budget.outcome(recipients, self.clock.time(now));
            }
        }
    }

    /// Whether it is time to ask again about a scope that had no room.
    #[must_use]
    pub fn may_have_room(&self, scope: &Scope, until: Until, now: Instant) -> bool {
        match until {
            Until::Moment(moment) => moment <= now,
            Until::Revision(revision) => {
                self.held.get(scope).is_none_or(|budget| budget.revision() != revision)
            }
        }
    }

    /// The next record that has to be on stable storage before much more is spent, with the amount to confirm it by.
    pub fn record(&mut self, now: Instant) -> Option<(Scope, Saved, u64)> {
        let time = self.clock.time(now);
        self.held.iter_mut().find_map(|(scope, budget)| {
            let (saved, covered) = budget.record(time)?;
            Some((scope.clone(), saved, covered))
        })
    }

    /// The record is on stable storage, or could not be written (`None`).
    pub fn recorded(&mut self, scope: &Scope, covered: Option<u64>, now: Instant) {
        let Some(budget) = self.held.get_mut(scope) else { return };
        match covered {
            Some(covered) => budget.recorded(covered),
            None => budget.not_recorded(self.clock.time(now)),
        }
    }

    /// What is to be recorded of each when nothing more is spent.
    #[must_use]
    pub fn last_records(&self) -> Vec<(Scope, Saved)> {
        let last = |(scope, budget): (&Scope, &Budget)| Some((scope.clone(), budget.last_record()?));
        self.held.iter().filter_map(last).collect()
    }

    /// Whether what is counted of the scope fits into its windows. What has no rates always does.
    #[must_use]
    pub fn fits(&self, scope: &Scope, now: Instant) -> bool {
        self.held.get(scope).is_none_or(|budget| budget.fits(self.clock.time(now)))
    }

    /// How long until each scope's windows longer than ten seconds are used up at the present rate, the first of them.
    pub fn exhausted_in(&self, now: Instant) -> impl Iterator<Item = (&Scope, Option<Duration>)> {
        let time = self.clock.time(now);
        self.held.iter().map(move |(scope, budget)| (scope, budget.exhausted_in(time)))
    }

    /// How much of each scope's fullest window is used, in percent.
    pub fn used_percent(&self, now: Instant) -> impl Iterator<Item = (&Scope, u64)> {
        let time = self.clock.time(now);
        self.held.iter().filter_map(move |(scope, budget)| Some((scope, budget.used_percent(time)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Unit;
    use crate::message::Timestamp;

    #[test]
    fn a_message_goes_only_when_all_it_counts_for_have_room_and_costs_nothing_otherwise() {
        let (ses, shop) = (Scope::Upstream("ses".into()), Scope::Identity("shop".into()));
        let rate = |limit| vec![Rate { limit, unit: Unit::Messages, per: Duration::from_secs(1) }];
        let start = Instant::now();
        let mut budgets = Budgets::new(Clock::new(start, Timestamp(1_000_000)));
        let rates = [(ses.clone(), rate(3)), (shop.clone(), rate(1))].into();
        budgets.configure(&rates, [(ses.clone(), None), (shop.clone(), None)].into(), start);
        let now = start + Duration::from_secs(2);
        let both = [ses.clone(), shop.clone()];
        assert_eq!(budgets.spend(both.iter(), 1, now), Ok(()));
        let Err(refused) = budgets.spend(both.iter(), 1, now) else { panic!("shop has no room") };
        assert_eq!(refused.scope, shop);
        assert!(
            !budgets.may_have_room(&shop, refused.until, now + Duration::from_secs(9)),
            "one is under way"
        );
        budgets.outcome(both.iter(), 1, now);
        assert!(budgets.may_have_room(&shop, refused.until, now));
        for _ in 0..2 {
            assert_eq!(
                budgets.spend(both[..1].iter(), 1, now),
                Ok(()),
                "what was refused has cost ses nothing"
            );
        }
        let Err(refused) = budgets.spend(both[..1].iter(), 1, now) else { panic!("three are one too many") };
        assert_eq!(refused.scope, ses);
    }
}
