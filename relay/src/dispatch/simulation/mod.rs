//! Dispatch in virtual time: the very [`Core`] that a relay runs, with a model in the place of spool and upstreams.
//!
//! A world has one relay and one upstream. Everything that happens is an event at a time; days pass in seconds, and the same
//! seed gives the same day.

mod concurrency;
mod day;
mod division;
mod fairness;
mod memory;
mod upstream;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use postroad_crds::relay_config::RelayConfig;

use super::core::Core;
use super::event::{Action, Event, Now, Recorded};
use super::news::News;
use super::plan::{self, Planned, Request};
use super::settle::{Settled, Unsettled};
use super::settlement::{self, Rules};
use crate::config::Policy;
use crate::delivery::{Contact, Fate, Job, ReplyCounts, Report, SessionId};
use crate::message::{DeliveryState, Envelope, MessageId, Timestamp};
use crate::submission::Accepted;
use upstream::Upstream;

/// How long the spool and the planner take.
const DISK: Duration = Duration::from_millis(1);
/// When the world begins.
const BEGINNING: Timestamp = Timestamp(1_800_000_000_000);

/// A policy with one upstream, `box`, of these connections, and of these rates in YAML.
fn policy(connections: u32, rates: &str, identities: &str) -> Arc<Policy> {
    let config = RelayConfig::from_yaml(&format!(
        "version: relay-config.postroad.dev/v1
pool: {{namespace: mail, name: main}}
replicas: 1
hostname: relay.example
listeners: [{{name: smtp, address: '127.0.0.1:0', tls: None, authentication: None}}]
identities: {identities}
routes: [{{name: all, upstreams: [{{name: box}}]}}]
upstreams:
- name: box
  destination: {{sandbox: {{keepMessages: 1}}}}
  connections: {{maximum: {connections}, messagesPerConnection: 1000000, idleTimeoutSeconds: 30, maximumAgeSeconds: 900}}
  rates: {rates}
queue: {{expireAfterSeconds: 432000, minimumBackoffSeconds: 60, maximumBackoffSeconds: 3600, maximumBytes: 1000000}}
limits: {{messageBytes: 1000, recipientsPerMessage: 10, connections: 10, connectionsPerClient: 10}}
shutdown: {{acceptSeconds: 0, gracePeriodSeconds: 1}}
"
    ))
    .unwrap();
    Arc::new(Policy::compile(&config).unwrap())
}

/// A message to one recipient, the `number`th of all.
fn envelope(number: u64, tenant: &str, now: Timestamp) -> Envelope {
    Envelope {
        id: MessageId::new(now, u128::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15)),
        reverse_path: "a@example.com".to_owned(),
        recipients: vec!["b@example.net".into()],
        eight_bit: false,
        smtp_utf8: false,
        ret: None,
        envelope_id: None,
        size: 1,
        accepted_at: now,
        identity: Some(tenant.to_owned()),
        user: None,
    }
}

/// What will happen.
enum Coming {
    /// A client's message: its tenant.
    Arrival(Arc<str>),
    /// Dispatch hears of it.
    Event(Box<Event>),
    /// A job comes to its end at the upstream.
    Finish(SessionId, Job),
    /// Nothing but time.
    Wake,
}

/// One relay and its upstream.
struct World {
    core: Core,
    policy: Arc<Policy>,
    upstream: Upstream,
    beginning: Instant,
    elapsed: Duration,
    coming: BinaryHeap<Reverse<(Duration, u64)>>,
    what: HashMap<u64, Coming>,
    sequence: u64,
    spool: HashMap<MessageId, (Arc<Envelope>, DeliveryState)>,
    /// Every message that was accepted and delivered, with the times of both and its tenant.
    delivered: Vec<(MessageId, Duration, Duration, Arc<str>)>,
    accepted: u64,
    notified: u64,
    /// How many sessions were allowed, whenever that changed.
    allowed: Vec<(Duration, usize)>,
    /// The wake that is asked for, so that one is not asked for twice.
    next_wake: Option<Duration>,
}

impl World {
    fn new(policy: Arc<Policy>, upstream: Upstream) -> Self {
        let beginning = Instant::now();
        let now = Now { monotonic: beginning, wall: BEGINNING };
        let mut core = Core::new(policy.clone(), 0, now);
        let unknown = core.unknown(&policy).into_iter().map(|name| (name, None)).collect::<BTreeMap<_, _>>();
        core.handle(Event::PolicyChanged(policy.clone(), unknown), now);
        Self {
            core,
            policy,
            upstream,
            beginning,
            elapsed: Duration::ZERO,
            coming: BinaryHeap::new(),
            what: HashMap::new(),
            sequence: 0,
            spool: HashMap::new(),
            delivered: Vec::new(),
            accepted: 0,
            notified: 0,
            allowed: Vec::new(),
            next_wake: None,
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: self.beginning + self.elapsed, wall: BEGINNING.after(self.elapsed) }
    }

    fn at(&mut self, time: Duration, what: Coming) {
        self.coming.push(Reverse((time, self.sequence)));
        self.what.insert(self.sequence, what);
        self.sequence += 1;
    }

    fn after(&mut self, wait: Duration, event: Event) {
        self.at(self.elapsed + wait, Coming::Event(Box::new(event)));
    }

    /// Lets time pass until nothing more is to come, or until this time.
    fn run_until(&mut self, end: Duration) {
        self.act();
        while let Some(Reverse((time, sequence))) = self.coming.peek().copied() {
            if time > end {
                break;
            }
            self.coming.pop();
            self.elapsed = self.elapsed.max(time);
            match self.what.remove(&sequence) {
                Some(Coming::Arrival(tenant)) => self.arrive(&tenant),
                Some(Coming::Event(event)) => self.core.handle(*event, self.now()),
                Some(Coming::Finish(session, job)) => self.finish(session, job),
                Some(Coming::Wake) | None => self.next_wake = None,
            }
            self.act();
        }
        self.elapsed = self.elapsed.max(end);
    }

    fn arrive(&mut self, tenant: &Arc<str>) {
        let now = self.now().wall;
        self.accepted += 1;
        let envelope = Arc::new(envelope(self.accepted, tenant, now));
        let state = DeliveryState::new(1, now);
        self.spool.insert(envelope.id, (envelope.clone(), state.clone()));
        self.core.handle(Event::Accepted(Accepted { envelope, state, in_transit: false }), self.now());
    }

    fn act(&mut self) {
        while let Some(action) = self.core.next_action(self.now()) {
            self.perform(action);
        }
        if let Some(wait) = self.core.wake_after(self.now()) {
            // As a timer: never early.
            let wake = self.elapsed + wait.max(Duration::from_millis(1));
            if self.next_wake.is_none_or(|next| wake < next) {
                self.next_wake = Some(wake);
                self.at(wake, Coming::Wake);
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Plan(request) => self.plan(request),
            Action::Open(session, ..) => {
                let (wait, result) = self.upstream.open(session, self.elapsed);
                let report = result.map_or_else(Report::NotOpened, |()| Report::Opened { room: 1 });
                self.after(wait, Event::Reported(session, report));
            }
            Action::Assign(session, job) => {
                let wait = self.upstream.begin(session, self.elapsed);
                self.at(self.elapsed + wait, Coming::Finish(session, job));
            }
            Action::Retire(session) => {
                self.upstream.close(session);
                self.after(DISK, Event::Reported(session, Report::Closed));
            }
            Action::Settle(unsettled) => self.settle(unsettled),
            Action::Record(scope, _, covered) => {
                self.after(DISK, Event::Recorded(Recorded { scope, covered: Some(covered) }));
            }
            Action::Tell(News::Notified { .. }) => self.notified += 1,
            Action::Tell(News::Allowed { sessions, .. }) => self.allowed.push((self.elapsed, sessions)),
            Action::Tell(_) => {}
            Action::Obey(_) | Action::Answer(..) | Action::AnswerUpstream(..) => {
                unreachable!("nobody gives orders")
            }
            Action::Quarantine(id, reason) => panic!("{id} is damaged: {reason}"),
        }
    }

    fn plan(&mut self, request: Request) {
        let (envelope, state) = &self.spool[&request.id];
        let recipients: Vec<usize> =
            request.part.as_ref().map_or_else(|| state.queued().collect(), |part| part.to_vec());
        let plan = plan::plan(&request.policy, envelope, recipients);
        self.after(DISK, Event::Planned(Planned { request, result: Ok(plan) }));
    }

    fn finish(&mut self, session: SessionId, job: Job) {
        let (took, ended) = self.upstream.end(session, self.elapsed);
        let id = job.id;
        let report = match ended {
            Ok(fate) => {
                if matches!(fate, Fate::Delivered(_)) {
                    let (envelope, _) = &self.spool[&id];
                    let accepted = Duration::from_millis(envelope.accepted_at.0 - BEGINNING.0);
                    let tenant: Arc<str> = envelope.identity.as_deref().unwrap_or_default().into();
                    self.delivered.push((id, accepted, self.elapsed, tenant));
                }
                Report::Finished {
                    fates: vec![fate],
                    job,
                    contact: Contact { address: None, took, replies: ReplyCounts::default() },
                }
            }
            Err(fault) => Report::Returned { job, fault: Some(fault) },
        };
        let broken = matches!(report, Report::Returned { .. });
        self.core.handle(Event::Reported(session, report), self.now());
        if broken {
            self.upstream.close(session);
            self.core.handle(Event::Reported(session, Report::Closed), self.now());
        }
    }

    fn settle(&mut self, unsettled: Unsettled) {
        let Unsettled { id, fates, last, .. } = unsettled;
        let (envelope, state) = self.spool[&id].clone();
        let rules = Rules {
            retry: self.policy.retry,
            expire_after: self.policy.expire_after,
            now: self.now().wall,
            jitter: id.fraction(),
            hold_ambiguous: false,
        };
        let decision = settlement::decide(&envelope, state, &fates, last, &rules);
        let wait = decision.state.as_ref().map(|state| state.due_at.since(rules.now));
        match decision.state {
            Some(state) => drop(self.spool.insert(id, (envelope, state))),
            None => drop(self.spool.remove(&id)),
        }
        let settled = Settled {
            id,
            last,
            wait,
            notification: None,
            ended: decision.ended,
            held: decision.held,
            recipients: Vec::new(),
        };
        self.after(DISK, Event::Settled(Ok(settled)));
    }

    /// Every message accepted was delivered, once.
    fn assert_conserved(&self) {
        let mut ids: Vec<_> = self.delivered.iter().map(|(id, ..)| *id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((ids.len() as u64, self.delivered.len() as u64), (self.accepted, self.accepted));
        assert!(self.spool.is_empty() && self.core.oldest().is_none());
    }
}
