//! A day of traffic, with outages, throttling and quota windows.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::upstream::{Model, Span, Upstream};
use super::*;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
/// What the upstream is given at most: in a minute, and in an hour.
const PER_MINUTE: u64 = 300;
const PER_HOUR: u64 = 6_000;
/// What the upstream takes in a second while it throttles.
const THROTTLED: usize = 1;
/// Sessions with it.
const SESSIONS: u32 = 10;
/// What a message takes while it is slow, so that all sessions together carry two a second.
const SLOW: Duration = Duration::from_secs(5);

fn hours(from: f64, to: f64) -> Span {
    let at = |hour: f64| Duration::from_secs_f64(hour * HOUR as f64);
    Span { from: at(from), to: at(to) }
}

/// Two outages, the first followed by an hour of slowness while its backlog waits, and two hours in which it
/// answers 454 to what comes too fast.
fn model() -> Model {
    Model {
        latency: Duration::from_millis(200),
        outages: vec![hours(9.0, 10.5), hours(15.0, 15.25)],
        slow: vec![(hours(10.5, 11.5), SLOW)],
        throttled: vec![(hours(20.0, 22.0), THROTTLED)],
        ..Model::default()
    }
}

/// Messages that arrive in each second: many by day, few by night, a burst at eight.
fn arrivals(random: &mut StdRng) -> Vec<u64> {
    let mean = |second: u64| match second / HOUR {
        8 if second % HOUR < 600 => 6.0,
        8..=17 => 1.1,
        _ => 0.25,
    };
    (0..DAY)
        .map(|second| {
            let (mut count, mut left): (u64, f64) = (0, mean(second));
            while left > 0.0 {
                count += u64::from(random.random_bool(left.min(0.5)));
                left -= 0.5;
            }
            count
        })
        .collect()
}

/// The mean delay, in seconds, of a fluid that is served at the same capacity: all at once, with no session, attempt or message.
fn fluid(arrivals: &[u64], model: &Model) -> f64 {
    let (mut backlog, mut area, mut second, mut served) = (0.0_f64, 0.0_f64, 0_usize, Vec::<f64>::new());
    let mut in_hour = 0.0;
    while second < arrivals.len() || backlog > 1e-9 {
        let now = Duration::from_secs(second as u64);
        backlog += arrivals.get(second).map_or(0.0, |count| *count as f64);
        if let Some(past) = second.checked_sub(HOUR as usize) {
            in_hour -= served[past];
        }
        let mut most = (PER_MINUTE as f64 / 60.0).min(PER_HOUR as f64 - in_hour);
        if model.throttled.iter().any(|(span, _)| span.contains(now)) {
            most = most.min(THROTTLED as f64);
        }
        if model.slow.iter().any(|(span, _)| span.contains(now)) {
            most = most.min(f64::from(SESSIONS) / SLOW.as_secs_f64());
        }
        if model.outages.iter().any(|span| span.contains(now)) {
            most = 0.0;
        }
        let now_served = backlog.min(most.max(0.0));
        served.push(now_served);
        in_hour += now_served;
        backlog -= now_served;
        area += backlog;
        second += 1;
    }
    area / arrivals.iter().sum::<u64>() as f64
}

/// The most that any window of this length holds.
fn most_within(times: &[Duration], length: Duration) -> u64 {
    let (mut first, mut most) = (0, 0);
    for last in 0..times.len() {
        while times[last] - times[first] >= length {
            first += 1;
        }
        most = most.max(last - first + 1);
    }
    most as u64
}

#[test]
fn a_day_exceeds_no_limit_loses_nothing_and_is_as_fast_as_its_capacity() {
    let mut random = StdRng::seed_from_u64(7);
    let arrivals = arrivals(&mut random);
    let rates = format!(
        "[{{limit: {PER_MINUTE}, unit: Messages, perSeconds: 60}}, {{limit: {PER_HOUR}, unit: Messages, perSeconds: {HOUR}}}]"
    );
    let mut world = World::new(policy(SESSIONS, &rates, "[]"), Upstream::new(model()));
    for (second, count) in arrivals.iter().enumerate() {
        for _ in 0..*count {
            let time =
                Duration::from_secs(second as u64) + Duration::from_millis(random.random_range(0..1_000));
            let tenant: Arc<str> = format!("tenant-{}", random.random_range(0..5)).into();
            world.at(time, Coming::Arrival(tenant));
        }
    }
    world.run_until(Duration::from_secs(3 * DAY));
    world.assert_conserved();
    let times: Vec<_> = world.delivered.iter().map(|(_, _, to, _)| *to).collect();
    assert!(most_within(&times, Duration::from_secs(60)) <= PER_MINUTE);
    assert!(most_within(&times, Duration::from_secs(HOUR)) <= PER_HOUR);
    let total: f64 = world.delivered.iter().map(|(_, from, to, _)| (*to - *from).as_secs_f64()).sum();
    let (mean, ideal) = (total / times.len() as f64, fluid(&arrivals, &model()));
    assert!(
        (mean / ideal - 1.0).abs() < 0.05,
        "the mean delay was {mean:.1} s; that of a fluid {ideal:.1} s"
    );
    assert!(world.upstream.refused > 0, "the upstream has throttled");
}
