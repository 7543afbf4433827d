//! The sessions with one upstream and what each is doing. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::sources::Source;
use crate::budget::Scope;
use crate::delivery::{Job, SessionId};

/// What a job has spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Charge {
    pub(super) recipients: u64,
    /// In which budgets, beside the upstream's.
    pub(super) scopes: Arc<[Scope]>,
}

impl Charge {
    pub(super) fn of(job: &Job) -> Self {
        Self { recipients: job.recipients.len() as u64, scopes: job.scopes.clone() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Open,
    /// Takes no more jobs, yet still counts for the upstream.
    Retiring,
}

#[derive(Debug)]
struct Held {
    state: State,
    source: Source,
    /// Made for a configuration that is no longer in force.
    stale: bool,
    /// Jobs that it takes at once.
    room: usize,
    /// What the jobs have spent that it has.
    jobs: Vec<Charge>,
}

impl Held {
    fn is_idle(&self) -> bool {
        self.state == State::Open && self.jobs.is_empty()
    }
}

/// The sessions with one upstream.
#[derive(Debug, Default)]
pub(super) struct Sessions(BTreeMap<SessionId, Held>);

impl Sessions {
    pub(super) fn add_opening(&mut self, id: SessionId, source: Source) {
        let held = Held { state: State::Opening, source, stale: false, room: 0, jobs: Vec::new() };
        self.0.insert(id, held);
    }

    /// Returns what the jobs have spent that it had still.
    pub(super) fn remove(&mut self, id: SessionId) -> Vec<Charge> {
        self.0.remove(&id).map(|held| held.jobs).unwrap_or_default()
    }

    /// The session takes `room` jobs at once.
    pub(super) fn set_open(&mut self, id: SessionId, room: usize) {
        if let Some(held) = self.0.get_mut(&id) {
            (held.state, held.room) = (State::Open, room);
        }
    }

    /// The session takes no more jobs.
    pub(super) fn set_retiring(&mut self, id: SessionId) {
        if let Some(held) = self.0.get_mut(&id) {
            held.state = State::Retiring;
        }
    }

    /// The session has one more job, which has spent this.
    pub(super) fn begin_job(&mut self, id: SessionId, charge: Charge) {
        if let Some(held) = self.0.get_mut(&id) {
            held.jobs.push(charge);
        }
    }

    /// The session has one job less, which had spent this. Returns whether it had one.
    pub(super) fn end_job(&mut self, id: SessionId, charge: &Charge) -> bool {
        let Some(held) = self.0.get_mut(&id) else { return false };
        let found = held.jobs.iter().position(|job| job == charge);
        found.map(|position| held.jobs.swap_remove(position)).is_some()
    }

    /// All sessions are of an older configuration from now on.
    pub(super) fn set_stale(&mut self) {
        self.0.values_mut().for_each(|session| session.stale = true);
    }

    /// Where it connects from.
    pub(super) fn source(&self, id: SessionId) -> Source {
        self.0.get(&id).and_then(|held| held.source)
    }

    /// How many connect from there.
    pub(super) fn from(&self, source: Source) -> usize {
        self.0.values().filter(|held| held.source == source).count()
    }

    /// All that count for the upstream.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that stand.
    pub(super) fn open(&self) -> usize {
        self.len() - self.opening()
    }

    pub(super) fn opening(&self) -> usize {
        self.0.values().filter(|session| session.state == State::Opening).count()
    }

    pub(super) fn any_busy(&self) -> bool {
        self.0.values().any(|held| !held.jobs.is_empty())
    }

    /// Those that have a job.
    pub(super) fn busy(&self) -> usize {
        self.0.values().filter(|held| !held.jobs.is_empty()).count()
    }

    /// An idle session that is one more than `share` or was made for another configuration.
    pub(super) fn surplus(&self, share: usize) -> Option<SessionId> {
        let too_many = self.remaining() > share;
        self.0.iter().find(|(_, held)| held.is_idle() && (held.stale || too_many)).map(|(id, _)| *id)
    }

    /// An idle session from one of these sources: the newest, so that what a lull leaves over is idle long enough to be retired.
    pub(super) fn idle(&self, sources: &[Source]) -> Option<SessionId> {
        let wanted = |held: &Held| held.is_idle() && sources.contains(&held.source);
        self.0.iter().rev().find(|(_, held)| wanted(held)).map(|(id, _)| *id)
    }

    /// The busy session from one of these sources with the fewest jobs of those that take one more. None of those that are to be
    /// retired as soon as they are idle.
    pub(super) fn with_room(&self, share: usize, sources: &[Source]) -> Option<SessionId> {
        let takes_more = |held: &Held| {
            let open = held.state == State::Open && !held.stale;
            open && !held.jobs.is_empty() && held.jobs.len() < held.room && sources.contains(&held.source)
        };
        let candidates = self.0.iter().filter(|(_, held)| takes_more(held));
        let (id, _) =
            candidates.min_by_key(|(_, held)| held.jobs.len()).filter(|_| self.remaining() <= share)?;
        Some(*id)
    }

    /// Those that take jobs or will.
    pub(super) fn remaining(&self) -> usize {
        self.0.values().filter(|held| held.state != State::Retiring).count()
    }
}
