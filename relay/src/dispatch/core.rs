//! What dispatch decides: the queue, the lanes and the messages in flight as one state. [`Event`]s in, [`Action`]s out.
//!
//! Pure: no IO, no clock, no task, no chance. So it can be driven by the driver and, in virtual time, by a simulation.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::{Action, Event, Now, Recorded, SavedBudgets};
use super::in_flight::InFlight;
use super::lane::{self, Ending, Lane};
use super::lanes::Lanes;
use super::news::{News, Remedy};
use super::obey::Obeyed;
use super::parts;
use super::plan::{self, Plan, Planned, Request};
use super::settle::{Settled, Unrecorded, Unsettled};
use super::shares;
use super::ways::Ways;
use crate::attempt::Attempt;
use crate::budget::{Budgets, Clock, Scope};
use crate::config::{Policy, UpstreamPolicy};
use crate::delivery::{Contact, Fate, Hold, HoldKind, Job, OpenError, Report, SessionId};
use crate::message::{MessageId, Timestamp};
use crate::order::{MessageOrder, Order, OrderRefused, UpstreamAct, UpstreamOrder};
use crate::queue::fair::Priority;
use crate::queue::{Queue, schedule};
use crate::routing;
use crate::spool::{self, Recovered, SpoolError};
use crate::submission::Accepted;

/// Messages being planned at once.
pub(super) const PLANNING: usize = 256;
/// Sessions that may break under one job before it waits like any other that failed.
const BROKEN_SESSIONS: u8 = 3;

/// The state of dispatch.
#[derive(Debug)]
pub(super) struct Core {
    policy: Arc<Policy>,
    queue: Queue,
    lanes: Lanes,
    /// This relay's number in its pool, for its shares.
    ordinal: u32,
    budgets: Budgets,
    ways: Ways,
    messages: InFlight,
    /// Parts planned under a policy that is no longer in force, or for an upstream that has failed since.
    replan: VecDeque<(MessageId, Arc<[usize]>)>,
    planning: usize,
    settling: usize,
    stopping: bool,
    /// When it was last asked or told anything, to notice a wall clock that steps back.
    last: Now,
    /// The recipients of most jobs, which need no memory of their own.
    first_alone: Arc<[usize]>,
    /// Decided and not yet given out.
    actions: VecDeque<Action>,
}

impl Core {
    /// The state at the start: it knows of no message. The policy comes into force by [`Event::PolicyChanged`], as any other.
    pub(super) fn new(policy: Arc<Policy>, ordinal: u32, now: Now) -> Self {
        Self {
            policy,
            queue: Queue::new(),
            lanes: Lanes::new(),
            ordinal,
            budgets: Budgets::new(Clock::new(now.monotonic, now.wall)),
            ways: Ways::default(),
            messages: InFlight::default(),
            replan: VecDeque::new(),
            planning: 0,
            settling: 0,
            stopping: false,
            last: now,
            first_alone: Arc::from([0]),
            actions: VecDeque::new(),
        }
    }

    /// Takes note of what has happened.
    pub(super) fn handle(&mut self, event: Event, now: Now) {
        self.watch_clock(now);
        match event {
            Event::Recovered(messages) => self.recovered(&messages, now),
            Event::Accepted(message) => self.accept(&message, now.monotonic),
            Event::Planned(planned) => self.planned(planned, now),
            Event::Reported(session, report) => self.hear(session, report, now),
            Event::NotTaken(session, job) => self.give_back(session, job, now.monotonic),
            Event::Settled(result) => self.settled(result, now),
            Event::Recorded(Recorded { scope, covered }) => {
                self.budgets.recorded(&scope, covered, now.monotonic);
            }
            Event::Ordered(Order::Message(order)) => self.ordered(order),
            Event::Ordered(Order::Upstream(order)) => self.ordered_upstream(order),
            Event::Ordered(Order::GiveUp(id)) => self.give_up(id),
            Event::Obeyed(obeyed) => self.obeyed(obeyed),
            Event::PolicyChanged(policy, saved) => self.reconfigure(policy, saved, now),
            Event::ExpiryCheck => self.expire_unattempted(now),
            Event::Stopping => self.stopping = true,
        }
    }

    /// The next thing to do; `None` when there is nothing before the next event or [`wake_after`](Self::wake_after). To be asked
    /// until then.
    pub(super) fn next_action(&mut self, now: Now) -> Option<Action> {
        self.watch_clock(now);
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            if self.stopping {
                return None;
            }
            if let Some(request) = self.next_request(now) {
                return Some(Action::Plan(request));
            }
            match self.lanes.next_action(&mut self.budgets, now.monotonic) {
                Some((_, lane::Action::Assign(session, job))) => return Some(Action::Assign(session, job)),
                Some((_, lane::Action::Retire(session))) => return Some(Action::Retire(session)),
                Some((_, lane::Action::Replan(job))) => self.replan.push_back((job.id, job.recipients)),
                Some((upstream, lane::Action::Open(source))) => {
                    let (id, upstream) = self.lanes.open(&upstream, source)?;
                    return Some(Action::Open(id, upstream, source));
                }
                None => {
                    let (scope, saved, covered) = self.budgets.record(now.monotonic)?;
                    return Some(Action::Record(scope, saved, covered));
                }
            }
        }
    }

    /// How long nothing is to be done, if nothing happens; `None`: for ever.
    pub(super) fn wake_after(&self, now: Now) -> Option<Duration> {
        if self.stopping {
            return None;
        }
        let may_plan = self.planning < PLANNING;
        let due = self.queue.next_due().filter(|_| may_plan).map(|due| due.since(now.wall));
        let lanes = self.lanes.iter().filter_map(|(_, lane)| lane.wake_at(now.monotonic));
        lanes.map(|at| at.saturating_duration_since(now.monotonic)).chain(due).min()
    }

    /// No delivery runs and no outcome is unsettled.
    pub(super) fn is_quiet(&self) -> bool {
        self.settling == 0 && !self.lanes.iter().any(|(_, lane)| lane.has_busy_sessions())
    }

    /// The policy in force.
    pub(super) fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// What has rates in the policy and of which nothing is known here.
    pub(super) fn unknown(&self, policy: &Policy) -> Vec<Scope> {
        let scopes = policy.rates.iter().map(|(scope, _)| scope);
        scopes.filter(|scope| !self.budgets.knows(scope)).cloned().collect()
    }

    /// The message accepted first of all.
    pub(super) fn oldest(&self) -> Option<MessageId> {
        self.queue.oldest()
    }

    /// How many messages are held, and which of them was accepted first.
    pub(super) fn held(&self) -> (usize, Option<MessageId>) {
        self.queue.held()
    }

    /// The budgets of everything that has rates.
    pub(super) fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// By upstream, the number of its newest division; `None` where this relay does not keep to it yet.
    pub(super) fn divisions(&self, now: Now) -> BTreeMap<String, Option<u64>> {
        let kept = |(name, lane): (&Arc<str>, &Lane)| {
            let newest = self.policy.upstreams.get(&**name).and_then(|it| it.divisions.last());
            let keeps = lane.keeps_to_share(&self.budgets, now.monotonic);
            (name.to_string(), newest.filter(|_| keeps).map(|division| division.number))
        };
        self.lanes.iter().map(kept).collect()
    }

    /// How many jobs wait for each upstream, and which of their messages was accepted first.
    pub(super) fn backlogs(&mut self) -> impl Iterator<Item = (&str, usize, Option<MessageId>)> {
        self.lanes.iter_mut().map(|(name, lane)| {
            let (waiting, oldest) = lane.backlog();
            (&**name, waiting, oldest)
        })
    }

    /// How long mail has waited for each upstream's rates since the last call.
    pub(super) fn take_throttled(&mut self, now: Instant) -> impl Iterator<Item = (&str, Duration)> {
        self.lanes.iter_mut().map(move |(name, lane)| (&**name, lane.take_throttled(now)))
    }

    /// How many messages of this urgency there are, and which of them was accepted first.
    pub(super) fn class(&self, priority: Priority) -> (usize, Option<MessageId>) {
        self.queue.class(priority)
    }

    /// Due times are written by the wall clock; one that steps back must not make mail wait for it to come round again.
    fn watch_clock(&mut self, now: Now) {
        let back = now.stepped_back(std::mem::replace(&mut self.last, now));
        if !back.is_zero() {
            self.queue.hasten(back);
            self.tell(News::SteppedBack(back));
        }
    }

    fn tell(&mut self, news: News) {
        self.actions.push_back(Action::Tell(news));
    }

    // Messages: from the queue into lanes.

    fn recovered(&mut self, messages: &[Recovered], now: Now) {
        for message in messages {
            let tenant = message.identity.as_deref().unwrap_or_default();
            let due_at = schedule::recovered(&self.policy.retry, message.due_at, now.wall);
            self.queue.insert(message.id, due_at, tenant, self.policy.priority(tenant));
        }
    }

    fn accept(&mut self, Accepted { envelope, state, in_transit }: &Accepted, now: Instant) {
        let tenant = envelope.identity.as_deref().unwrap_or_default();
        let priority = self.policy.priority(tenant);
        if self.queue.insert(envelope.id, state.next_due(), tenant, priority)
            && !state.held
            && self.queue.take(envelope.id)
        {
            let plan = Plan { in_transit: *in_transit, ..plan::plan(&self.policy, envelope, state.queued()) };
            self.enter_lanes(envelope.id, plan, now);
        }
    }

    /// A message that is due, or a part to be planned anew, as long as few are being planned.
    fn next_request(&mut self, now: Now) -> Option<Request> {
        if self.planning >= PLANNING {
            return None;
        }
        let again = self.replan.pop_front().map(|(id, part)| (id, Some(part)));
        let (id, part) = again.or_else(|| self.queue.due(now.wall).map(|id| (id, None)))?;
        self.planning += 1;
        Some(Request { id, part, policy: self.policy.clone() })
    }

    fn planned(&mut self, Planned { request, result }: Planned, now: Now) {
        self.planning -= 1;
        match result {
            Ok(plan) => {
                if request.part.is_some() {
                    self.messages.replanned(request.id);
                }
                self.enter_lanes(request.id, plan, now.monotonic);
            }
            Err(error) => self.unreadable(request.id, error, now.wall),
        }
    }

    fn enter_lanes(&mut self, id: MessageId, plan: Plan, now: Instant) {
        let Some(rank) = self.queue.rank(id) else { return };
        let parts = parts::parts(&plan, id, &self.policy, &self.lanes, now);
        let in_transit = plan.in_transit;
        let kept =
            || parts::keeps_from_transit(&plan, &parts, &self.policy, &self.lanes, &mut self.budgets, now);
        if let Some(why) = in_transit.then(kept).flatten() {
            let recipients = plan.parts.iter().flat_map(|(_, part)| part).chain(&plan.unrouted).copied();
            return self.decided(id, 0, recipients.collect(), &why);
        }
        let mut count = 0_u32;
        for ((upstream, scopes), recipients) in parts {
            match self.lanes.get_mut(upstream) {
                Some(lane) => {
                    let counted = lane.scopes().chain(scopes.iter());
                    for part in recipients.chunks(self.budgets.largest(counted)) {
                        count += 1;
                        let recipients = if part == [0] { self.first_alone.clone() } else { part.into() };
                        let scopes = scopes.clone();
                        lane.push(Job { id, recipients, rank, scopes, in_transit, broken_sessions: 0 });
                    }
                }
                // The upstream went while the message was planned.
                None => {
                    count += 1;
                    self.replan.push_back((id, recipients.into()));
                }
            }
        }
        let why = parts::unrouted(&self.policy);
        self.decided(id, count, plan.unrouted, &why);
    }

    /// The message travels in `parts` more parts; these recipients travel nowhere, for the reason given.
    fn decided(&mut self, id: MessageId, parts: u32, recipients: Vec<usize>, why: &str) {
        let decided = recipients.into_iter().map(|index| (index, Fate::Deferred(why.into()))).collect();
        let unsettled = self.messages.planned(id, parts, decided);
        self.settle(unsettled);
    }

    // Sessions.

    fn hear(&mut self, session: SessionId, report: Report, now: Now) {
        let Some((upstream, lane)) = self.lanes.of(session) else { return };
        let (worked, allowed) = (lane.works(), lane.allowed());
        let failed = matches!(report, Report::NotOpened(_));
        self.note(session, upstream.clone(), report, now);
        let allowed_now = self.lanes.get_mut(&upstream).map(|lane| lane.allowed());
        if let Some(sessions) = allowed_now.filter(|now| *now != allowed) {
            self.tell(News::Allowed { upstream: upstream.clone(), sessions });
        }
        let works = self.lanes.works(&upstream);
        if works != worked {
            self.look_at_ways();
        }
        if !works && (worked || failed) {
            self.find_other_ways(&upstream);
            self.turn_back(&upstream, |_| true);
        }
    }

    fn note(&mut self, session: SessionId, upstream: Arc<str>, report: Report, now: Now) {
        let Some(lane) = self.lanes.get_mut(&upstream) else { return };
        match report {
            Report::Opened { room } => {
                let again = lane.opened(session, room);
                let count = lane.open_sessions();
                self.tell(News::SessionOpened { upstream: upstream.clone(), again });
                self.tell(News::OpenSessions { upstream, count });
            }
            Report::NotOpened(error) => {
                self.not_opened(&upstream, session, &error, now.monotonic);
                self.forget(session);
            }
            Report::Finished { job, fates, contact } => {
                lane.ended(session, &job, &mut self.budgets, now.monotonic);
                self.heed(&upstream, &fates, contact.took, now.monotonic);
                self.outcome(&upstream, &job, fates, Some(contact));
            }
            Report::Returned { job, fault: None } => self.give_back(session, job, now.monotonic),
            Report::Returned { job, fault: Some(fault) } => self.broken(session, job, fault, now.monotonic),
            Report::Unreadable { job, error } => {
                lane.ended(session, &job, &mut self.budgets, now.monotonic);
                self.unreadable(job.id, error, now.wall);
            }
            Report::Closed => {
                lane.closed(session, &mut self.budgets, now.monotonic);
                let count = lane.open_sessions();
                self.tell(News::OpenSessions { upstream, count });
                self.forget(session);
            }
        }
    }

    /// Notices which routes fail over or back.
    fn look_at_ways(&mut self) {
        let changes = self.ways.update(&self.policy.routes, |upstream| self.lanes.works(upstream));
        self.actions.extend(changes.into_iter().map(|change| Action::Tell(News::Way(change))));
    }

    /// What waits for an upstream that has failed is planned anew, if there is a route by which some of it may go elsewhere.
    fn find_other_ways(&mut self, failed: &str) {
        let works = |upstream: &str| self.lanes.works(upstream);
        let other_way = self.policy.routes.iter().any(|route| {
            routing::upstreams(route).any(|upstream| upstream == failed)
                && routing::working_priority(route, works).is_some()
        });
        if other_way {
            let jobs = self.lanes.get_mut(failed).map(Lane::take_ready).unwrap_or_default();
            self.plan_anew(jobs);
        }
    }

    fn not_opened(&mut self, upstream: &Arc<str>, session: SessionId, error: &OpenError, now: Instant) {
        let Some(lane) = self.lanes.get_mut(upstream) else { return };
        let reason = error.to_string();
        let (declined, hold) = match error {
            OpenError::Declined { hold, .. } => (true, *hold),
            OpenError::Unreachable(_) | OpenError::NoSourceAddress(_) => (false, None),
        };
        let upstream = upstream.clone();
        let rejected = matches!(hold, Some(HoldKind::CredentialsRejected));
        if declined && !rejected && lane.declined(session, now) {
            return self.tell(News::SessionDeclined { upstream, reason });
        }
        let known = match hold {
            Some(kind @ HoldKind::Parked(_)) => {
                lane.closed(session, &mut self.budgets, now);
                lane.hold(&Hold { kind, why: reason.clone() }, now)
            }
            _ if matches!(error, OpenError::NoSourceAddress(_)) => {
                lane.source_missing(session, reason.clone(), now)
            }
            _ => lane.not_opened(session, reason.clone(), now),
        };
        self.tell(News::SessionNotOpened { upstream, reason, credentials_rejected: rejected, known });
    }

    /// The session is over, and its lane too if it was the last of an upstream that is no longer there.
    fn forget(&mut self, session: SessionId) {
        let jobs = self.lanes.forget(session, &self.policy);
        self.plan_anew(jobs);
        self.tell_gone();
    }

    fn tell_gone(&mut self) {
        let gone = self.lanes.take_gone();
        self.actions.extend(gone.into_iter().map(|upstream| Action::Tell(News::Gone { upstream })));
    }

    /// The session takes no more jobs and had not begun with this one.
    fn give_back(&mut self, session: SessionId, job: Job, now: Instant) {
        if let Some((_, lane)) = self.lanes.of(session) {
            lane.retiring(session, &job, &mut self.budgets, now);
            lane.push_front(job);
        }
    }

    /// The session broke under the job before an outcome. It goes again at once, unless it may be what breaks sessions.
    fn broken(&mut self, session: SessionId, mut job: Job, reason: String, now: Instant) {
        let Some((upstream, lane)) = self.lanes.of(session) else { return };
        job.broken_sessions += 1;
        let again = job.broken_sessions < BROKEN_SESSIONS;
        lane.retiring(session, &job, &mut self.budgets, now);
        lane.learn(Ending::Broken, Duration::ZERO, now);
        if again {
            lane.push_front(job.clone());
        }
        self.tell(News::SessionLost { upstream: upstream.clone(), id: job.id, reason: reason.clone() });
        if !again {
            let fates = job.recipients.iter().map(|_| Fate::Deferred(reason.as_str().into())).collect();
            self.outcome(&upstream, &job, fates, None);
        }
    }

    /// What the fates of one transaction say about the upstream itself.
    fn heed(&mut self, upstream: &Arc<str>, fates: &[Fate], took: Duration, now: Instant) {
        let Some(lane) = self.lanes.get_mut(upstream) else { return };
        let delivered = fates.iter().any(|fate| matches!(fate, Fate::Delivered(_) | Fate::Relayed(_)));
        let again = delivered && lane.delivered();
        let held = fates.iter().find_map(|fate| if let Fate::Held(hold) = fate { Some(hold) } else { None });
        lane.learn(Ending::of(fates), took, now);
        let known = held.map(|hold| lane.hold(hold, now));
        if again {
            self.tell(News::TakesMailAgain { upstream: upstream.clone() });
        }
        if let (Some(hold), Some(known)) = (held, known) {
            self.tell(News::Held { upstream: upstream.clone(), hold: hold.clone(), known });
        }
    }

    // Outcomes.

    /// The job's recipients have their fates; without a contact no session came to an outcome.
    fn outcome(&mut self, upstream: &Arc<str>, job: &Job, fates: Vec<Fate>, contact: Option<Contact>) {
        let replies = contact.map(|contact| contact.replies);
        self.tell(News::attempted(upstream, &fates, replies));
        if let Some(Fate::Ambiguous(reason)) = fates.first() {
            let (upstream, recipients) = (upstream.clone(), fates.len() as u64);
            self.tell(News::Ambiguous { id: job.id, upstream, recipients, reason: reason.clone() });
        }
        let attempt = Attempt {
            upstream: upstream.clone(),
            address: contact.and_then(|contact| contact.address),
            took: contact.map_or(Duration::ZERO, |contact| contact.took),
            recipients: job.recipients.clone(),
        };
        let unsettled = self.messages.outcome(job.id, fates, attempt);
        self.settle(unsettled);
    }

    fn settle(&mut self, unsettled: Option<Unsettled>) {
        if let Some(unsettled) = unsettled {
            self.settling += 1;
            self.actions.push_back(Action::Settle(unsettled));
        }
    }

    fn settled(&mut self, result: Result<Settled, Unrecorded>, now: Now) {
        self.settling -= 1;
        let settled = match result {
            Ok(settled) => settled,
            Err(unrecorded) => return self.unrecorded(unrecorded, now.wall),
        };
        let expired = settled.ended.get(spool::Fate::Expired);
        if expired > 0 {
            self.tell(News::Expired(expired));
        }
        self.tell(News::Settled { id: settled.id, recipients: settled.recipients });
        if settled.held {
            self.tell(News::HeldAsAmbiguous { id: settled.id });
        }
        if settled.last {
            match settled.wait {
                Some(wait) => self.queue.reschedule(settled.id, now.wall.after(wait)),
                None => self.queue.settle(settled.id),
            };
        }
        let unsettled = self.messages.settled(settled.id, settled.last);
        self.settle(unsettled);
        if let Some(notification) = settled.notification {
            self.tell(News::Notified { id: notification.envelope.id, about: settled.id });
            self.accept(&notification, now.monotonic);
        }
    }

    /// What cannot be recorded must not be tried again by this process: it would arrive once more each time. The next start
    /// finds the message as the spool last knew it.
    fn unrecorded(&mut self, Unrecorded { id, delivered, error }: Unrecorded, now: Timestamp) {
        if matches!(error, SpoolError::Damaged { .. }) {
            return self.unreadable(id, error, now);
        }
        self.messages.forget(id);
        self.queue.settle(id);
        self.tell(News::Unrecorded { id, delivered, error });
    }

    fn unreadable(&mut self, id: MessageId, error: SpoolError, now: Timestamp) {
        self.messages.forget(id);
        let remedy = match &error {
            SpoolError::Unknown(_) => {
                self.queue.settle(id);
                Remedy::None
            }
            SpoolError::Damaged { reason, .. } => {
                self.queue.settle(id);
                self.actions.push_back(Action::Quarantine(id, reason.clone()));
                Remedy::Quarantine
            }
            _ => {
                let retry = schedule::next_attempt(&self.policy.retry, 1, id.fraction(), now);
                self.queue.reschedule(id, retry);
                Remedy::Later
            }
        };
        self.tell(News::Unreadable { id, error, remedy });
    }

    /// Messages that wait for an upstream without a session are not attempted, so their expiry is looked after here.
    fn expire_unattempted(&mut self, now: Now) {
        let after = self.policy.expire_after;
        let expired = |id: MessageId| schedule::expired(id.accepted_at(), after, now.wall);
        let taken: Vec<_> =
            self.lanes.iter_mut().map(|(name, lane)| (name.clone(), lane.take_expired(expired))).collect();
        for (upstream, jobs) in taken {
            self.not_attempted(&upstream, jobs);
        }
    }

    /// The jobs have their end without an attempt, for the reasons given.
    fn not_attempted(&mut self, upstream: &Arc<str>, jobs: Vec<(Job, String)>) {
        for (job, why) in jobs {
            let fates = job.recipients.iter().map(|_| Fate::Deferred(why.as_str().into())).collect();
            self.outcome(upstream, &job, fates, None);
        }
    }

    // Messages in transit, whose clients wait.

    /// Lets messages in transit that wait for the upstream wait no longer.
    fn turn_back(&mut self, upstream: &Arc<str>, unwanted: impl Fn(MessageId) -> bool) {
        let jobs =
            self.lanes.get_mut(upstream).map(|lane| lane.take_in_transit(unwanted)).unwrap_or_default();
        let named = jobs.into_iter().map(|(job, why)| (job, format!("upstream {upstream}: {why}")));
        let named = named.collect();
        self.not_attempted(upstream, named);
    }

    /// The client waits no longer than for what has been begun.
    fn give_up(&mut self, id: MessageId) {
        let upstreams: Vec<_> = self.lanes.iter().map(|(upstream, _)| upstream.clone()).collect();
        for upstream in upstreams {
            self.turn_back(&upstream, |waiting| waiting == id);
        }
    }

    // Orders.

    fn ordered_upstream(&mut self, order: UpstreamOrder) {
        let known = match &order.act {
            Some((name, act)) => self.drain(name, *act == UpstreamAct::Drain),
            None => true,
        };
        let states = known.then(|| self.lanes.iter().map(|(_, lane)| lane.state()).collect());
        self.actions.push_back(Action::AnswerUpstream(order, states));
    }

    /// Returns whether there is an upstream of this name.
    fn drain(&mut self, name: &str, drained: bool) -> bool {
        let Some(lane) = self.lanes.get_mut(name) else { return false };
        if lane.set_drained(drained) {
            self.tell(News::Drained { upstream: name.into(), drained });
            self.look_at_ways();
            if drained {
                self.find_other_ways(name);
                self.turn_back(&name.into(), |_| true);
            }
        }
        true
    }

    fn ordered(&mut self, order: MessageOrder) {
        if self.withdraw(order.id) {
            self.settling += 1;
            self.actions.push_back(Action::Obey(order));
        } else {
            let refused = OrderRefused::UnderWay(order.id);
            self.actions.push_back(Action::Answer(order, Err(refused)));
        }
    }

    /// Takes a message out of the queue, or out of the lanes when no session has any of it; nothing but an order is carried
    /// out for it from here on.
    fn withdraw(&mut self, id: MessageId) -> bool {
        if self.queue.take(id) {
            return true;
        }
        let waiting = self.lanes.iter().map(|(_, lane)| lane.waiting(id)).sum::<usize>()
            + self.replan.iter().filter(|(part_of, _)| *part_of == id).count();
        let withdrawn = u32::try_from(waiting).is_ok_and(|waiting| self.messages.withdraw(id, waiting));
        if withdrawn {
            self.lanes.iter_mut().for_each(|(_, lane)| lane.withdraw(id));
            self.replan.retain(|(part_of, _)| *part_of != id);
        }
        withdrawn
    }

    /// A message of which nothing is known any more is not tried by this process: see [`unrecorded`](Self::unrecorded).
    fn obeyed(&mut self, obeyed: Obeyed) {
        self.settling -= 1;
        let Obeyed { order, result, due_at, recipients } = obeyed;
        match due_at {
            Some(due_at) => self.queue.reschedule(order.id, due_at),
            None => self.queue.settle(order.id),
        };
        if result.is_ok() {
            self.tell(News::Obeyed { id: order.id, act: order.act, recipients });
        }
        self.actions.push_back(Action::Answer(order, result));
    }

    // Policy.

    fn reconfigure(&mut self, policy: Arc<Policy>, saved: SavedBudgets, now: Now) {
        let planned_otherwise =
            policy.routes != self.policy.routes || !policy.rates.charge_as(&self.policy.rates);
        self.policy = policy.clone();
        let rates = shares::rates(&policy, self.ordinal);
        let sessions = |upstream: &UpstreamPolicy| shares::sessions(upstream, &rates, self.ordinal);
        let sessions: BTreeMap<&str, u32> =
            policy.upstreams.iter().map(|(name, upstream)| (name.as_str(), sessions(upstream))).collect();
        self.budgets.configure(&rates, saved, now.monotonic);
        let jobs = self.lanes.configure(&policy, &sessions);
        self.plan_anew(jobs);
        self.tell_gone();
        for (name, connections) in sessions {
            let sessions = self.lanes.get_mut(name).map_or(0, |lane| lane.allowed());
            let upstream: Arc<str> = name.into();
            self.tell(News::Share { upstream: upstream.clone(), connections });
            self.tell(News::Allowed { upstream, sessions });
        }
        if planned_otherwise {
            let jobs: Vec<_> = self.lanes.iter_mut().flat_map(|(_, lane)| lane.take_ready()).collect();
            self.plan_anew(jobs);
        }
        self.look_at_ways();
    }

    fn plan_anew(&mut self, jobs: impl IntoIterator<Item = Job>) {
        self.replan.extend(jobs.into_iter().map(|job| (job.id, job.recipients)));
    }
}
