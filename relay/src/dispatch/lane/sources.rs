//! The relay's own addresses that a lane's sessions connect from. Pure.
//!
//! Without `sourceAddresses` there is one, which the system chooses (`None`). What each may carry is a budget beside the upstream's.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::sessions::Sessions;
use crate::budget::{Budgets, Scope, Until};
use crate::config::UpstreamPolicy;

/// An address that the relay does not have is tried again after this long.
pub(super) const TRY_MISSING_AFTER: Duration = Duration::from_secs(300);

/// Where a session connects from; `None`: from what the system chooses.
pub(super) type Source = Option<IpAddr>;

#[derive(Debug)]
struct Held {
    address: Source,
    scope: Scope,
    /// The relay did not have it when a session was to use it; it is left alone until then.
    missing_until: Option<Instant>,
}

/// The sources of one upstream's sessions; at least one.
#[derive(Debug)]
pub(super) struct Sources(Vec<Held>);

/// Which sources have room for a job.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// These.
    pub(super) now: Vec<Source>,
    /// Without an event another one has room from then on.
    pub(super) next: Option<Instant>,
}

impl Sources {
    /// The sources that this configuration names.
    pub(super) fn of(upstream: &UpstreamPolicy) -> Self {
        let held =
            |address| Held { address, scope: Scope::source(&upstream.name, address), missing_until: None };
        match upstream.connections.source_addresses.as_slice() {
            [] => Self(vec![held(None)]),
            addresses => Self(addresses.iter().map(|address| held(Some(*address))).collect()),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What of the budgets is theirs.
    pub(super) fn scopes(&self) -> impl Iterator<Item = &Scope> + Clone {
        self.0.iter().map(|held| &held.scope)
    }

    /// What of the budgets is this one's, if the configuration still names it.
    pub(super) fn scope(&self, source: Source) -> Option<&Scope> {
        self.0.iter().find(|held| held.address == source).map(|held| &held.scope)
    }

    /// Which have room for a job of so many recipients.
    pub(super) fn room(&self, recipients: u64, budgets: &mut Budgets, now: Instant) -> Room {
        let mut room = Room::default();
        for held in self.usable(now) {
            match budgets.room(&held.scope, recipients, now) {
                Ok(()) => room.now.push(held.address),
                Err(Until::Moment(at)) => room.next = Some(room.next.map_or(at, |next| next.min(at))),
                Err(Until::Revision(_)) => {}
            }
        }
        room
    }

    /// Where the next session connects from: the one with the fewest sessions of those that are `allowed`.
    pub(super) fn next(
        &self,
        sessions: &Sessions,
        allowed: impl Fn(Source) -> bool,
        now: Instant,
    ) -> Option<Source> {
        let candidates = self.usable(now).map(|held| held.address).filter(|source| allowed(*source));
        candidates.min_by_key(|source| sessions.from(*source))
    }

    /// The relay does not have this address. Returns whether another one is to be used instead; if not, all are tried again.
    pub(super) fn set_missing(&mut self, source: Source, now: Instant) -> bool {
        if let Some(held) = self.0.iter_mut().find(|held| held.address == source) {
            held.missing_until = Some(now + TRY_MISSING_AFTER);
        }
        let left = self.usable(now).next().is_some();
        if !left {
            self.0.iter_mut().for_each(|held| held.missing_until = None);
        }
        left
    }

    fn usable(&self, now: Instant) -> impl Iterator<Item = &Held> {
        self.0.iter().filter(move |held| held.missing_until.is_none_or(|until| until <= now))
    }
}
