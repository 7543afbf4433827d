use std::collections::BTreeMap;
use std::time::Duration;

use super::gate::FIRST_WAIT;
use super::*;
use crate::budget::{Clock, Rate, Unit};
use crate::config::Policy;
use crate::message::MessageId;
use crate::queue::fair::{Priority, Rank, Tenant};
use postroad_crds::relay_config::RelayConfig;

fn upstream(keep: u32) -> Arc<UpstreamPolicy> {
    upstream_with(keep, "")
}

/// `connections`: further fields of it.
fn upstream_with(keep: u32, connections: &str) -> Arc<UpstreamPolicy> {
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
  connections: {{maximum: 2, messagesPerConnection: 10, idleTimeoutSeconds: 30, maximumAgeSeconds: 900{connections}}}
queue: {{expireAfterSeconds: 60, minimumBackoffSeconds: 1, maximumBackoffSeconds: 2, maximumBytes: 1000000}}
limits: {{messageBytes: 1000, recipientsPerMessage: 10, connections: 10, connectionsPerClient: 10}}
shutdown: {{acceptSeconds: 0, gracePeriodSeconds: 1}}
"
    ))
    .unwrap();
    Policy::compile(&config).unwrap().upstreams["box"].clone()
}

/// A lane and the budgets that it is asked with.
struct Setting {
    lane: Lane,
    budgets: Budgets,
}

fn lane(rates: &[Rate]) -> Setting {
    setting([(Scope::Upstream("box".into()), rates.to_vec())].into())
}

fn setting(rates: BTreeMap<Scope, Vec<Rate>>) -> Setting {
    let now = Instant::now();
    let mut budgets = Budgets::new(Clock::new(now, crate::message::Timestamp(1_000_000)));
    budgets.configure(&rates, rates.keys().map(|scope| (scope.clone(), None)).collect(), now);
    Setting { lane: Lane::new(upstream(1), 2), budgets }
}

impl std::ops::Deref for Setting {
    type Target = Lane;

    fn deref(&self) -> &Lane {
        &self.lane
    }
}

impl std::ops::DerefMut for Setting {
    fn deref_mut(&mut self) -> &mut Lane {
        &mut self.lane
    }
}

impl Setting {
    fn ended(&mut self, id: SessionId, job: &Job, now: Instant) {
        self.lane.ended(id, job, &mut self.budgets, now);
    }

    fn retiring(&mut self, id: SessionId, job: &Job, now: Instant) {
        self.lane.retiring(id, job, &mut self.budgets, now);
    }

    fn closed(&mut self, id: SessionId, now: Instant) {
        self.lane.closed(id, &mut self.budgets, now);
    }
}

const RANK: Rank = Rank { tenant: Tenant(0), priority: Priority::Normal };

fn job(number: u128) -> Job {
    Job {
        id: MessageId(number),
        recipients: Arc::from([0]),
        rank: RANK,
        scopes: Arc::default(),
        in_transit: false,
        broken_sessions: 0,
    }
}

/// Names what the lane wants done until it wants nothing, opening sessions as it asks.
fn actions(setting: &mut Setting, now: Instant) -> Vec<String> {
    let mut names = Vec::new();
    let Setting { lane, budgets } = setting;
    while let Some(action) = lane.next_action(budgets, now) {
        names.push(match action {
            Action::Assign(session, job) => format!("job {} to {}", job.id.0, session.0),
            Action::Replan(job) => format!("replan {}", job.id.0),
            Action::Retire(session) => format!("retire {}", session.0),
            Action::Open(source) => {
                let id = SessionId(lane.sessions.len() as u64);
                lane.opening(id, source);
                let from = source.map(|address| format!(" from {address}")).unwrap_or_default();
                format!("open {}{from}", id.0)
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
    lane.opened(SessionId(0), 1);
    assert_eq!(actions(&mut lane, now), ["job 1 to 0"]);
    lane.ended(SessionId(0), &job(0), now);
    assert_eq!(actions(&mut lane, now), ["job 2 to 0"], "an open session serves the next job");
}

#[test]
fn a_session_is_given_jobs_ahead_only_where_no_further_session_may_be_opened() {
    let (mut lane, now) = (lane(&[]), Instant::now());
    (1..=8).for_each(|number| lane.push(job(number)));
    assert_eq!(actions(&mut lane, now), ["open 0", "open 1"]);
    lane.opened(SessionId(0), 3);
    assert_eq!(actions(&mut lane, now), ["job 1 to 0", "job 2 to 0", "job 3 to 0"]);
    lane.opened(SessionId(1), 1);
    assert_eq!(actions(&mut lane, now), ["job 4 to 1"], "without PIPELINING one at a time");
    lane.ended(SessionId(0), &job(1), now);
    assert_eq!(actions(&mut lane, now), ["job 5 to 0"]);
    lane.retiring(SessionId(0), &job(2), now);
    assert!(lane.has_busy_sessions(), "two more are under way there");
}

#[test]
fn a_session_that_is_to_be_retired_is_given_no_job_ahead() {
    let (mut lane, now) = (lane(&[]), Instant::now());
    lane.push(job(1));
    actions(&mut lane, now);
    lane.opened(SessionId(0), 3);
    lane.reconfigure(upstream(1), 1);
    assert_eq!(actions(&mut lane, now), ["job 1 to 0"]);
    lane.reconfigure(upstream(2), 1);
    lane.push(job(2));
    assert!(actions(&mut lane, now).is_empty(), "made for another configuration");
    lane.ended(SessionId(0), &job(1), now);
    assert_eq!(actions(&mut lane, now), ["retire 0"]);
}

#[test]
fn an_upstream_that_cannot_be_reached_is_tried_by_one_session_at_growing_intervals() {
    let (mut lane, start) = (lane(&[]), Instant::now());
    (1..=5).for_each(|number| lane.push(job(number)));
    actions(&mut lane, start);
    assert!(!lane.not_opened(SessionId(0), "refused".into(), start), "the first failure is news");
    assert!(lane.not_opened(SessionId(1), "refused".into(), start), "the same again is not");
    assert_eq!(actions(&mut lane, start), Vec::<String>::new());
    let later = lane.wake_at(start).unwrap();
    assert_eq!(later - start, 2 * FIRST_WAIT);
    assert_eq!(actions(&mut lane, later), ["open 0"]);
    assert!(lane.opened(SessionId(0), 1), "it is back");
    assert_eq!(actions(&mut lane, later), ["job 1 to 0", "open 1"]);
}

#[test]
fn a_used_up_rate_makes_jobs_wait_for_its_window() {
    let rate = |limit, unit| Rate { limit, unit, per: Duration::from_secs(1) };
    let mut lane = lane(&[rate(3, Unit::Messages), rate(8, Unit::Recipients)]);
    let now = Instant::now() + Duration::from_secs(2);
    (1..=5).for_each(|number| lane.push(job(number)));
    actions(&mut lane, now);
    lane.opened(SessionId(0), 1);
    for number in 1..=3 {
        assert_eq!(actions(&mut lane, now), [format!("job {number} to 0")]);
        lane.ended(SessionId(0), &job(0), now);
    }
    assert!(actions(&mut lane, now).is_empty());
    let later = lane.wake_at(now).unwrap();
    assert!(later - now > Duration::from_secs(1) && later - now < Duration::from_millis(1_020));
    assert_eq!(actions(&mut lane, later), ["job 4 to 0"]);
    lane.ended(SessionId(0), &job(4), later);
    let many = Job { recipients: (0..9).collect(), ..job(6) };
    lane.push_front(many);
    assert_eq!(actions(&mut lane, later)[0], "replan 6", "nine never fit into eight");
}

fn of(number: u128, scopes: &[&Scope]) -> Job {
    Job { scopes: scopes.iter().map(|scope| (*scope).clone()).collect(), ..job(number) }
}

#[test]
fn the_time_that_mail_waits_for_a_rate_or_by_request_is_added_up() {
    let rate = Rate { limit: 1, unit: Unit::Messages, per: Duration::from_secs(5) };
    let mut lane = lane(&[rate]);
    // What may have been spent before the start counts no longer.
    let now = Instant::now() + Duration::from_secs(20);
    let at = |seconds| now + Duration::from_secs(seconds);
    lane.push(job(1));
    assert_eq!(actions(&mut lane, now), ["open 0"]);
    lane.opened(SessionId(0), 1);
    assert_eq!(actions(&mut lane, now), ["job 1 to 0"]);
    lane.ended(SessionId(0), &job(1), now);
    assert!(actions(&mut lane, at(1)).is_empty());
    assert_eq!(lane.take_throttled(at(2)), Duration::ZERO, "nothing waits");
    lane.push(job(2));
    assert!(actions(&mut lane, at(2)).is_empty());
    assert_eq!(lane.take_throttled(at(4)), Duration::from_secs(2));
    assert_eq!(actions(&mut lane, at(7)), ["job 2 to 0"]);
    assert_eq!(lane.take_throttled(at(70)), Duration::from_secs(3));
    lane.ended(SessionId(0), &job(2), at(70));
    lane.hold(&hold(HoldKind::Parked(Duration::from_secs(300))), at(130));
    lane.push(job(3));
    assert!(actions(&mut lane, at(140)).is_empty());
    assert_eq!(lane.take_throttled(at(150)), Duration::from_secs(10));
}

/// Two budgets of one message a second each beside a lane of which the first session is open, when they have room.
fn two_scopes() -> (Setting, Scope, Scope, Instant) {
    let rate = vec![Rate { limit: 1, unit: Unit::Messages, per: Duration::from_secs(1) }];
    let (shop, bulk) = (Scope::Identity("shop".into()), Scope::Route("bulk".into()));
    let mut setting = setting([(shop.clone(), rate.clone()), (bulk.clone(), rate)].into());
    setting.opening(SessionId(0), None);
    setting.opened(SessionId(0), 8);
    let upstream = setting.upstream().clone();
    setting.reconfigure(upstream, 1);
    (setting, shop, bulk, Instant::now() + Duration::from_secs(2))
}

#[test]
fn what_an_identity_may_not_send_now_keeps_nobody_else_waiting_and_goes_in_its_order() {
    let (mut lane, shop, _, now) = two_scopes();
    (1..=4).for_each(|number| lane.push(of(number, &[&shop])));
    (5..=6).for_each(|number| lane.push(job(number)));
    assert_eq!(actions(&mut lane, now), ["job 1 to 0", "job 5 to 0", "job 6 to 0"]);
    lane.push(of(7, &[&shop]));
    assert!(actions(&mut lane, now + Duration::from_secs(9)).is_empty(), "one is under way");
    assert_eq!(lane.backlog(), (4, Some(MessageId(2))));
    let mut time = now;
    for (done, next) in [(1, 2), (2, 3), (3, 4), (4, 7)] {
        lane.ended(SessionId(0), &of(done, &[&shop]), time);
        assert!(actions(&mut lane, time).is_empty());
        let later = lane.wake_at(time).unwrap();
        assert!(later - time > Duration::from_secs(1) && later - time < Duration::from_millis(1_020));
        time = later;
        assert_eq!(actions(&mut lane, time), [format!("job {next} to 0")]);
    }
    assert_eq!(lane.wake_at(time), None, "nothing waits");
}

#[test]
fn a_message_waits_for_its_route_and_its_identity() {
    let (mut lane, shop, bulk, now) = two_scopes();
    lane.push(of(1, &[&bulk]));
    (2..=3).for_each(|number| lane.push(of(number, &[&bulk, &shop])));
    lane.push(of(4, &[&shop]));
    lane.push(of(5, &[&shop]));
    assert_eq!(actions(&mut lane, now), ["job 1 to 0", "job 4 to 0"]);
    lane.ended(SessionId(0), &of(4, &[&shop]), now);
    lane.ended(SessionId(0), &of(1, &[&bulk]), now);
    let mut order = Vec::new();
    let mut time = now;
    for _ in 0..6 {
        time += Duration::from_millis(1_010);
        for name in actions(&mut lane, time) {
            let number: u128 = name.split(' ').nth(1).unwrap().parse().unwrap();
            let done = if number == 5 { of(5, &[&shop]) } else { of(number, &[&bulk, &shop]) };
            lane.ended(SessionId(0), &done, time);
            order.push(number);
        }
    }
    order.sort_unstable();
    assert_eq!(order, [2, 3, 5], "each goes, and goes once");
}

#[test]
fn what_is_aside_can_be_withdrawn_and_expires_with_its_own_reason() {
    let (mut lane, shop, _, now) = two_scopes();
    (1..=4).for_each(|number| lane.push(of(number, &[&shop])));
    lane.push(job(5));
    assert_eq!(actions(&mut lane, now), ["job 1 to 0", "job 5 to 0"]);
    lane.withdraw(MessageId(2));
    assert!(lane.take_expired(|id| id < MessageId(3)).is_empty());
    let expired = lane.take_expired(|id| id <= MessageId(3));
    assert_eq!(expired.len(), 1);
    assert_eq!(expired[0].1, "the rates of identity shop are used up");
    lane.ended(SessionId(0), &of(1, &[&shop]), now);
    let later = now + Duration::from_millis(1_020);
    assert_eq!(actions(&mut lane, later), ["job 4 to 0"]);
    assert_eq!(lane.take_ready().len(), 0);
}

fn hold(kind: HoldKind) -> Hold {
    Hold { kind, why: "not now".to_owned() }
}

#[test]
fn a_parked_upstream_gets_nothing_until_its_time_and_then_everything() {
    let (mut lane, now) = (lane(&[]), Instant::now());
    (1..=3).for_each(|number| lane.push(job(number)));
    actions(&mut lane, now);
    lane.opened(SessionId(0), 1);
    lane.opened(SessionId(1), 1);
    assert!(!lane.hold(&hold(HoldKind::Parked(Duration::from_secs(5))), now));
    assert!(actions(&mut lane, now + Duration::from_secs(4)).is_empty());
    let later = lane.wake_at(now).unwrap();
    assert_eq!(later - now, Duration::from_secs(5));
    assert_eq!(actions(&mut lane, later), ["job 1 to 1", "job 2 to 0"]);
}

#[test]
fn an_unwell_upstream_is_tried_by_one_message_at_a_time_until_one_is_delivered() {
    let (mut lane, now) = (lane(&[]), Instant::now());
    (1..=4).for_each(|number| lane.push(job(number)));
    actions(&mut lane, now);
    lane.opened(SessionId(0), 1);
    lane.opened(SessionId(1), 1);
    assert!(!lane.hold(&hold(HoldKind::Tripped), now));
    assert!(actions(&mut lane, now).is_empty());
    let first = now + FIRST_WAIT;
    assert_eq!(actions(&mut lane, first), ["job 1 to 1"], "one tries");
    lane.ended(SessionId(1), &job(0), now);
    assert!(lane.hold(&hold(HoldKind::Tripped), first), "the same again is no news");
    assert!(actions(&mut lane, first + FIRST_WAIT).is_empty(), "the wait has doubled");
    let second = first + 2 * FIRST_WAIT;
    assert_eq!(actions(&mut lane, second), ["job 2 to 1"]);
    lane.ended(SessionId(1), &job(0), now);
    assert!(lane.delivered(), "it is well again");
    assert_eq!(actions(&mut lane, second), ["job 3 to 1", "job 4 to 0"]);
}

#[test]
fn sessions_of_an_older_configuration_are_retired_when_they_are_idle() {
    let (mut lane, now) = (lane(&[]), Instant::now());
    (1..=2).for_each(|number| lane.push(job(number)));
    actions(&mut lane, now);
    lane.opened(SessionId(0), 1);
    lane.opened(SessionId(1), 1);
    assert_eq!(actions(&mut lane, now).len(), 2);
    lane.ended(SessionId(0), &job(0), now);
    lane.reconfigure(upstream(2), 2);
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
    lane.opened(SessionId(0), 1);
    lane.opened(SessionId(1), 1);
    actions(&mut lane, now);
    lane.ended(SessionId(0), &job(0), now);
    lane.ended(SessionId(1), &job(0), now);
    lane.reconfigure(upstream(1), 1);
    assert_eq!(actions(&mut lane, now), ["retire 0"]);
}

const ADDRESSES: &str = ", sourceAddresses: [192.0.2.1, 192.0.2.2]";

#[test]
fn sessions_connect_from_each_address_in_turn_and_each_keeps_to_its_rate() {
    let rate = |limit, unit| Rate { limit, unit, per: Duration::from_secs(1) };
    let rates = vec![rate(1, Unit::Messages), rate(8, Unit::Recipients)];
    let of = |last| Scope::source("box", Some([192, 0, 2, last].into()));
    let mut lane = setting([1, 2].map(|last| (of(last), rates.clone())).into());
    lane.reconfigure(upstream_with(1, ADDRESSES), 2);
    let now = Instant::now() + Duration::from_secs(2);
    (1..=4).for_each(|number| lane.push(job(number)));
    assert_eq!(actions(&mut lane, now), ["open 0 from 192.0.2.1", "open 1 from 192.0.2.2"]);
    for id in [0, 1] {
        lane.opened(SessionId(id), 8);
    }
    assert_eq!(actions(&mut lane, now), ["job 1 to 1", "job 2 to 0"]);
    assert!(actions(&mut lane, now + Duration::from_secs(9)).is_empty(), "one is under way on each");
    let done = now + Duration::from_secs(9);
    lane.ended(SessionId(0), &job(2), done);
    assert!(actions(&mut lane, done).is_empty(), "its window has begun");
    let later = lane.wake_at(done).unwrap();
    assert!(later > done + Duration::from_secs(1) && later < done + Duration::from_millis(1020));
    assert_eq!(actions(&mut lane, later), ["job 3 to 0"]);
    let many = Job { recipients: (0..9).collect(), ..job(6) };
    lane.push_front(many);
    assert_eq!(actions(&mut lane, later), ["replan 6"], "nine never fit into eight");
}

#[test]
fn an_address_that_the_relay_does_not_have_is_passed_over_and_tried_again() {
    let (mut lane, now) = (lane(&[]), Instant::now());
    lane.reconfigure(upstream_with(1, ADDRESSES), 1);
    lane.push(job(1));
    assert_eq!(actions(&mut lane, now), ["open 0 from 192.0.2.1"]);
    assert!(!lane.source_missing(SessionId(0), "missing".into(), now));
    assert_eq!(actions(&mut lane, now), ["open 0 from 192.0.2.2"], "at once");
    lane.closed(SessionId(0), now);
    assert_eq!(actions(&mut lane, now), ["open 0 from 192.0.2.2"], "it is left alone");
    lane.closed(SessionId(0), now);
    assert_eq!(actions(&mut lane, now + sources::TRY_MISSING_AFTER), ["open 0 from 192.0.2.1"]);
    lane.source_missing(SessionId(0), "missing".into(), now);
    actions(&mut lane, now);
    lane.source_missing(SessionId(0), "missing".into(), now);
    assert!(actions(&mut lane, now).is_empty(), "none is left: as an upstream that cannot be reached");
    let later = lane.wake_at(now).unwrap();
    assert_eq!(actions(&mut lane, later), ["open 0 from 192.0.2.1"]);
}

#[test]
fn sessions_are_kept_open_without_jobs_and_an_upstream_that_is_down_is_tried_at_growing_intervals() {
    let (mut lane, now) = (lane(&[]), Instant::now());
    lane.reconfigure(upstream_with(1, ", minimumIdle: 3"), 2);
    assert_eq!(actions(&mut lane, now), ["open 0", "open 1"], "no more than its share");
    for id in [0, 1] {
        lane.opened(SessionId(id), 1);
    }
    lane.push(job(1));
    assert_eq!(actions(&mut lane, now), ["job 1 to 1"]);
    lane.retiring(SessionId(1), &job(1), now);
    assert!(actions(&mut lane, now).is_empty(), "it still counts for the upstream");
    lane.closed(SessionId(1), now);
    assert_eq!(actions(&mut lane, now), ["open 1"], "it is replaced");
    lane.closed(SessionId(0), now);
    lane.not_opened(SessionId(1), "refused".into(), now);
    assert!(actions(&mut lane, now).is_empty());
    let later = lane.wake_at(now).unwrap();
    assert_eq!(
        (later - now, actions(&mut lane, later)),
        (FIRST_WAIT, vec!["open 0".to_owned()]),
        "one tries"
    );
}

#[test]
fn a_drained_lane_ends_what_it_has_and_gives_nothing_more_until_it_is_resumed() {
    let (mut lane, now) = (lane(&[]), Instant::now());
    (1..=3).for_each(|number| lane.push(job(number)));
    actions(&mut lane, now);
    lane.opened(SessionId(0), 1);
    lane.opened(SessionId(1), 1);
    assert_eq!(actions(&mut lane, now), ["job 1 to 1", "job 2 to 0"]);
    assert!(lane.set_drained(true) && !lane.set_drained(true) && !lane.works());
    assert_eq!(actions(&mut lane, now), Vec::<String>::new(), "what is under way goes on");
    lane.ended(SessionId(1), &job(1), now);
    assert_eq!(actions(&mut lane, now), ["retire 1"]);
    lane.ended(SessionId(0), &job(2), now);
    assert_eq!(actions(&mut lane, now), ["retire 0"]);
    let state = lane.state();
    assert_eq!(state.standing, Standing::Drained);
    assert_eq!(
        (state.drained, state.waiting, state.obstacle.as_deref()),
        (true, 1, Some("drained by order"))
    );
    lane.closed(SessionId(0), now);
    lane.closed(SessionId(1), now);
    assert!(lane.set_drained(false) && lane.works());
    assert_eq!(actions(&mut lane, now), ["open 0"]);
}

#[test]
fn a_lane_tells_an_upstream_that_works_from_one_that_fails_and_from_one_that_was_never_tried() {
    let (mut lane, now) = (lane(&[]), Instant::now());
    assert_eq!(lane.state().standing, Standing::Untried);
    lane.push(job(1));
    actions(&mut lane, now);
    lane.not_opened(SessionId(0), "refused".into(), now);
    assert_eq!(lane.state().standing, Standing::Untried, "it may have been chance");
    let later = lane.wake_at(now).unwrap();
    actions(&mut lane, later);
    lane.not_opened(SessionId(0), "refused".into(), later);
    assert_eq!(lane.state().standing, Standing::Fails);
    let later = lane.wake_at(later).unwrap();
    actions(&mut lane, later);
    lane.opened(SessionId(0), 1);
    assert_eq!(lane.state().standing, Standing::Works);
    let upstream = lane.upstream().clone();
    lane.reconfigure(upstream, 0);
    assert_eq!(lane.state().standing, Standing::NoShare);
}
