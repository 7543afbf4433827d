//! What a million queued messages cost dispatch.

use super::upstream::Upstream;
use super::*;

/// What the process has in memory, in octets.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// What they may cost, in octets.
const MOST: u64 = 300_000_000;

/// All wait for an upstream that cannot be reached, which is where they cost most: in the queue, in flight and in a lane.
#[test]
#[ignore = "a measurement of a whole process: cargo test -p postroad-relay --lib simulation::memory -- --ignored"]
fn a_million_messages_cost_less_than_300_mb() {
    let mut world = World::new(policy(1, "[]", "[]"), Upstream::new(upstream::Model::default()));
    let before = resident();
    for number in 0..1_000_000_u64 {
        let now = BEGINNING.after(Duration::from_micros(number * 100));
        let envelope = Arc::new(envelope(number, &format!("tenant-{}", number % 50), now));
        let state = DeliveryState::new(1, now);
        world.core.handle(Event::Accepted(Accepted { envelope, state, in_transit: false }), world.now());
    }
    let used = resident() - before;
    let begin = std::time::Instant::now();
    world.core.handle(Event::ExpiryCheck, world.now());
    let waiting: usize = world.core.backlogs().map(|(_, waiting, _)| waiting).sum();
    eprintln!("{used} octets; looked after in {:?}", begin.elapsed());
    assert_eq!(waiting, 1_000_000);
    assert!(used < MOST, "{used}");
}
