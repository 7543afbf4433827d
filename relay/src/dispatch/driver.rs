//! Performs what [`Core`] decides, with channels and tasks, and tells it what happens.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use super::budgets;
use super::core::{Core, PLANNING};
use super::event::{Action, Event, Now, Recorded};
use super::obey::{self, Obeyed};
use super::observer::Observer;
use super::plan::{self, Planned, Request};
use super::settle::{self, Settled, Unrecorded, Unsettled};
use crate::config::{Policy, UpstreamPolicy};
use crate::delivery::{self, Job, PortMemory, Report, Session, SessionId};
use crate::handover::Tombstones;
use crate::message::MessageId;
use crate::messages::Messages;
use crate::metrics::Metrics;
use crate::order::{Order, UpstreamState};
use crate::queue::fair::Priority;
use crate::shutdown::{Phase, Shutdown};
use crate::spool::Recovered;
use crate::submission::Accepted;

/// Reports, settlements and records that may wait for the loop.
const BACKLOG: usize = 1024;
/// How long sessions may take to end when the relay stops: a little more than they wait for the answer to QUIT.
const LAST_WORDS: Duration = Duration::from_secs(6);
/// How often it is looked whether this relay keeps to new shares, until it does.
const SHARE_CHECK: Duration = Duration::from_secs(1);
/// How often messages are looked at that wait for an upstream that cannot be reached.
const EXPIRY_CHECK: Duration = Duration::from_secs(30);

/// What dispatch is made of.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// Where messages are.
    pub messages: Messages,
    /// What is left of those that other relays gave to this one.
    pub tombstones: Tombstones,
    /// The policy in force.
    pub policy: watch::Receiver<Arc<Policy>>,
    /// This relay's number in its pool, for its share of connections and rates.
    pub ordinal: u32,
    /// The relay's data folder.
    pub data: PathBuf,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// By upstream, the number of the newest division to which this relay keeps: told here.
    pub divisions: watch::Sender<BTreeMap<String, u64>>,
    /// How far the relay is on its way to stopping.
    pub shutdown: Shutdown,
}

/// The loop.
pub(super) struct Driver {
    dispatch: Dispatch,
    core: Core,
    keeps_to_shares: bool,
    observer: Observer,
    ports: HashMap<String, Arc<PortMemory>>,
    /// The way to give a session its jobs; none for a session that is to take no more.
    sessions: HashMap<SessionId, mpsc::Sender<Job>>,
    requests: mpsc::Sender<Request>,
    reports: mpsc::Sender<(SessionId, Report)>,
    settled: mpsc::Sender<Result<Settled, Unrecorded>>,
    recorded: mpsc::Sender<Recorded>,
    obeyed: mpsc::Sender<Obeyed>,
    tasks: TaskTracker,
}

/// What the loop hears.
pub(super) struct Inbox {
    recovered: mpsc::Receiver<Vec<Recovered>>,
    accepted: mpsc::Receiver<Accepted>,
    planned: mpsc::Receiver<Planned>,
    reports: mpsc::Receiver<(SessionId, Report)>,
    settled: mpsc::Receiver<Result<Settled, Unrecorded>>,
    recorded: mpsc::Receiver<Recorded>,
    orders: mpsc::Receiver<Order>,
    obeyed: mpsc::Receiver<Obeyed>,
}

impl Driver {
    /// A loop and what it will hear.
    pub(super) fn new(
        dispatch: Dispatch,
        recovered: mpsc::Receiver<Vec<Recovered>>,
        accepted: mpsc::Receiver<Accepted>,
        orders: mpsc::Receiver<Order>,
    ) -> (Self, Inbox) {
        let (requests, requested) = mpsc::channel(PLANNING);
        let (planned_in, planned) = mpsc::channel(PLANNING);
        let (reports_in, reports) = mpsc::channel(BACKLOG);
        let (settled_in, settled) = mpsc::channel(BACKLOG);
        let (recorded_in, recorded) = mpsc::channel(BACKLOG);
        let (obeyed_in, obeyed) = mpsc::channel(BACKLOG);
        let tasks = TaskTracker::new();
        tasks.spawn(plan::run(dispatch.messages.clone(), requested, planned_in));
        let policy = dispatch.policy.borrow().clone();
        let driver = Self {
            core: Core::new(policy, dispatch.ordinal, Now::read()),
            keeps_to_shares: false,
            observer: Observer(dispatch.metrics.clone()),
            ports: HashMap::new(),
            sessions: HashMap::new(),
            requests,
            reports: reports_in,
            settled: settled_in,
            recorded: recorded_in,
            obeyed: obeyed_in,
            tasks,
            dispatch,
        };
        (driver, Inbox { recovered, accepted, planned, reports, settled, recorded, orders, obeyed })
    }

    /// Runs until the relay stops, nothing more is accepted and what was under way has ended.
    pub(super) async fn run(mut self, mut inbox: Inbox) {
        let mut shutdown = self.dispatch.shutdown.clone();
        let mut expiry_check = tokio::time::interval(EXPIRY_CHECK);
        let mut share_check = tokio::time::interval(SHARE_CHECK);
        let (mut accepting, mut stopping) = (true, false);
        self.policy_changed();
        loop {
            self.act();
            if stopping && !accepting && self.core.is_quiet() {
                break;
            }
            self.observer.oldest(self.core.oldest());
            self.observer.held_messages(self.core.held());
            let wake = sleep(self.core.wake_after(Now::read()).unwrap_or(EXPIRY_CHECK));
            tokio::select! {
                message = inbox.accepted.recv(), if accepting => match message {
                    Some(message) => self.heard(Event::Accepted(message)),
                    None => accepting = false,
                },
                Some(batch) = inbox.recovered.recv() => self.heard(Event::Recovered(batch)),
                Some((session, report)) = inbox.reports.recv() => {
                    if matches!(report, Report::NotOpened(_) | Report::Closed) {
                        self.sessions.remove(&session);
                    }
                    let opened = matches!(report, Report::Opened { .. });
                    self.heard(Event::Reported(session, report));
                    if opened {
                        self.tell_ports();
                    }
                }
                Some(planned) = inbox.planned.recv() => self.heard(Event::Planned(planned)),
                Some(result) = inbox.settled.recv() => self.heard(Event::Settled(result)),
                Some(recorded) = inbox.recorded.recv() => self.heard(Event::Recorded(recorded)),
                Some(order) = inbox.orders.recv() => {
                    // Who has been told that a message is accepted may give an order about it.
                    for _ in 0..inbox.accepted.len() {
                        let Ok(message) = inbox.accepted.try_recv() else { break };
                        self.heard(Event::Accepted(message));
                    }
                    self.heard(Event::Ordered(order));
                }
                Some(obeyed) = inbox.obeyed.recv() => self.heard(Event::Obeyed(obeyed)),
                Ok(()) = self.dispatch.policy.changed() => self.policy_changed(),
                _ = share_check.tick(), if !self.keeps_to_shares => self.tell_divisions(),
                _ = expiry_check.tick() => {
                    self.heard(Event::ExpiryCheck);
                    let now = Now::read();
                    self.core.backlogs().for_each(|(name, waiting, oldest)| {
                        self.observer.backlog(name, waiting, oldest, now.wall);
                    });
                    for (name, waited) in self.core.take_throttled(now.monotonic) {
                        self.observer.throttled(name, waited);
                    }
                    for priority in [Priority::High, Priority::Normal] {
                        self.observer.class(priority, self.core.class(priority), now.wall);
                    }
                    let used = self.core.budgets().used_percent(now.monotonic);
                    used.for_each(|(scope, percent)| self.observer.budget_used(scope, percent));
                    let exhausted = self.core.budgets().exhausted_in(now.monotonic);
                    exhausted.for_each(|(scope, wait)| self.observer.budget_exhausted(scope, wait));
                }
                () = wake => {}
                () = shutdown.reached(Phase::Stopping), if !stopping => {
                    stopping = true;
                    self.heard(Event::Stopping);
                }
            }
        }
        self.end().await;
    }

    /// Lets the sessions say QUIT. One that is still being opened has nothing to lose and is not waited for.
    async fn end(mut self) {
        self.sessions.clear();
        let Self { tasks, requests, core, dispatch, .. } = self;
        drop(requests);
        tasks.close();
        let _ = timeout(LAST_WORDS, tasks.wait()).await;
        budgets::leave(dispatch.data, core.budgets().last_records()).await;
    }

    /// Tells of upstreams that are reached on another port now.
    fn tell_ports(&self) {
        for (upstream, ports) in &self.ports {
            if let Some(change) = ports.take_change() {
                self.observer.port(upstream, &change);
            }
        }
    }

    /// Completes where upstreams stand by the ports that are in use.
    fn with_ports(&self, states: Option<Vec<UpstreamState>>) -> Option<Vec<UpstreamState>> {
        let complete = |state: UpstreamState| match self.ports.get(&state.name).and_then(|it| it.in_use()) {
            Some((port, passed_over)) => UpstreamState { port: Some(port), passed_over, ..state },
            None => state,
        };
        states.map(|states| states.into_iter().map(complete).collect())
    }

    fn heard(&mut self, event: Event) {
        self.core.handle(event, Now::read());
    }

    fn policy_changed(&mut self) {
        let policy = self.dispatch.policy.borrow_and_update().clone();
        self.ports.retain(|upstream, _| policy.upstreams.contains_key(upstream));
        let saved = budgets::read(&self.dispatch.data, self.core.unknown(&policy));
        let before = self.core.policy().clone();
        self.heard(Event::PolicyChanged(policy.clone(), saved));
        self.observer.reconfigured(&before, &policy);
        self.tell_divisions();
    }

    /// Tells to which shares this relay keeps.
    fn tell_divisions(&mut self) {
        let divisions = self.core.divisions(Now::read());
        self.keeps_to_shares = divisions.values().all(Option::is_some);
        let told = divisions.into_iter().map(|(upstream, number)| (upstream, number.unwrap_or_default()));
        self.dispatch.divisions.send_replace(told.collect());
    }

    fn act(&mut self) {
        while let Some(action) = self.core.next_action(Now::read()) {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            // The channel holds as many as may be planned at once; only a planner that has ended refuses.
            Action::Plan(request) => drop(self.requests.try_send(request)),
            Action::Open(session, upstream, source) => self.open(session, upstream, source),
            Action::Assign(session, job) => self.assign(session, job),
            Action::Retire(session) => drop(self.sessions.remove(&session)),
            Action::Settle(unsettled) => self.settle(unsettled),
            Action::Record(scope, saved, covered) => {
                let (data, done) = (self.dispatch.data.clone(), self.recorded.clone());
                self.tasks.spawn(budgets::record(data, scope, saved, covered, done));
            }
            Action::Obey(order) => {
                let (spool, tombstones) =
                    (self.dispatch.messages.spool.clone(), self.dispatch.tombstones.clone());
                let done = self.obeyed.clone();
                self.tasks.spawn(async move {
                    let _ = done.send(obey::obey(&spool, &tombstones, order).await).await;
                });
            }
            // Whoever asked may have gone; what was done stays done.
            Action::Answer(order, result) => drop(order.answer.send(result)),
            Action::AnswerUpstream(order, states) => drop(order.answer.send(self.with_ports(states))),
            Action::Quarantine(id, reason) => self.quarantine(id, reason),
            Action::Tell(news) => self.observer.tell(news),
        }
    }

    fn open(&mut self, id: SessionId, upstream: Arc<UpstreamPolicy>, source: Option<IpAddr>) {
        let (sender, jobs) = mpsc::channel(delivery::MOST_JOBS);
        self.sessions.insert(id, sender);
        self.tasks.spawn(delivery::run(Session {
            id,
            ports: self.ports.entry(upstream.name.clone()).or_default().clone(),
            upstream,
            source,
            messages: self.dispatch.messages.clone(),
            data: self.dispatch.data.clone(),
            policy: self.dispatch.policy.clone(),
            shutdown: self.dispatch.shutdown.clone(),
            jobs,
            reports: self.reports.clone(),
        }));
    }

    fn assign(&mut self, session: SessionId, job: Job) {
        let refused = match self.sessions.get(&session) {
            Some(sender) => match sender.try_send(job) {
                Ok(()) => return,
                Err(error) => error.into_inner(),
            },
            None => job,
        };
        self.heard(Event::NotTaken(session, refused));
    }

    fn settle(&self, unsettled: Unsettled) {
        let (id, delivered) = (unsettled.id, unsettled.delivered());
        let (messages, tombstones) = (self.dispatch.messages.clone(), self.dispatch.tombstones.clone());
        let policy = self.core.policy().clone();
        let done = self.settled.clone();
        self.tasks.spawn(async move {
            let settled = settle::settle(&messages, &tombstones, &policy, unsettled).await;
            let result = settled.map_err(|error| Unrecorded { id, delivered, error });
            let _ = done.send(result).await;
        });
    }

    fn quarantine(&self, id: MessageId, reason: String) {
        let spool = self.dispatch.messages.spool.clone();
        self.tasks.spawn(async move {
            if let Err(error) = spool.quarantine(id, &reason).await {
                tracing::error!(%id, %error, "the damaged message could not be put into quarantine");
            }
        });
    }
}
