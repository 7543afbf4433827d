//! What one tenant's backlog does to another.

use super::upstream::{Model, Upstream};
use super::*;

/// The upstream takes 100 messages a second over ten sessions.
const A_SECOND_OF_CAPACITY: Duration = Duration::from_secs(1);

#[test]
fn a_million_messages_of_one_tenant_delay_anothers_next_by_less_than_a_second_of_capacity() {
    let mut world = World::new(policy(10, "[]", "[]"), Upstream::new(Model::default()));
    let (bulk, reset): (Arc<str>, Arc<str>) = ("bulk".into(), "reset".into());
    for _ in 0..1_000_000 {
        world.arrive(&bulk);
    }
    let mut sent = Vec::new();
    for number in 1..=20 {
        let time = Duration::from_millis(number * 1_370);
        world.at(time, Coming::Arrival(reset.clone()));
        sent.push(time);
    }
    world.run_until(Duration::from_secs(40));
    let waits: Vec<_> = world
        .delivered
        .iter()
        .filter(|(.., tenant)| *tenant == reset)
        .map(|(_, from, to, _)| *to - *from)
        .collect();
    assert_eq!(waits.len(), sent.len());
    let longest = waits.iter().max().unwrap();
    assert!(*longest < A_SECOND_OF_CAPACITY, "{longest:?}");
    // The first ten seconds are for finding out how many sessions are worth it.
    let warm = world.delivered.iter().filter(|(_, _, to, _)| *to > Duration::from_secs(10)).count();
    assert!(warm > 2_950, "the upstream was never idle meanwhile: {warm}");
}

#[test]
fn what_somebody_waits_for_goes_before_the_rest_of_ten_tenants() {
    let identities = "[{name: reset, priority: High, match: {network: {cidrs: [192.0.2.0/24]}}}]";
    let mut world = World::new(policy(1, "[]", identities), Upstream::new(Model::default()));
    for number in 0..1_000 {
        world.arrive(&format!("tenant-{}", number % 10).into());
    }
    for number in 1..=10 {
        world.at(Duration::from_millis(number * 1_550), Coming::Arrival("reset".into()));
    }
    world.run_until(Duration::from_secs(20));
    let urgent = world.delivered.iter().filter(|(.., tenant)| &**tenant == "reset");
    let longest = urgent.map(|(_, from, to, _)| *to - *from).max().unwrap();
    assert!(longest <= Duration::from_millis(210), "one message is under way at most: {longest:?}");
}
