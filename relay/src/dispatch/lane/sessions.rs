//! The sessions with one upstream and what each is doing. Pure.

use std::collections::BTreeMap;

use crate::delivery::SessionId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Idle,
    /// With the recipients of its job.
    Busy(u64),
    /// Takes no more jobs, yet still counts for the upstream.
    Retiring,
}

#[derive(Debug)]
struct Held {
    state: State,
    /// Made for a configuration that is no longer in force.
    stale: bool,
}

/// The sessions with one upstream.
#[derive(Debug, Default)]
pub(super) struct Sessions(BTreeMap<SessionId, Held>);

impl Sessions {
    pub(super) fn add_opening(&mut self, id: SessionId) {
        self.0.insert(id, Held { state: State::Opening, stale: false });
    }

    pub(super) fn remove(&mut self, id: SessionId) {
        self.0.remove(&id);
    }

    /// The session takes a job.
    pub(super) fn set_idle(&mut self, id: SessionId) {
        self.set(id, State::Idle);
    }

    /// The session has a job of so many recipients.
    pub(super) fn set_busy(&mut self, id: SessionId, recipients: u64) {
        self.set(id, State::Busy(recipients));
    }

    /// The session takes no more jobs.
    pub(super) fn set_retiring(&mut self, id: SessionId) {
        self.set(id, State::Retiring);
    }

    fn set(&mut self, id: SessionId, state: State) {
        if let Some(session) = self.0.get_mut(&id) {
            session.state = state;
        }
    }

    /// All sessions are of an older configuration from now on.
    pub(super) fn set_stale(&mut self) {
        self.0.values_mut().for_each(|session| session.stale = true);
    }

    /// The recipients of the job that the session is busy with.
    pub(super) fn recipients(&self, id: SessionId) -> Option<u64> {
        match self.0.get(&id)?.state {
            State::Busy(recipients) => Some(recipients),
            State::Opening | State::Idle | State::Retiring => None,
        }
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
        self.0.values().any(|session| matches!(session.state, State::Busy(_)))
    }

    /// An idle session that is one more than `share` or was made for another configuration.
    pub(super) fn surplus(&self, share: usize) -> Option<SessionId> {
        let remaining = self.0.values().filter(|held| held.state != State::Retiring).count();
        let surplus = |held: &Held| held.state == State::Idle && (held.stale || remaining > share);
        self.0.iter().find(|(_, held)| surplus(held)).map(|(id, _)| *id)
    }

    /// An idle session: the newest, so that what a lull leaves over is idle long enough to be retired.
    pub(super) fn idle(&self) -> Option<SessionId> {
        self.0.iter().rev().find(|(_, held)| held.state == State::Idle).map(|(id, _)| *id)
    }
}
