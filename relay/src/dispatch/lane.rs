//! One upstream's jobs and sessions: which job goes to which session, and when a session is opened or retired.
//!
//! Pure: events in, [`Action`]s out, time passed in. The driver is [`dispatch`](super).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::budget::{Budget, Clock, Rate, Refusal, Saved};
use crate::config::UpstreamPolicy;
use crate::delivery::{Hold, HoldKind, Job, SessionId};

/// The first wait after a session could not be opened; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What the driver is to do.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SessionState {
    Opening,
    Idle,
    Busy,
    /// Takes no more jobs, yet still counts for the upstream.
    Retiring,
}

#[derive(Debug)]
struct Held {
    state: SessionState,
    /// Made for a configuration that is no longer in force.
    stale: bool,
    /// Recipients of the job it is busy with.
    spent: u64,
}

/// Whether the upstream may be given anything: a breaker. While `failures` is not 0 it is half open at best: when its time has
/// come, one session or message tries.
#[derive(Debug, Default)]
struct Gate {
    failures: u32,
    closed_until: Option<Instant>,
    /// Whether a reply to a message has closed it, so that only a delivered message opens it.
    tripped: bool,
    /// Why, for people.
    reason: Option<String>,
}

/// One upstream's jobs and sessions.
#[derive(Debug)]
pub(super) struct Lane {
    upstream: Arc<UpstreamPolicy>,
    share: usize,
    ready: VecDeque<Job>,
    sessions: BTreeMap<SessionId, Held>,
    gate: Gate,
    budget: Budget,
    /// A window of the budget has no room before this.
    full_until: Option<Instant>,
    clock: Clock,
}

impl Lane {
    pub(super) fn new(upstream: Arc<UpstreamPolicy>, share: usize, budget: Budget, clock: Clock) -> Self {
        let (ready, sessions) = (VecDeque::new(), BTreeMap::new());
        Self { upstream, share, ready, sessions, gate: Gate::default(), budget, full_until: None, clock }
    }

    pub(super) fn upstream(&self) -> &Arc<UpstreamPolicy> {
        &self.upstream
    }

    /// Puts another configuration in force. Sessions that it would have made differently are retired when they are idle,
    /// and the gate opens, because what kept it closed may have been mended.
    pub(super) fn reconfigure(&mut self, upstream: Arc<UpstreamPolicy>, share: usize, rates: &[Rate]) {
        if !self.upstream.same_sessions(&upstream) {
            self.gate = Gate::default();
            self.sessions.values_mut().for_each(|session| session.stale = true);
        }
        self.budget.change(rates);
        self.full_until = None;
        self.upstream = upstream;
        self.share = share;
    }

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

    pub(super) fn push(&mut self, job: Job) {
        self.ready.push_back(job);
    }

    /// Puts a job that was not begun back at the head.
    pub(super) fn push_front(&mut self, job: Job) {
        self.ready.push_front(job);
    }

    pub(super) fn take_ready(&mut self) -> VecDeque<Job> {
        std::mem::take(&mut self.ready)
    }

    /// Removes the ready jobs for which `expired` holds, while the upstream is left alone.
    pub(super) fn take_expired(&mut self, expired: impl Fn(&Job) -> bool) -> Vec<Job> {
        if self.gate.closed_until.is_none() && self.gate.failures == 0 && self.full_until.is_none() {
            return Vec::new();
        }
        let (expired, kept): (Vec<_>, VecDeque<_>) = partition(std::mem::take(&mut self.ready), expired);
        self.ready = kept;
        expired
    }

    /// Why the upstream gets nothing, if so.
    pub(super) fn obstacle(&self) -> Option<&str> {
        let full = self.full_until.map(|_| "the upstream's rates (spec.rates) are used up");
        self.gate.reason.as_deref().or(full)
    }

    pub(super) fn opening(&mut self, id: SessionId) {
        self.sessions.insert(id, Held { state: SessionState::Opening, stale: false, spent: 0 });
    }

    /// The session stands. Returns whether it is the first after failures.
    pub(super) fn opened(&mut self, id: SessionId) -> bool {
        self.set(id, SessionState::Idle);
        !self.gate.tripped && std::mem::take(&mut self.gate).failures > 0
    }

    /// A message was delivered. Returns whether it is the first after the upstream was unwell.
    pub(super) fn delivered(&mut self) -> bool {
        self.gate.tripped && std::mem::take(&mut self.gate).failures > 0
    }

    /// A reply asks to leave the upstream alone. Returns whether this is news.
    pub(super) fn hold(&mut self, hold: &Hold, now: Instant) -> bool {
        match hold.kind {
            HoldKind::Parked(wait) => {
                let until = self.gate.closed_until.map_or(now + wait, |until| until.max(now + wait));
                self.gate.closed_until = Some(until);
                self.gate.reason.replace(hold.why.clone()).as_ref() != Some(&hold.why)
            }
            HoldKind::Tripped | HoldKind::CredentialsRejected => {
                self.gate.tripped = true;
                self.close(hold.why.clone(), now)
            }
        }
    }

    /// The session could not be opened. Returns whether this is news: the first failure, or one for another reason.
    pub(super) fn not_opened(&mut self, id: SessionId, reason: String, now: Instant) -> bool {
        self.sessions.remove(&id);
        self.close(reason, now)
    }

    fn close(&mut self, reason: String, now: Instant) -> bool {
        let wait = FIRST_WAIT.saturating_mul(1 << self.gate.failures.min(6)).min(LONGEST_WAIT);
        self.gate.failures += 1;
        self.gate.closed_until = Some(now + wait);
        self.gate.reason.replace(reason.clone()).as_ref() != Some(&reason)
    }

    /// The session has ended its job and takes another.
    pub(super) fn idle(&mut self, id: SessionId, now: Instant) {
        self.end_job(id, now);
        self.set(id, SessionState::Idle);
    }

    /// The session ends by itself and takes no more jobs.
    pub(super) fn retiring(&mut self, id: SessionId, now: Instant) {
        self.end_job(id, now);
        self.set(id, SessionState::Retiring);
    }

    pub(super) fn closed(&mut self, id: SessionId, now: Instant) {
        self.end_job(id, now);
        self.sessions.remove(&id);
    }

    fn end_job(&mut self, id: SessionId, now: Instant) {
        let spent = self.sessions.get_mut(&id).map_or(0, |held| std::mem::take(&mut held.spent));
        if spent > 0 {
            self.budget.outcome(spent, self.clock.time(now));
        }
    }

    fn set(&mut self, id: SessionId, state: SessionState) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.state = state;
        }
    }

    pub(super) fn open_sessions(&self) -> usize {
        self.sessions.values().filter(|session| session.state != SessionState::Opening).count()
    }

    pub(super) fn has_sessions(&self) -> bool {
        !self.sessions.is_empty()
    }

    pub(super) fn has_busy_sessions(&self) -> bool {
        self.sessions.values().any(|session| session.state == SessionState::Busy)
    }

    /// When the gate opens or the budget has room again, if jobs wait for it.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.gate.closed_until.max(self.full_until).filter(|_| !self.ready.is_empty())
    }

    /// The next thing to do; `None` when there is nothing to do before the next event or [`wake_at`](Self::wake_at).
    pub(super) fn next_action(&mut self, now: Instant) -> Option<Action> {
        if let Some(id) = self.surplus() {
            self.set(id, SessionState::Retiring);
            return Some(Action::Retire(id));
        }
        self.reopen(now);
        let probing = self.gate.failures > 0 && self.has_busy_sessions();
        if self.ready.is_empty() || self.gate.closed_until.is_some() || probing {
            return None;
        }
        if self.full_until.is_some_and(|until| until > now) {
            return None;
        }
        self.full_until = None;
        if self.ready.front().is_some_and(|job| job.recipients.len() > self.largest_part()) {
            return self.ready.pop_front().map(Action::Replan);
        }
        if let Some(id) = self.idle_session() {
            return self.assign(id, now);
        }
        let opening = self.sessions.values().filter(|session| session.state == SessionState::Opening).count();
        // While the upstream is not known to be back, one session tries.
        let wanted = if self.gate.failures > 0 { 1 } else { self.ready.len() };
        (opening < wanted && self.sessions.len() < self.share).then_some(Action::Open)
    }

    /// Gives the next job to the session, if the budget has room for it.
    fn assign(&mut self, id: SessionId, now: Instant) -> Option<Action> {
        let spent = self.ready.front().map(recipients)?;
        match self.budget.spend(spent, self.clock.time(now)) {
            Ok(()) => {
                let held = self.sessions.get_mut(&id)?;
                (held.state, held.spent) = (SessionState::Busy, spent);
                self.ready.pop_front().map(|job| Action::Assign(id, job))
            }
            Err(refusal) => {
                if let Refusal::Until(time) = refusal {
                    self.full_until = Some(self.clock.instant(time));
                }
                None
            }
        }
    }

    /// The time of the gate has come. What was parked starts anew; what has failed is tried by one.
    fn reopen(&mut self, now: Instant) {
        if self.gate.closed_until.is_some_and(|until| until <= now) {
            self.gate.closed_until = None;
            if self.gate.failures == 0 {
                self.gate.reason = None;
            }
        }
    }

    /// An idle session that is one too many or was made for another configuration.
    fn surplus(&self) -> Option<SessionId> {
        let remaining = self.sessions.values().filter(|held| held.state != SessionState::Retiring).count();
        let too_many = remaining > self.share;
        let surplus = |held: &Held| held.state == SessionState::Idle && (held.stale || too_many);
        self.sessions.iter().find(|(_, held)| surplus(held)).map(|(id, _)| *id)
    }

    /// The newest, so that what a lull leaves over is idle long enough to be retired.
    fn idle_session(&self) -> Option<SessionId> {
        self.sessions.iter().rev().find(|(_, held)| held.state == SessionState::Idle).map(|(id, _)| *id)
    }
}

fn recipients(job: &Job) -> u64 {
    job.recipients.len() as u64
}

fn partition(jobs: VecDeque<Job>, wanted: impl Fn(&Job) -> bool) -> (Vec<Job>, VecDeque<Job>) {
    let (mut chosen, mut others) = (Vec::new(), VecDeque::with_capacity(jobs.len()));
    for job in jobs {
        if wanted(&job) { chosen.push(job) } else { others.push_back(job) }
    }
    (chosen, others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Policy;
    use crate::message::MessageId;
    use postroad_crds::relay_config::RelayConfig;

    fn upstream(keep: u32) -> Arc<UpstreamPolicy> {
        let config = RelayConfig::from_yaml(&format!(
            "version: relay-config.postroad.dev/v1
pool: {{namespace: mail, name: main}}
replicas: 1
hostname: relay.example
listeners: [{{name: smtp, address: '127.0.0.1:0', tls: None, authentication: None}}]
identities: []
routes: []
upstreams:
- name: box
  destination: {{sandbox: {{keepMessages: {keep}}}}}
  connections: {{maximum: 2, messagesPerConnection: 10, idleTimeoutSeconds: 30, maximumAgeSeconds: 900}}
queue: {{expireAfterSeconds: 60, minimumBackoffSeconds: 1, maximumBackoffSeconds: 2, maximumBytes: 1000000}}
limits: {{messageBytes: 1000, recipientsPerMessage: 10, connections: 10, connectionsPerClient: 10}}
shutdown: {{acceptSeconds: 0, gracePeriodSeconds: 1}}
"
        ))
        .unwrap();
        Policy::compile(&config).unwrap().upstreams["box"].clone()
    }

    fn lane(rates: &[Rate]) -> Lane {
        let (now, wall) = (Instant::now(), crate::message::Timestamp(1_000_000));
        Lane::new(upstream(1), 2, Budget::new(rates, None, wall), Clock::new(now, wall))
    }

    fn job(number: u128) -> Job {
        Job { id: MessageId(number), recipients: Arc::from([0]), broken_sessions: 0 }
    }

    /// Names what the lane wants done until it wants nothing, opening sessions as it asks.
    fn actions(lane: &mut Lane, now: Instant) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(action) = lane.next_action(now) {
            names.push(match action {
                Action::Assign(session, job) => format!("job {} to {}", job.id.0, session.0),
                Action::Replan(job) => format!("replan {}", job.id.0),
                Action::Retire(session) => format!("retire {}", session.0),
                Action::Open => {
                    let id = SessionId(lane.sessions.len() as u64);
                    lane.opening(id);
                    format!("open {}", id.0)
                }
            });
        }
        names
    }

    #[test]
    fn sessions_are_opened_for_waiting_jobs_up_to_the_share() {
        let (mut lane, now) = (lane(&[]), Instant::now());
        (1..=5).for_each(|number| lane.push(job(number)));
        assert_eq!(actions(&mut lane, now), ["open 0", "open 1"]);
        lane.opened(SessionId(0));
        assert_eq!(actions(&mut lane, now), ["job 1 to 0"]);
        lane.idle(SessionId(0), now);
        assert_eq!(actions(&mut lane, now), ["job 2 to 0"], "an open session serves the next job");
    }

    #[test]
    fn an_upstream_that_cannot_be_reached_is_tried_by_one_session_at_growing_intervals() {
        let (mut lane, start) = (lane(&[]), Instant::now());
        (1..=5).for_each(|number| lane.push(job(number)));
        actions(&mut lane, start);
        assert!(lane.not_opened(SessionId(0), "refused".into(), start), "the first failure is news");
        assert!(!lane.not_opened(SessionId(1), "refused".into(), start), "the same again is not");
        assert_eq!(actions(&mut lane, start), Vec::<String>::new());
        let later = lane.wake_at().unwrap();
        assert_eq!(later - start, 2 * FIRST_WAIT);
        assert_eq!(actions(&mut lane, later), ["open 0"]);
        assert!(lane.opened(SessionId(0)), "it is back");
        assert_eq!(actions(&mut lane, later), ["job 1 to 0", "open 1"]);
    }

    #[test]
    fn a_used_up_rate_makes_jobs_wait_for_its_window() {
        use crate::budget::Unit;
        let rate = |limit, unit| Rate { limit, unit, per: Duration::from_secs(1) };
        let mut lane = lane(&[rate(3, Unit::Messages), rate(8, Unit::Recipients)]);
        let now = Instant::now() + Duration::from_secs(2);
        (1..=5).for_each(|number| lane.push(job(number)));
        actions(&mut lane, now);
        lane.opened(SessionId(0));
        for number in 1..=3 {
            assert_eq!(actions(&mut lane, now), [format!("job {number} to 0")]);
            lane.idle(SessionId(0), now);
        }
        assert!(actions(&mut lane, now).is_empty() && lane.obstacle().is_some());
        let later = lane.wake_at().unwrap();
        assert!(later - now > Duration::from_secs(1) && later - now < Duration::from_millis(1_020));
        assert_eq!(actions(&mut lane, later), ["job 4 to 0"]);
        let many = Job { recipients: (0..9).collect(), ..job(6) };
        lane.push_front(many);
        assert_eq!(actions(&mut lane, later)[0], "replan 6", "nine never fit into eight");
    }

    fn hold(kind: HoldKind) -> Hold {
        Hold { kind, why: "not now".to_owned() }
    }

    #[test]
    fn a_parked_upstream_gets_nothing_until_its_time_and_then_everything() {
        let (mut lane, now) = (lane(&[]), Instant::now());
        (1..=3).for_each(|number| lane.push(job(number)));
        actions(&mut lane, now);
        lane.opened(SessionId(0));
        lane.opened(SessionId(1));
        assert!(lane.hold(&hold(HoldKind::Parked(Duration::from_secs(5))), now));
        assert!(actions(&mut lane, now + Duration::from_secs(4)).is_empty());
        let later = lane.wake_at().unwrap();
        assert_eq!(later - now, Duration::from_secs(5));
        assert_eq!(actions(&mut lane, later), ["job 1 to 1", "job 2 to 0"]);
    }

    #[test]
    fn an_unwell_upstream_is_tried_by_one_message_at_a_time_until_one_is_delivered() {
        let (mut lane, now) = (lane(&[]), Instant::now());
        (1..=4).for_each(|number| lane.push(job(number)));
        actions(&mut lane, now);
        lane.opened(SessionId(0));
        lane.opened(SessionId(1));
        assert!(lane.hold(&hold(HoldKind::Tripped), now));
        assert!(actions(&mut lane, now).is_empty());
        let first = now + FIRST_WAIT;
        assert_eq!(actions(&mut lane, first), ["job 1 to 1"], "one tries");
        lane.idle(SessionId(1), now);
        assert!(!lane.hold(&hold(HoldKind::Tripped), first), "the same again is no news");
        assert!(actions(&mut lane, first + FIRST_WAIT).is_empty(), "the wait has doubled");
        let second = first + 2 * FIRST_WAIT;
        assert_eq!(actions(&mut lane, second), ["job 2 to 1"]);
        lane.idle(SessionId(1), now);
        assert!(lane.delivered(), "it is well again");
        assert_eq!(actions(&mut lane, second), ["job 3 to 1", "job 4 to 0"]);
    }

    #[test]
    fn sessions_of_an_older_configuration_are_retired_when_they_are_idle() {
        let (mut lane, now) = (lane(&[]), Instant::now());
        (1..=2).for_each(|number| lane.push(job(number)));
        actions(&mut lane, now);
        lane.opened(SessionId(0));
        lane.opened(SessionId(1));
        assert_eq!(actions(&mut lane, now).len(), 2);
        lane.idle(SessionId(0), now);
        lane.reconfigure(upstream(2), 2, &[]);
        lane.push(job(3));
        assert_eq!(actions(&mut lane, now), ["retire 0"], "no third session while the first still counts");
        lane.closed(SessionId(0), now);
        assert_eq!(actions(&mut lane, now), ["open 1"]);
    }

    #[test]
    fn a_smaller_share_retires_the_surplus() {
        let (mut lane, now) = (lane(&[]), Instant::now());
        (1..=2).for_each(|number| lane.push(job(number)));
        actions(&mut lane, now);
        lane.opened(SessionId(0));
        lane.opened(SessionId(1));
        actions(&mut lane, now);
        lane.idle(SessionId(0), now);
        lane.idle(SessionId(1), now);
        lane.reconfigure(upstream(1), 1, &[]);
        assert_eq!(actions(&mut lane, now), ["retire 0"]);
    }
}
