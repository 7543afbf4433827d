//! Hops 5 to 8 of a message: when it goes and on which session, and what its outcome means.
//!
//! One task owns the queue and every upstream's lane, so no decision needs a lock: it hears of accepted messages, session
//! reports, finished settlements and changed policies, and acts on what [`queue`](crate::queue) and `lane` decide. Deliveries
//! and settlements run beside it. Only this module calls [`delivery`](crate::delivery).
//!
//! A message due is planned into parts, one per upstream; each part is a job in that upstream's lane. A part's outcome is
//! settled in the spool at once; when no part is left the message is done or due again.

mod budgets;
mod in_flight;
mod lane;
mod plan;
mod settle;
mod settlement;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::budget::Clock;
use crate::config::Policy;
use crate::delivery::{self, Fate, Hold, HoldKind, Job, OpenError, PortMemory, Report, Session, SessionId};
use crate::message::{MessageId, Timestamp};
use crate::metrics::{self, Metrics};
use crate::queue::{Queue, schedule};
use crate::shutdown::{Phase, Shutdown};
use crate::spool::{self, Recovered, Spool, SpoolError};
use crate::submission::Accepted;
use budgets::Recorded;
use in_flight::InFlight;
use lane::{Action, Lane};
use plan::{Plan, Planned, Request};
use settle::{Settled, Unsettled};

/// Messages being planned at once.
const PLANNING: usize = 256;
/// Reports, settlements and plans that may wait for the loop.
const BACKLOG: usize = 1024;
/// Sessions that may break under one job before it waits like any other that failed.
const BROKEN_SESSIONS: u8 = 3;
/// How long sessions may take to end when the relay stops: a little more than they wait for the answer to QUIT.
const LAST_WORDS: Duration = Duration::from_secs(6);
/// How often messages are looked at that wait for an upstream that cannot be reached.
const EXPIRY_CHECK: Duration = Duration::from_secs(30);

/// What dispatch is made of.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// Where messages are.
    pub spool: Spool,
    /// The policy in force.
    pub policy: watch::Receiver<Arc<Policy>>,
    /// This relay's number in its pool, for its share of the connections.
    pub ordinal: u32,
    /// The relay's data folder.
    pub data: PathBuf,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How far the relay is on its way to stopping.
    pub shutdown: Shutdown,
}

/// Delivers until the relay stops and `accepted` has ended; what is not delivered by then stays in the spool.
///
/// `recovered` is what the spool held at its opening. *Cancellation*: a dropped future delivers nothing more; messages whose
/// session was in the middle of a transaction are tried again after the next start.
pub async fn run(dispatch: Dispatch, recovered: Vec<Recovered>, accepted: mpsc::Receiver<Accepted>) {
    let (reports_in, reports) = mpsc::channel(BACKLOG);
    let (planned_in, planned) = mpsc::channel(PLANNING);
    let (requests, requested) = mpsc::channel(PLANNING);
    let (settled_in, settled) = mpsc::channel(BACKLOG);
    let (recorded_in, recorded) = mpsc::channel(BACKLOG);
    let planner = plan::run(dispatch.spool.clone(), requested, planned_in);
    let tasks = TaskTracker::new();
    tasks.spawn(planner);
    let current = dispatch.policy.borrow().clone();
    let mut driver = Driver {
        queue: Queue::new(),
        lanes: BTreeMap::new(),
        ports: HashMap::new(),
        sessions: HashMap::new(),
        messages: InFlight::default(),
        replan: VecDeque::new(),
        planning: 0,
        settling: 0,
        next_session: 0,
        current,
        reports_in,
        requests,
        settled_in,
        recorded_in,
        clock: Clock::new(Instant::now(), SystemTime::now().into()),
        tasks,
        dispatch,
    };
    for message in recovered {
        driver.queue.insert(message.id, message.due_at, message.identity.as_deref().unwrap_or_default());
    }
    driver.configure_lanes();
    driver.run(Inbox { accepted, reports, planned, settled, recorded }).await;
}

/// What the loop hears.
struct Inbox {
    accepted: mpsc::Receiver<Accepted>,
    reports: mpsc::Receiver<(SessionId, Report)>,
    planned: mpsc::Receiver<Planned>,
    settled: mpsc::Receiver<Result<Settled, (MessageId, SpoolError)>>,
    recorded: mpsc::Receiver<Recorded>,
}

struct Driver {
    dispatch: Dispatch,
    current: Arc<Policy>,
    queue: Queue,
    lanes: BTreeMap<String, Lane>,
    ports: HashMap<String, Arc<PortMemory>>,
    /// The lane of every session and the way to give it jobs; `None` when it is to take no more.
    sessions: HashMap<SessionId, (String, Option<mpsc::Sender<Job>>)>,
    messages: InFlight,
    /// Parts planned under a policy that is no longer in force.
    replan: VecDeque<(MessageId, Arc<[usize]>)>,
    planning: usize,
    settling: usize,
    next_session: u64,
    reports_in: mpsc::Sender<(SessionId, Report)>,
    requests: mpsc::Sender<Request>,
    settled_in: mpsc::Sender<Result<Settled, (MessageId, SpoolError)>>,
    recorded_in: mpsc::Sender<Recorded>,
    clock: Clock,
    tasks: TaskTracker,
}

impl Driver {
    async fn run(mut self, mut inbox: Inbox) {
        let mut shutdown = self.dispatch.shutdown.clone();
        let mut expiry_check = tokio::time::interval(EXPIRY_CHECK);
        let mut accepting = true;
        loop {
            let stopping = shutdown.phase() == Phase::Stopping;
            if stopping && !accepting && self.is_quiet() {
                break;
            }
            if !stopping {
                self.take_due();
                self.act();
                self.record_budgets();
            }
            self.note_oldest();
            let wake = tokio::time::sleep(self.until_wake());
            tokio::select! {
                message = inbox.accepted.recv(), if accepting => match message {
                    Some(message) => self.accept(message),
                    None => accepting = false,
                },
                Some((session, report)) = inbox.reports.recv() => self.hear(session, report),
                Some(planned) = inbox.planned.recv() => self.plan(planned),
                Some(result) = inbox.settled.recv() => self.settled(result),
                Some(Recorded { upstream, covered }) = inbox.recorded.recv() => {
                    self.lane(&upstream, |lane| lane.recorded(covered, Instant::now()));
                }
                Ok(()) = self.dispatch.policy.changed() => self.reconfigure(),
                _ = expiry_check.tick() => {
                    self.expire_unreachable();
                    self.measure_budgets();
                }
                () = wake, if !stopping => {}
                () = shutdown.reached(Phase::Stopping), if !stopping => {}
            }
        }
        self.end().await;
    }

    /// No delivery runs and no outcome is unsettled.
    fn is_quiet(&self) -> bool {
        self.settling == 0 && !self.lanes.values().any(Lane::has_busy_sessions)
    }

    /// Lets the sessions say QUIT. One that is still being opened has nothing to lose and is not waited for.
    async fn end(mut self) {
        self.sessions.clear();
        let Self { tasks, requests, lanes, dispatch, .. } = self;
        drop(requests);
        tasks.close();
        let _ = timeout(LAST_WORDS, tasks.wait()).await;
        budgets::leave(&dispatch.data, &lanes).await;
    }

    fn until_wake(&self) -> Duration {
        if !self.replan.is_empty() && self.planning < PLANNING {
            return Duration::ZERO;
        }
        let now = Timestamp::from(SystemTime::now());
        let due = self.queue.next_due().filter(|_| self.planning < PLANNING).map(|due| due.since(now));
        let gates = self
            .lanes
            .values()
            .filter_map(Lane::wake_at)
            .map(|at| at.saturating_duration_since(Instant::now()));
        gates.chain(due).min().unwrap_or(EXPIRY_CHECK)
    }

    fn note_oldest(&self) {
        let accepted_at = self.queue.oldest().map_or(0, |id| id.accepted_at().0);
        self.dispatch.metrics.oldest_accepted_at.store(accepted_at, Ordering::Relaxed);
    }

    // Budgets: recorded before they are spent.

    fn record_budgets(&mut self) {
        let now = Instant::now();
        for (name, lane) in &mut self.lanes {
            if let Some((saved, covered)) = lane.record(now) {
                let (data, done) = (self.dispatch.data.clone(), self.recorded_in.clone());
                self.tasks.spawn(budgets::record(data, name.clone(), saved, covered, done));
            }
        }
    }

    fn measure_budgets(&self) {
        for (name, lane) in &self.lanes {
            if let Some(percent) = lane.used_percent(Instant::now()) {
                let gauge =
                    self.dispatch.metrics.budget_used_percent.get_or_create(&metrics::upstream(name)).clone();
                gauge.set(i64::try_from(percent).unwrap_or(i64::MAX));
            }
        }
    }

    // Messages: from the queue into lanes.

    fn accept(&mut self, Accepted { envelope, state }: Accepted) {
        let tenant = envelope.identity.as_deref().unwrap_or_default();
        if self.queue.insert(envelope.id, state.due_at, tenant) && self.queue.take(envelope.id) {
            let plan = plan::plan(&self.current, &envelope, state.queued());
            self.enter_lanes(envelope.id, plan);
        }
    }

    /// Hands messages that are due to the planner, as many as it takes at once.
    fn take_due(&mut self) {
        let now = Timestamp::from(SystemTime::now());
        while self.planning < PLANNING {
            let again = self.replan.pop_front().map(|(id, part)| (id, Some(part)));
            let Some((id, part)) = again.or_else(|| self.queue.due(now).map(|id| (id, None))) else { return };
            self.planning += 1;
            if self.requests.try_send(Request { id, part, policy: self.current.clone() }).is_err() {
                // The channel holds as many as may be planned at once; only a planner that has ended refuses.
                return;
            }
        }
    }

    fn plan(&mut self, Planned { request, result }: Planned) {
        self.planning -= 1;
        match result {
            Ok(plan) => {
                if request.part.is_some() {
                    self.messages.replanned(request.id);
                }
                self.enter_lanes(request.id, plan);
            }
            Err(error) => self.unreadable(request.id, error),
        }
    }

    fn enter_lanes(&mut self, id: MessageId, plan: Plan) {
        let mut parts = 0;
        for (upstream, recipients) in plan.parts {
            match self.lanes.get_mut(&upstream) {
                Some(lane) => {
                    for part in recipients.chunks(lane.largest_part()) {
                        parts += 1;
                        lane.push(Job { id, recipients: part.into(), broken_sessions: 0 });
                    }
                }
                // The upstream went while the message was planned.
                None => {
                    parts += 1;
                    self.replan.push_back((id, recipients.into()));
                }
            }
        }
        let obstacle = format!("no route of RelayPool {} takes it any more", self.current.pool);
        let unrouted =
            plan.unrouted.into_iter().map(|index| (index, Fate::Deferred(obstacle.clone()))).collect();
        let unsettled = self.messages.planned(id, parts, unrouted);
        self.settle(unsettled);
    }

    // Sessions: what the lanes want done.

    fn act(&mut self) {
        let now = Instant::now();
        while let Some((name, action)) = self.next_action(now) {
            match action {
                Action::Assign(session, job) => self.assign(&name, session, job),
                Action::Open => self.open(&name),
                Action::Replan(job) => self.replan.push_back((job.id, job.recipients)),
                Action::Retire(session) => self.take_no_more_jobs(session),
            }
        }
    }

    fn next_action(&mut self, now: Instant) -> Option<(String, Action)> {
        self.lanes
            .iter_mut()
            .find_map(|(name, lane)| lane.next_action(now).map(|action| (name.clone(), action)))
    }

    fn assign(&mut self, name: &str, session: SessionId, job: Job) {
        let sender = self.sessions.get(&session).and_then(|(_, sender)| sender.as_ref());
        let refused = match sender.map(|sender| sender.try_send(job.clone())) {
            Some(Ok(())) => return,
            Some(Err(error)) => error.into_inner(),
            None => job,
        };
        // The session retired by itself in this instant; its report is under way.
        if let Some(lane) = self.lanes.get_mut(name) {
            lane.retiring(session, Instant::now());
            lane.push_front(refused);
        }
    }

    fn open(&mut self, name: &str) {
        let Some(lane) = self.lanes.get_mut(name) else { return };
        let id = SessionId(self.next_session);
        self.next_session += 1;
        lane.opening(id);
        let (sender, jobs) = mpsc::channel(1);
        self.sessions.insert(id, (name.to_owned(), Some(sender)));
        self.tasks.spawn(delivery::run(Session {
            id,
            upstream: lane.upstream().clone(),
            ports: self.ports.entry(name.to_owned()).or_default().clone(),
            spool: self.dispatch.spool.clone(),
            data: self.dispatch.data.clone(),
            jobs,
            reports: self.reports_in.clone(),
        }));
    }

    fn take_no_more_jobs(&mut self, session: SessionId) {
        if let Some((_, sender)) = self.sessions.get_mut(&session) {
            *sender = None;
        }
    }

    fn hear(&mut self, session: SessionId, report: Report) {
        let Some((name, _)) = self.sessions.get(&session) else { return };
        let name = name.clone();
        let label = metrics::upstream(&name);
        let counters = self.dispatch.metrics.clone();
        match report {
            Report::Opened => {
                counters.sessions_opened.get_or_create(&label).inc();
                counters.upstream_up.get_or_create(&label).set(1);
                if self.lane(&name, |lane| lane.opened(session)) == Some(true) {
                    tracing::info!(upstream = name, "upstream reached again");
                }
            }
            Report::NotOpened(error) => {
                counters.sessions_failed.get_or_create(&label).inc();
                counters.upstream_up.get_or_create(&label).set(0);
                self.sessions.remove(&session);
                self.not_opened(&name, session, &error);
                self.drop_unused_lane(&name);
            }
            Report::Finished { job, fates } => {
                self.lane(&name, |lane| lane.idle(session, Instant::now()));
                self.heed(&name, &fates);
                log_delivered(&name, session, &job, &fates);
                self.outcome(&name, &job, fates);
            }
            Report::Returned { job, fault } => self.returned(&name, session, job, fault),
            Report::Unreadable { job, error } => {
                self.lane(&name, |lane| lane.idle(session, Instant::now()));
                self.unreadable(job.id, error);
            }
            Report::Closed => {
                self.sessions.remove(&session);
                self.lane(&name, |lane| lane.closed(session, Instant::now()));
                self.drop_unused_lane(&name);
            }
        }
        let open = self.lane(&name, |lane| lane.open_sessions()).unwrap_or(0);
        counters.sessions_open.get_or_create(&label).set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    fn not_opened(&mut self, name: &str, session: SessionId, error: &OpenError) {
        let (reason, now) = (error.to_string(), Instant::now());
        let parked = match error {
            OpenError::Declined { hold: Some(kind @ HoldKind::Parked(_)), .. } => Some(*kind),
            _ => None,
        };
        let news = self.lane(name, |lane| match parked {
            Some(kind) => {
                lane.closed(session, now);
                lane.hold(&Hold { kind, why: reason.clone() }, now)
            }
            None => lane.not_opened(session, reason.clone(), now),
        });
        let rejected = matches!(error, OpenError::Declined { hold: Some(HoldKind::CredentialsRejected), .. });
        match news {
            Some(true) if rejected => {
                tracing::error!(
                    upstream = name,
                    reason,
                    "credentials rejected; mail waits: check their Secret"
                );
            }
            Some(true) => tracing::warn!(upstream = name, reason, "no session with the upstream; mail waits"),
            _ => {}
        }
    }

    /// What the fates of one transaction say about the upstream itself.
    fn heed(&mut self, name: &str, fates: &[Fate]) {
        let now = Instant::now();
        if fates.iter().any(|fate| matches!(fate, Fate::Delivered(_) | Fate::Relayed(_)))
            && self.lane(name, Lane::delivered) == Some(true)
        {
            tracing::info!(upstream = name, "upstream takes mail again");
        }
        let held = fates.iter().find_map(|fate| if let Fate::Held(hold) = fate { Some(hold) } else { None });
        let Some(hold) = held else { return };
        self.dispatch.metrics.upstream_holds.get_or_create(&metrics::upstream(name)).inc();
        if self.lane(name, |lane| lane.hold(hold, now)) != Some(true) {
            return;
        }
        match hold.kind {
            HoldKind::Parked(wait) => {
                tracing::warn!(
                    upstream = name,
                    reason = hold.why,
                    seconds = wait.as_secs(),
                    "upstream parked; mail waits"
                );
            }
            HoldKind::Tripped => {
                tracing::warn!(upstream = name, reason = hold.why, "upstream unwell; mail waits")
            }
            HoldKind::CredentialsRejected => {
                tracing::error!(
                    upstream = name,
                    reason = hold.why,
                    "credentials rejected; mail waits: check their Secret"
                );
            }
        }
    }

    fn lane<T>(&mut self, name: &str, with: impl FnOnce(&mut Lane) -> T) -> Option<T> {
        self.lanes.get_mut(name).map(with)
    }

    fn returned(&mut self, name: &str, session: SessionId, mut job: Job, fault: Option<String>) {
        self.lane(name, |lane| lane.retiring(session, Instant::now()));
        let Some(fault) = fault else {
            self.lane(name, |lane| lane.push_front(job));
            return;
        };
        tracing::info!(id = %job.id, upstream = name, reason = fault, "session lost before an outcome");
        job.broken_sessions += 1;
        if job.broken_sessions < BROKEN_SESSIONS {
            self.lane(name, |lane| lane.push_front(job));
        } else {
            let fates = job.recipients.iter().map(|_| Fate::Deferred(fault.clone())).collect();
            self.outcome(name, &job, fates);
        }
    }

    // Outcomes.

    fn outcome(&mut self, name: &str, job: &Job, fates: Vec<Fate>) {
        let label = metrics::upstream(name);
        for fate in &fates {
            let counters = &self.dispatch.metrics;
            match fate {
                Fate::Delivered(_) | Fate::Relayed(_) => {
                    counters.recipients_delivered.get_or_create(&label).inc()
                }
                Fate::Refused(_) | Fate::Unsupported(_) => {
                    counters.recipients_failed.get_or_create(&label).inc()
                }
                Fate::Deferred(reason) | Fate::Held(Hold { why: reason, .. }) => {
                    tracing::info!(id = %job.id, upstream = name, reason, "deferred");
                    counters.recipients_deferred.get_or_create(&label).inc()
                }
            };
        }
        let unsettled = self.messages.outcome(job.id, job.recipients.iter().copied().zip(fates));
        self.settle(unsettled);
    }

    fn settle(&mut self, unsettled: Option<Unsettled>) {
        let Some(unsettled) = unsettled else { return };
        let id = unsettled.id;
        self.settling += 1;
        let (spool, policy, done) =
            (self.dispatch.spool.clone(), self.current.clone(), self.settled_in.clone());
        self.tasks.spawn(async move {
            let result = settle::settle(&spool, &policy, unsettled).await.map_err(|error| (id, error));
            let _ = done.send(result).await;
        });
    }

    fn settled(&mut self, result: Result<Settled, (MessageId, SpoolError)>) {
        self.settling -= 1;
        let settled = match result {
            Ok(settled) => settled,
            Err((id, error)) => return self.unsettled(id, error),
        };
        let counters = &self.dispatch.metrics;
        counters.recipients_expired.inc_by(settled.ended.get(spool::Fate::Expired));
        if settled.last {
            match settled.due_at {
                Some(due_at) => self.queue.reschedule(settled.id, due_at),
                None => self.queue.settle(settled.id),
            };
        }
        let unsettled = self.messages.settled(settled.id, settled.last);
        self.settle(unsettled);
        if let Some(notification) = settled.notification {
            self.dispatch.metrics.notifications.inc();
            tracing::info!(id = %notification.envelope.id, about = %settled.id, "sender notified");
            self.accept(notification);
        }
    }

    /// What cannot be recorded must not be tried again by this process: it would arrive once more each time. The next start
    /// finds the message as the spool last knew it.
    fn unsettled(&mut self, id: MessageId, error: SpoolError) {
        if matches!(error, SpoolError::Damaged { .. }) {
            return self.unreadable(id, error);
        }
        tracing::error!(%id, %error, "an outcome could not be recorded");
        self.messages.forget(id);
        self.queue.settle(id);
    }

    fn unreadable(&mut self, id: MessageId, error: SpoolError) {
        self.messages.forget(id);
        if matches!(error, SpoolError::Unknown(_)) {
            tracing::error!(%id, %error, "nothing is left to deliver");
            self.queue.settle(id);
            return;
        }
        let SpoolError::Damaged { reason, .. } = &error else {
            tracing::error!(%id, %error, "a message cannot be read; it is tried again later");
            let retry =
                schedule::next_attempt(&self.current.retry, 1, rand::random(), SystemTime::now().into());
            self.queue.reschedule(id, retry);
            return;
        };
        tracing::error!(%id, %error, "a message is damaged and goes into quarantine");
        self.dispatch.metrics.messages_quarantined.inc();
        self.queue.settle(id);
        let (spool, reason) = (self.dispatch.spool.clone(), reason.clone());
        self.tasks.spawn(async move {
            if let Err(error) = spool.quarantine(id, &reason).await {
                tracing::error!(%id, %error, "the damaged message could not be put into quarantine");
            }
        });
    }

    /// Messages that wait for an upstream without a session are not attempted, so their expiry is looked after here.
    fn expire_unreachable(&mut self) {
        let (now, after) = (Timestamp::from(SystemTime::now()), self.current.expire_after);
        let names: Vec<String> = self.lanes.keys().cloned().collect();
        for name in names {
            let expired = |job: &Job| schedule::expired(job.id.accepted_at(), after, now);
            let Some(lane) = self.lanes.get_mut(&name) else { continue };
            let obstacle = lane.obstacle().unwrap_or("the upstream cannot be reached").to_owned();
            for job in lane.take_expired(expired) {
                let fates = job.recipients.iter().map(|_| Fate::Deferred(obstacle.clone())).collect();
                self.outcome(&name, &job, fates);
            }
        }
    }

    // Policy.

    fn reconfigure(&mut self) {
        let next = self.dispatch.policy.borrow_and_update().clone();
        let routed_otherwise = next.routes != self.current.routes;
        self.current = next;
        self.configure_lanes();
        if routed_otherwise {
            for lane in self.lanes.values_mut() {
                let parts = lane.take_ready().into_iter();
                self.replan.extend(parts.map(|job| (job.id, job.recipients)));
            }
        }
    }

    /// A lane for every upstream of the policy. Lanes of others take no more sessions and go with their last one.
    fn configure_lanes(&mut self) {
        let policy = self.current.clone();
        for (name, upstream) in &policy.upstreams {
            let share = upstream.connections.share(self.dispatch.ordinal, policy.replicas);
            let label = metrics::upstream(name);
            self.dispatch.metrics.sessions_share.get_or_create(&label).set(i64::from(share));
            let share = share as usize;
            let rates = budgets::rates(upstream, self.dispatch.ordinal, policy.replicas);
            match self.lanes.get_mut(name) {
                Some(lane) => lane.reconfigure(upstream.clone(), share, &rates),
                None => {
                    let budget = budgets::open(&self.dispatch.data, name, &rates, self.clock);
                    self.lanes.insert(name.clone(), Lane::new(upstream.clone(), share, budget, self.clock));
                }
            }
        }
        let gone: Vec<String> =
            self.lanes.keys().filter(|name| !policy.upstreams.contains_key(*name)).cloned().collect();
        for name in gone {
            if let Some(lane) = self.lanes.get_mut(&name) {
                lane.reconfigure(lane.upstream().clone(), 0, &[]);
            }
            self.drop_unused_lane(&name);
        }
    }

    fn drop_unused_lane(&mut self, name: &str) {
        let unused = |lane: &Lane| !lane.has_sessions() && !self.current.upstreams.contains_key(name);
        if self.lanes.get(name).is_some_and(unused)
            && let Some(mut lane) = self.lanes.remove(name)
        {
            let parts = lane.take_ready().into_iter();
            self.replan.extend(parts.map(|job| (job.id, job.recipients)));
            self.ports.remove(name);
        }
    }
}

/// One line a transaction: all its delivered recipients share the reply to the content.
fn log_delivered(upstream: &str, session: SessionId, job: &Job, fates: &[Fate]) {
    let mut replies = fates.iter().filter_map(|fate| match fate {
        Fate::Delivered(reply) | Fate::Relayed(reply) => Some(reply),
        Fate::Deferred(_) | Fate::Refused(_) | Fate::Unsupported(_) | Fate::Held(_) => None,
    });
    if let Some(reply) = replies.next() {
        let recipients = 1 + replies.count();
        tracing::info!(id = %job.id, upstream, session = session.0, recipients, %reply, "delivered");
    }
}
