//! One upstream's jobs and sessions: which job goes to which session, and when a session is opened or retired.
//!
//! Pure: events in, [`Action`]s out, time and budgets passed in. [`gate`] is its breaker, [`sessions`] what its sessions are doing,
//! [`sources`] where they connect from, [`waiting`] the jobs that wait for them, [`throttle`] how long its rates made them wait, [`concurrency`] how many sessions are worth it.

mod concurrency;
mod gate;
mod sessions;
mod sources;
mod throttle;
mod waiting;

use std::sync::Arc;
use std::time::{Duration, Instant};

use postroad_crds::relay_config::Standing;

use crate::budget::{Budgets, Scope, Until};
use crate::config::UpstreamPolicy;
use crate::delivery::{Hold, HoldKind, Job, SessionId};
use crate::message::MessageId;
use crate::order::UpstreamState;
use crate::queue::fair::Cost;
pub(super) use concurrency::Ending;

use concurrency::Concurrency;
use gate::Gate;
use sessions::{Charge, Sessions};
use sources::{Source, Sources};
use throttle::Throttle;
use waiting::Waiting;

/// What is to be done.
#[derive(Debug)]
pub(super) enum Action {
    /// Give the job to the session.
    Assign(SessionId, Job),
    /// Open a session from there and name it by [`Lane::opening`].
    Open(Source),
    /// Plan the job's recipients anew: they are more than one transaction may have.
    Replan(Job),
    /// Take no more jobs to the session and let it say QUIT.
    Retire(SessionId),
}

/// One upstream's jobs and sessions.
#[derive(Debug)]
pub(super) struct Lane {
    upstream: Arc<UpstreamPolicy>,
    scope: Scope,
    /// Sessions that it may have.
    share: usize,
    /// How many of them are in use.
    concurrency: Concurrency,
    waiting: Waiting,
    sessions: Sessions,
    sources: Sources,
    gate: Gate,
    /// A session has stood since sessions are made as they are.
    reached: bool,
    /// A person has ordered that it is given nothing.
    drained: bool,
    /// The upstream's rates leave no room before this.
    full_until: Option<Instant>,
    /// What is next waits for a source address whose rates leave room again then.
    source_full_until: Option<Instant>,
    throttle: Throttle,
}

/// What a job is given to.
enum Place {
    Session(SessionId),
    /// One that is to be opened from there.
    New(Source),
}

impl Lane {
    pub(super) fn new(upstream: Arc<UpstreamPolicy>, share: usize) -> Self {
        let sources = Sources::of(&upstream);
        Self {
            scope: Scope::Upstream(upstream.name.as_str().into()),
            upstream,
            share,
            concurrency: Concurrency::new(share, sources.len()),
            sources,
            waiting: Waiting::default(),
            sessions: Sessions::default(),
            gate: Gate::default(),
            reached: false,
            drained: false,
            full_until: None,
            source_full_until: None,
            throttle: Throttle::default(),
        }
    }

    pub(super) fn upstream(&self) -> &Arc<UpstreamPolicy> {
        &self.upstream
    }

    /// What every message of the lane counts for.
    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What every message of the lane may count for.
    pub(super) fn scopes(&self) -> impl Iterator<Item = &Scope> + Clone {
        std::iter::once(&self.scope).chain(self.sources.scopes())
    }

    /// Puts another configuration in force. Sessions that it would have made differently are retired when they are idle,
    /// and the gate opens, because what kept it closed may have been mended.
    pub(super) fn reconfigure(&mut self, upstream: Arc<UpstreamPolicy>, share: usize) {
        if !self.upstream.same_sessions(&upstream) {
            self.gate = Gate::default();
            self.reached = false;
            self.sessions.set_stale();
            self.concurrency.restart();
        }
        self.sources = Sources::of(&upstream);
        self.full_until = None;
        self.upstream = upstream;
        self.share = share;
        self.concurrency.limit(share, self.sources.len());
    }

    // Jobs.

    pub(super) fn push(&mut self, job: Job) {
        self.waiting.push(job);
    }

    /// Puts a job that was not begun back at the head.
    pub(super) fn push_front(&mut self, job: Job) {
        self.waiting.push_front(job);
    }

    pub(super) fn take_ready(&mut self) -> Vec<Job> {
        self.waiting.take(|_, _| true).into_iter().map(|(job, _)| job).collect()
    }

    /// How many ready jobs carry the message.
    pub(super) fn waiting(&self, id: MessageId) -> usize {
        self.waiting.iter().filter(|job| job.id == id).count()
    }

    /// How many jobs wait, and which of their messages was accepted first.
    pub(super) fn backlog(&mut self) -> (usize, Option<MessageId>) {
        (self.waiting.len(), self.waiting.oldest())
    }

    /// Removes the ready jobs that carry the message.
    pub(super) fn withdraw(&mut self, id: MessageId) {
        self.waiting.take(|job, _| job.id == id);
    }

    /// Removes the ready jobs of expired messages which may not go now, each with the reason why. Where `expired` holds of any
    /// message it holds of all that were accepted before: while it does not of the oldest, no other is looked at.
    pub(super) fn take_expired(&mut self, expired: impl Fn(MessageId) -> bool) -> Vec<(Job, String)> {
        if !self.waiting.oldest().is_some_and(&expired) {
            return Vec::new();
        }
        let goes = !self.drained
            && self.gate.is_open()
            && self.full_until.is_none()
            && self.source_full_until.is_none();
        let taken = self.waiting.take(|job, aside| (!goes || aside.is_some()) && expired(job.id));
        taken.into_iter().map(|(job, aside)| (job, self.keeps_waiting(aside.as_ref()))).collect()
    }

    /// Removes the ready jobs of messages in transit for which `unwanted` holds, each with the reason why it waits.
    pub(super) fn take_in_transit(&mut self, unwanted: impl Fn(MessageId) -> bool) -> Vec<(Job, String)> {
        if self.waiting.in_transit() == 0 {
            return Vec::new();
        }
        let taken = self.waiting.take(|job, _| job.in_transit && unwanted(job.id));
        taken.into_iter().map(|(job, aside)| (job, self.keeps_waiting(aside.as_ref()))).collect()
    }

    /// Why a job waits that may be `aside`.
    fn keeps_waiting(&self, aside: Option<&Scope>) -> String {
        let of_budgets = || match aside {
            Some(scope) => format!("the rates of {scope} are used up"),
            None if self.full_until.is_some() => format!("the rates of {} are used up", self.scope),
            None if self.source_full_until.is_some() => {
                "the rates of the source addresses are used up".to_owned()
            }
            None => "no session was free for it".to_owned(),
        };
        self.obstacle().unwrap_or_else(of_budgets)
    }

    /// Why a message that can wait for `patience` at most has nothing to wait for here; `None` when it has.
    pub(super) fn unavailable(&self, patience: Duration, now: Instant) -> Option<String> {
        let closed_until = self.gate.opens_at().max(self.full_until);
        let goes = self.works() || self.wants_probe(now);
        if goes && closed_until.is_none_or(|until| until <= now + patience) {
            return None;
        }
        if self.share == 0 {
            return Some("this relay has no share of its connections".to_owned());
        }
        Some(self.keeps_waiting(None))
    }

    fn may_be_used(&self) -> bool {
        self.share > 0 && !self.drained
    }

    /// Why it gets nothing, or is only tried.
    fn obstacle(&self) -> Option<String> {
        if self.drained {
            return Some("drained by order".to_owned());
        }
        self.gate.reason().map(str::to_owned)
    }

    /// Gives it no more mail, or gives it some again. Returns whether that is new. What its sessions have is brought to its end.
    pub(super) fn set_drained(&mut self, drained: bool) -> bool {
        std::mem::replace(&mut self.drained, drained) != drained
    }

    /// Where it stands, for people, but for its ports.
    pub(super) fn state(&self) -> UpstreamState {
        UpstreamState {
            name: self.upstream.name.clone(),
            drained: self.drained,
            works: self.works(),
            waiting: self.waiting.len() as u64,
            sessions: self.sessions.open() as u64,
            allowed_sessions: self.allowed() as u64,
            obstacle: self.obstacle(),
            standing: self.standing(),
            port: None,
            passed_over: Vec::new(),
        }
    }

    fn standing(&self) -> Standing {
        match (self.drained, self.share, self.works(), self.reached) {
            (true, ..) => Standing::Drained,
            (false, 0, ..) => Standing::NoShare,
            (false, _, false, _) => Standing::Fails,
            (false, _, true, true) => Standing::Works,
            (false, _, true, false) => Standing::Untried,
        }
    }

    /// Whether messages that have another way should go here: it has not failed, or sessions stand all the same.
    pub(super) fn works(&self) -> bool {
        self.may_be_used()
            && (!self.gate.has_failed() || (!self.gate.is_tripped() && self.sessions.open() > 0))
    }

    /// Whether it has failed and it is time that one message tries it again.
    pub(super) fn wants_probe(&self, now: Instant) -> bool {
        let wait_is_over = self.gate.opens_at().is_none_or(|at| at <= now);
        self.may_be_used() && wait_is_over && self.waiting.len() == 0 && !self.sessions.any_busy()
    }

    // What sessions and replies say.

    /// The session is being opened.
    pub(super) fn opening(&mut self, id: SessionId, source: Source) {
        self.sessions.add_opening(id, source);
    }

    /// The session stands and takes `room` jobs at once. Returns whether it is the first after failures.
    pub(super) fn opened(&mut self, id: SessionId, room: usize) -> bool {
        self.sessions.set_open(id, room);
        self.reached = true;
        self.gate.session_opened()
    }

    /// The session could not be opened. Returns whether it is known that this is so, and for this reason.
    pub(super) fn not_opened(&mut self, id: SessionId, reason: String, now: Instant) -> bool {
        self.sessions.remove(id);
        self.concurrency.restart();
        self.gate.fail(reason, now)
    }

    /// The session could not be opened because the relay does not have its source address. Returns as
    /// [`not_opened`](Self::not_opened).
    pub(super) fn source_missing(&mut self, id: SessionId, reason: String, now: Instant) -> bool {
        let source = self.sessions.source(id);
        if self.sources.set_missing(source, now) {
            self.sessions.remove(id);
            return false;
        }
        self.not_opened(id, reason, now)
    }

    /// The upstream declined the session. Returns whether there are others, so that it is known now how many it takes.
    pub(super) fn declined(&mut self, id: SessionId, now: Instant) -> bool {
        let others = self.sessions.len() - 1;
        if others > 0 {
            self.sessions.remove(id);
            self.concurrency.declined(others, now);
        }
        others > 0
    }

    /// A transaction that took so long has ended like this.
    pub(super) fn learn(&mut self, ending: Ending, took: Duration, now: Instant) {
        let in_full_use = self.waiting.in_turn() > 0
            && self.gate.is_open()
            && self.full_until.is_none()
            && self.source_full_until.is_none()
            && self.sessions.opening() == 0
            && self.sessions.len() >= self.allowed();
        let began = now.checked_sub(took).unwrap_or(now);
        self.concurrency.ended(ending, began, in_full_use, now);
    }

    /// How many sessions are in use at most, because more carry no more.
    pub(super) fn allowed(&self) -> usize {
        self.concurrency.allowed()
    }

    /// The session has ended one of its jobs and takes another.
    pub(super) fn ended(&mut self, id: SessionId, job: &Job, budgets: &mut Budgets, now: Instant) {
        let charge = Charge::of(job);
        if self.sessions.end_job(id, &charge) {
            self.outcome(self.sessions.source(id), &charge, budgets, now);
        }
    }

    /// The session ends by itself, without an outcome for this job, and takes no more.
    pub(super) fn retiring(&mut self, id: SessionId, job: &Job, budgets: &mut Budgets, now: Instant) {
        self.ended(id, job, budgets, now);
        self.sessions.set_retiring(id);
    }

    pub(super) fn closed(&mut self, id: SessionId, budgets: &mut Budgets, now: Instant) {
        let source = self.sessions.source(id);
        for charge in self.sessions.remove(id) {
            self.outcome(source, &charge, budgets, now);
        }
    }

    fn outcome(&self, source: Source, charge: &Charge, budgets: &mut Budgets, now: Instant) {
        let scopes =
            std::iter::once(&self.scope).chain(self.sources.scope(source)).chain(charge.scopes.iter());
        budgets.outcome(scopes, charge.recipients, now);
    }

    /// A message was delivered. Returns whether it is the first after the upstream was unwell.
    pub(super) fn delivered(&mut self) -> bool {
        self.gate.delivered()
    }

    /// A reply asks to leave the upstream alone. Returns whether it is known that it is to be, and for this reason.
    pub(super) fn hold(&mut self, hold: &Hold, now: Instant) -> bool {
        match hold.kind {
            HoldKind::Parked(wait) => self.gate.park(wait, hold.why.clone(), now),
            HoldKind::Tripped | HoldKind::CredentialsRejected => {
                self.concurrency.restart();
                self.gate.trip(hold.why.clone(), now)
            }
        }
    }

    /// Whether its sessions and what it was given fit into this relay's share, as they may not after that has become smaller.
    pub(super) fn keeps_to_share(&self, budgets: &Budgets, now: Instant) -> bool {
        self.sessions.len() <= self.share && budgets.fits(&self.scope, now)
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

    /// When the gate opens or a budget has room again, if jobs or sessions to be kept open wait for it.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        if self.drained {
            return None;
        }
        let lane = self.gate.opens_at().max(self.full_until).or(self.source_full_until);
        if self.waiting.in_turn() > 0 {
            return lane;
        }
        let aside = self.waiting.wake_at(now).map(|aside| lane.map_or(aside, |lane| lane.max(aside)));
        let kept_open = self.gate.opens_at().filter(|_| self.lacks_idle());
        [aside, kept_open].into_iter().flatten().min()
    }

    /// The next thing to do; `None` when there is nothing to do before the next event or [`wake_at`](Self::wake_at).
    pub(super) fn next_action(&mut self, budgets: &mut Budgets, now: Instant) -> Option<Action> {
        let action = self.decide(budgets, now);
        if action.is_none() {
            let throttled = self.waiting.in_turn() > 0
                && !self.drained
                && (self.gate.is_parked() || self.full_until.is_some() || self.source_full_until.is_some());
            self.throttle.note(throttled, now);
        }
        action
    }

    /// How long mail has waited for the rates, or because the upstream asked for it, since the last call.
    pub(super) fn take_throttled(&mut self, now: Instant) -> Duration {
        self.throttle.take(now)
    }

    fn decide(&mut self, budgets: &mut Budgets, now: Instant) -> Option<Action> {
        let share = if self.drained { 0 } else { self.share };
        if let Some(id) = self.sessions.surplus(share) {
            self.sessions.set_retiring(id);
            return Some(Action::Retire(id));
        }
        if self.drained {
            return None;
        }
        self.gate.reopen(now);
        let probing = self.gate.is_half_open() && self.sessions.any_busy();
        if self.gate.is_closed() || probing {
            return None;
        }
        self.give_out(budgets, now).or_else(|| self.keep_open(now))
    }

    /// Gives the next job to a session for which all budgets have room.
    fn give_out(&mut self, budgets: &mut Budgets, now: Instant) -> Option<Action> {
        if self.full_until.is_some_and(|until| until > now) {
            return None;
        }
        (self.full_until, self.source_full_until) = (None, None);
        self.waiting.release(budgets, now);
        loop {
            if self.waiting.follow_others() {
                continue;
            }
            let (recipients, scopes) =
                self.waiting.front().map(|job| (recipients(job), job.scopes.clone()))?;
            let largest = budgets.largest(self.scopes().chain(scopes.iter()));
            if recipients > largest as u64 {
                return self.waiting.pop().map(Action::Replan);
            }
            let (id, source) = match self.place(recipients, budgets, now)? {
                Place::New(source) => return Some(Action::Open(source)),
                Place::Session(id) => (id, self.sessions.source(id)),
            };
            let of_lane = std::iter::once(&self.scope).chain(self.sources.scope(source));
            match budgets.spend(of_lane.chain(scopes.iter()), recipients, now) {
                Ok(()) => {
                    let job = self.waiting.pop()?;
                    self.sessions.begin_job(id, Charge::of(&job));
                    return Some(Action::Assign(id, job));
                }
                Err(refused) if refused.scope == self.scope => {
                    if let Until::Moment(moment) = refused.until {
                        self.full_until = Some(moment);
                    }
                    return None;
                }
                Err(refused) => self.waiting.set_aside(refused),
            }
            self.waiting.release(budgets, now);
        }
    }

    /// Where a job of so many recipients goes.
    fn place(&mut self, recipients: u64, budgets: &mut Budgets, now: Instant) -> Option<Place> {
        let room = self.sources.room(recipients, budgets, now);
        let place = self.place_among(&room.now, now);
        if place.is_none() {
            self.source_full_until = room.next;
        }
        place
    }

    fn place_among(&self, sources: &[Source], now: Instant) -> Option<Place> {
        // One that is not worth it now stays, until it was idle for long.
        if self.sessions.busy() < self.allowed()
            && let Some(id) = self.sessions.idle(sources)
        {
            return Some(Place::Session(id));
        }
        if self.sessions.len() < self.allowed() {
            let source = self.sources.next(&self.sessions, |source| sources.contains(&source), now)?;
            return self.may_open(self.waiting.in_turn()).then_some(Place::New(source));
        }
        // Behind another job only where no session of its own can be had: it may have to wait long there.
        self.sessions.with_room(self.share, sources).map(Place::Session)
    }

    /// Whether one more is to be opened when so many are wanted. While the upstream is not known to be back, one session tries.
    fn may_open(&self, wanted: usize) -> bool {
        let wanted = if self.gate.is_half_open() { 1 } else { wanted };
        self.sessions.len() < self.share && self.sessions.opening() < wanted
    }

    /// Opens one of the sessions that are kept open without a job.
    fn keep_open(&self, now: Instant) -> Option<Action> {
        if !self.lacks_idle() || !self.may_open(usize::MAX) {
            return None;
        }
        self.sources.next(&self.sessions, |_| true, now).map(Action::Open)
    }

    fn lacks_idle(&self) -> bool {
        let wanted = self.upstream.connections.minimum_idle as usize;
        self.sessions.remaining() < wanted.min(self.allowed())
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
