//! What a relay says of its share while that becomes smaller.

use super::upstream::{Model, Upstream};
use super::*;

/// A share of four sessions and four messages in ten seconds, or of half of that.
fn divided(number: u64, of: u32) -> Arc<Policy> {
    let division = format!("{{number: {number}, first: 0, relays: 1, of: {of}}}");
    let rates = format!("[{{limit: 4, unit: Messages, perSeconds: 10}}]\n  divisions: [{division}]");
    policy(4, &rates, "[]")
}

#[test]
fn a_relay_keeps_to_a_smaller_share_once_its_sessions_and_all_that_it_has_sent_fit() {
    let model = Model { latency: Duration::from_secs(2), ..Model::default() };
    let mut world = World::new(divided(7, 1), Upstream::new(model));
    world.run_until(Duration::from_secs(11));
    let told = |world: &World| world.core.divisions(world.now())["box"];
    assert_eq!(told(&world), Some(7));
    (0..4).for_each(|_| world.arrive(&"shop".into()));
    world.run_until(Duration::from_secs(14));

    let policy = divided(8, 2);
    world.policy = policy.clone();
    world.core.handle(Event::PolicyChanged(policy, BTreeMap::new()), world.now());
    assert_eq!(told(&world), None, "four are under way");
    world.run_until(Duration::from_secs(16));
    assert_eq!((world.delivered.len(), told(&world)), (4, None), "four in ten seconds are too many by two");
    world.run_until(Duration::from_secs(23));
    assert_eq!(told(&world), None);
    world.run_until(Duration::from_secs(27));
    assert_eq!(told(&world), Some(8));
}
