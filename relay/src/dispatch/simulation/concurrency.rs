//! How many sessions are found to be worth it with upstreams of several kinds. The bound is 20 everywhere.

use super::upstream::{Model, Span, Upstream};
use super::*;

const MOST: u32 = 20;
/// When the allowance is to have settled.
const SETTLED: Duration = Duration::from_secs(300);
const END: Duration = Duration::from_secs(600);

const ALWAYS: Span = Span { from: Duration::ZERO, to: Duration::MAX };

/// What came of more mail than the upstream takes.
struct Outcome {
    world: World,
}

impl Outcome {
    fn of(model: Model, messages: u64) -> Self {
        let mut world = World::new(policy(MOST, "[]", "[]"), Upstream::new(model));
        for _ in 0..messages {
            world.arrive(&"app".into());
        }
        world.run_until(END);
        assert!(!world.spool.is_empty(), "more waits all the time than the upstream takes");
        Self { world }
    }

    /// Messages a second, once it has settled.
    fn throughput(&self) -> f64 {
        let settled = self.world.delivered.iter().filter(|(_, _, to, _)| *to >= SETTLED);
        settled.count() as f64 / (END - SETTLED).as_secs_f64()
    }

    /// The share of the time since it has settled in which the allowance was in this range.
    fn share_within(&self, range: std::ops::RangeInclusive<usize>) -> f64 {
        let changes = &self.world.allowed;
        let ends = changes.iter().skip(1).map(|(time, _)| *time).chain([END]);
        let time: Duration = changes
            .iter()
            .zip(ends)
            .filter(|((_, allowed), _)| range.contains(allowed))
            .map(|((from, _), to)| to.max(SETTLED) - (*from).max(SETTLED))
            .sum();
        time.as_secs_f64() / (END - SETTLED).as_secs_f64()
    }

    /// How often the allowance changed once it had settled: a trial and its end are two.
    fn changes(&self) -> usize {
        self.world.allowed.iter().filter(|(time, _)| *time >= SETTLED).count()
    }

    /// Settled within `range` and at this throughput, with no more than the trials that are due.
    #[track_caller]
    fn assert_settled(&self, range: std::ops::RangeInclusive<usize>, throughput: f64) {
        let changes = &self.world.allowed;
        assert!(self.share_within(range) > 0.9, "{changes:?}");
        assert!(self.throughput() > throughput, "{} a second; {changes:?}", self.throughput());
        assert!(self.changes() <= 8, "{changes:?}");
    }
}

#[test]
fn an_upstream_that_works_on_six_at_once_is_given_about_six() {
    let model = Model { parallel: 6, ..Model::default() };
    Outcome::of(model, 60_000).assert_settled(5..=8, 57.0);
}

#[test]
fn an_upstream_without_limits_is_given_all_sessions_within_seconds() {
    let outcome = Outcome::of(Model::default(), 125_000);
    outcome.assert_settled(20..=20, 199.0);
    let grown = outcome.world.allowed.iter().find(|(_, allowed)| *allowed == 20).unwrap();
    assert!(grown.0 < Duration::from_secs(6), "{grown:?}");
}

#[test]
fn an_upstream_that_answers_454_beyond_a_rate_is_kept_below_it() {
    let model = Model { throttled: vec![(ALWAYS, 55)], ..Model::default() };
    let outcome = Outcome::of(model, 60_000);
    outcome.assert_settled(4..=6, 45.0);
    assert!(outcome.world.upstream.refused < 200, "{}", outcome.world.upstream.refused);
}

#[test]
fn an_upstream_that_takes_three_sessions_keeps_three() {
    let model = Model { sessions: 3, ..Model::default() };
    let outcome = Outcome::of(model, 60_000);
    outcome.assert_settled(3..=3, 29.0);
    assert!(outcome.world.upstream.declined <= 10, "{}", outcome.world.upstream.declined);
}

#[test]
fn an_upstream_that_takes_five_seconds_for_each_is_given_all_sessions() {
    let model = Model { latency: Duration::from_secs(5), ..Model::default() };
    Outcome::of(model, 60_000).assert_settled(20..=20, 3.9);
}

#[test]
fn an_upstream_that_slows_down_who_comes_with_many_is_given_less() {
    let model = Model { tarpit: Some((8, Duration::from_secs(2))), ..Model::default() };
    Outcome::of(model, 60_000).assert_settled(6..=8, 60.0);
}

#[test]
fn an_upstream_that_begins_to_slow_down_who_comes_with_many_is_given_fewer() {
    let half_a_minute = Duration::from_secs(30);
    let punishing = Span { from: half_a_minute, to: Duration::MAX };
    let model = Model { parallel: 20, shrunk: Some((punishing, 3)), ..Model::default() };
    Outcome::of(model, 60_000).assert_settled(2..=5, 25.0);
}

#[test]
fn a_dead_upstream_is_tried_by_one_session_and_has_all_again_when_it_is_back() {
    let dead = Span { from: Duration::from_secs(60), to: SETTLED };
    let model = Model { outages: vec![dead], ..Model::default() };
    let outcome = Outcome::of(model, 125_000);
    assert!(outcome.share_within(20..=20) > 0.85, "{:?}", outcome.world.allowed);
    let tried = outcome.world.upstream.opened.iter().filter(|time| dead.contains(**time));
    assert!(tried.count() <= 30, "{:?}", outcome.world.upstream.opened);
}
