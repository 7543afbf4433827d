//! One upstream's jobs and sessions: which job goes to which session, and when a session is opened or retired.
//!
//! Pure: events in, [`Action`]s out, time passed in. [`gate`] is its breaker, [`sessions`] what its sessions are doing.

mod gate;
mod sessions;

use std::sync::Arc;
use std::time::Instant;

use crate::budget::{Budget, Clock, Rate, Refusal, Saved};
use crate::config::UpstreamPolicy;
use crate::delivery::{Hold, HoldKind, Job, SessionId};
use crate::message::MessageId;
use crate::queue::fair::{Cost, Fair};
use gate::Gate;
use sessions::Sessions;

/// What is to be done.
#[derive(Debug)]
pub(super) enum Action {
    /// Give the job to the session.
    Assign(SessionId, Job),
    /// Open a session and name it by [`Lane::opening`].
    Open,
    /// Plan the job's recipients anew: they are more than one transaction may have.
    Replan(Job),
    /// Take no more jobs to the session and let it say QUIT.
    Retire(SessionId),
}

/// One upstream's jobs and sessions.
#[derive(Debug)]
pub(super) struct Lane {
    upstream: Arc<UpstreamPolicy>,
    share: usize,
    ready: Fair<Job>,
    sessions: Sessions,
    gate: Gate,
    budget: Budget,
    /// A window of the budget has no room before this.
    full_until: Option<Instant>,
    clock: Clock,
}

impl Lane {
    pub(super) fn new(upstream: Arc<UpstreamPolicy>, share: usize, budget: Budget, clock: Clock) -> Self {
        let (ready, sessions, gate) = (Fair::default(), Sessions::default(), Gate::default());
        Self { upstream, share, ready, sessions, gate, budget, full_until: None, clock }
    }

    pub(super) fn upstream(&self) -> &Arc<UpstreamPolicy> {
        &self.upstream
    }

    /// Puts another configuration in force. Sessions that it would have made differently are retired when they are idle,
    /// and the gate opens, because what kept it closed may have been mended.
    pub(super) fn reconfigure(&mut self, upstream: Arc<UpstreamPolicy>, share: usize, rates: &[Rate]) {
        if !self.upstream.same_sessions(&upstream) {
            self.gate = Gate::default();
            self.sessions.set_stale();
        }
        self.budget.change(rates);
        self.full_until = None;
        self.upstream = upstream;
        self.share = share;
    }

    // Budget.

    /// The most recipients one job may have.
    pub(super) fn largest_part(&self) -> usize {
        self.budget.largest()
    }

    /// What is to be recorded of the budget before more is spent, with the amount to confirm it by.
    pub(super) fn record(&mut self, now: Instant) -> Option<(Saved, u64)> {
        let next = self.ready.front().map_or(0, recipients);
        self.budget.record(next, self.clock.time(now))
    }

    /// The record is on stable storage, or could not be written (`None`).
    pub(super) fn recorded(&mut self, covered: Option<u64>, now: Instant) {
        match covered {
            Some(covered) => self.budget.recorded(covered),
            None => self.budget.not_recorded(self.clock.time(now)),
        }
    }

    /// What is to be recorded when nothing more is spent.
    pub(super) fn last_record(&self) -> Option<Saved> {
        self.budget.last_record()
    }

    /// How much of the fullest window is used, in percent.
    pub(super) fn used_percent(&self, now: Instant) -> Option<u64> {
        self.budget.used_percent(self.clock.time(now))
    }

    // Jobs.

    pub(super) fn push(&mut self, job: Job) {
        self.ready.push(job.rank, job);
    }

    /// Puts a job that was not begun back at the head.
    pub(super) fn push_front(&mut self, job: Job) {
        self.ready.push_front(job.rank, job);
    }

    pub(super) fn take_ready(&mut self) -> Vec<Job> {
        self.ready.take(|_| true)
    }

    /// How many ready jobs carry the message.
    pub(super) fn waiting(&self, id: MessageId) -> usize {
        self.ready.iter().filter(|job| job.id == id).count()
    }

    /// How many jobs wait, and which of their messages was accepted first.
    pub(super) fn backlog(&self) -> (usize, Option<MessageId>) {
        (self.ready.len(), self.ready.iter().map(|job| job.id).min())
    }

    /// Removes the ready jobs that carry the message.
    pub(super) fn withdraw(&mut self, id: MessageId) {
        self.ready.take(|job| job.id == id);
    }

    /// Removes the ready jobs for which `expired` holds, while the upstream is left alone.
    pub(super) fn take_expired(&mut self, expired: impl Fn(&Job) -> bool) -> Vec<Job> {
        if self.gate.is_open() && self.full_until.is_none() {
            return Vec::new();
        }
        self.ready.take(expired)
    }

    /// Why the upstream gets nothing, if so.
    pub(super) fn obstacle(&self) -> Option<&str> {
        let full = self.full_until.map(|_| "the upstream's rates (spec.rates) are used up");
        self.gate.reason().or(full)
    }

    /// Whether messages that have another way should go here: it has not failed, or sessions stand all the same.
    pub(super) fn works(&self) -> bool {
        self.share > 0 && (!self.gate.has_failed() || (!self.gate.is_tripped() && self.sessions.open() > 0))
    }

    /// Whether it has failed and it is time that one message tries it again.
    pub(super) fn wants_probe(&self, now: Instant) -> bool {
        let wait_is_over = self.gate.opens_at().is_none_or(|at| at <= now);
        self.share > 0 && wait_is_over && self.ready.is_empty() && !self.sessions.any_busy()
    }

    // What sessions and replies say.

    pub(super) fn opening(&mut self, id: SessionId) {
        self.sessions.add_opening(id);
    }

    /// The session stands and takes `room` jobs at once. Returns whether it is the first after failures.
    pub(super) fn opened(&mut self, id: SessionId, room: usize) -> bool {
        self.sessions.set_open(id, room);
        self.gate.session_opened()
    }

    /// The session could not be opened. Returns whether it is known that this is so, and for this reason.
    pub(super) fn not_opened(&mut self, id: SessionId, reason: String, now: Instant) -> bool {
        self.sessions.remove(id);
        self.gate.fail(reason, now)
    }

    /// The session has ended one of its jobs and takes another.
    pub(super) fn ended(&mut self, id: SessionId, job: &Job, now: Instant) {
        if self.sessions.end_job(id, recipients(job)) {
            self.budget.outcome(recipients(job), self.clock.time(now));
        }
    }

    /// The session ends by itself, without an outcome for this job, and takes no more.
    pub(super) fn retiring(&mut self, id: SessionId, job: &Job, now: Instant) {
        self.ended(id, job, now);
        self.sessions.set_retiring(id);
    }

    pub(super) fn closed(&mut self, id: SessionId, now: Instant) {
        let spent = self.sessions.remove(id);
        if spent > 0 {
            self.budget.outcome(spent, self.clock.time(now));
        }
    }

    /// A message was delivered. Returns whether it is the first after the upstream was unwell.
    pub(super) fn delivered(&mut self) -> bool {
        self.gate.delivered()
    }

    /// A reply asks to leave the upstream alone. Returns whether it is known that it is to be, and for this reason.
    pub(super) fn hold(&mut self, hold: &Hold, now: Instant) -> bool {
        match hold.kind {
            HoldKind::Parked(wait) => self.gate.park(wait, hold.why.clone(), now),
            HoldKind::Tripped | HoldKind::CredentialsRejected => self.gate.trip(hold.why.clone(), now),
        }
    }

    pub(super) fn open_sessions(&self) -> usize {
        self.sessions.open()
    }

    pub(super) fn has_sessions(&self) -> bool {
        !self.sessions.is_empty()
    }

    pub(super) fn has_busy_sessions(&self) -> bool {
        self.sessions.any_busy()
    }

    // What is to be done.

    /// When the gate opens or the budget has room again, if jobs wait for it.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.gate.opens_at().max(self.full_until).filter(|_| !self.ready.is_empty())
    }

    /// The next thing to do; `None` when there is nothing to do before the next event or [`wake_at`](Self::wake_at).
    pub(super) fn next_action(&mut self, now: Instant) -> Option<Action> {
        if let Some(id) = self.sessions.surplus(self.share) {
            self.sessions.set_retiring(id);
            return Some(Action::Retire(id));
        }
        self.gate.reopen(now);
        let probing = self.gate.is_half_open() && self.sessions.any_busy();
        if self.ready.is_empty() || self.gate.is_closed() || probing {
            return None;
        }
        if self.full_until.is_some_and(|until| until > now) {
            return None;
        }
        self.full_until = None;
        let largest = self.largest_part();
        if self.ready.front().is_some_and(|job| job.recipients.len() > largest) {
            return self.ready.pop().map(Action::Replan);
        }
        if let Some(id) = self.sessions.idle() {
            return self.assign(id, now);
        }
        // While the upstream is not known to be back, one session tries.
        let wanted = if self.gate.is_half_open() { 1 } else { self.ready.len() };
        if self.sessions.len() < self.share {
            return (self.sessions.opening() < wanted).then_some(Action::Open);
        }
        // Behind another job only where no session of its own can be had: it may have to wait long there.
        let id = self.sessions.with_room(self.share)?;
        self.assign(id, now)
    }

    /// Gives the next job to the session, if the budget has room for it.
    fn assign(&mut self, id: SessionId, now: Instant) -> Option<Action> {
        let spent = self.ready.front().map(recipients)?;
        match self.budget.spend(spent, self.clock.time(now)) {
            Ok(()) => {
                self.sessions.begin_job(id, spent);
                self.ready.pop().map(|job| Action::Assign(id, job))
            }
            Err(refusal) => {
                if let Refusal::Until(time) = refusal {
                    self.full_until = Some(self.clock.instant(time));
                }
                None
            }
        }
    }
}

fn recipients(job: &Job) -> u64 {
    job.recipients.len() as u64
}

/// A recipient is a turn.
impl Cost for Job {
    fn cost(&self) -> u32 {
        u32::try_from(self.recipients.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests;
