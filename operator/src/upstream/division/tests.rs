use super::*;
use proptest::prelude::*;

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

fn pools(counts: &[(&str, i32)]) -> Vec<PoolRelays> {
    counts
        .iter()
        .map(|(name, replicas)| PoolRelays { name: (*name).to_owned(), replicas: *replicas })
        .collect()
}

fn spans(seconds: &[u32]) -> Spans {
    let rate = |per_seconds: &u32| relay::Rate {
        limit: 1,
        unit: relay::RateUnit::Messages,
        per_seconds: *per_seconds,
    };
    Spans::of(&seconds.iter().map(rate).collect::<Vec<_>>())
}

fn numbers(divisions: &[Division]) -> Vec<i64> {
    divisions.iter().map(|division| division.number).collect()
}

#[test]
fn a_raise_waits_until_every_relay_of_before_keeps_to_the_new_division() {
    let (spans, now) = (spans(&[1]), at(10));
    let first = next(&[], &pools(&[("a", 2)]), &spans, |_, _| panic!("nobody has anything yet"), &now);
    assert_eq!(numbers(&first), [10], "the time");
    let wanted = pools(&[("a", 2), ("b", 2)]);
    let both = next(&first, &wanted, &spans, |_, _| panic!("they do not know it yet"), &now);
    assert_eq!(numbers(&both), [10, 11]);
    assert_eq!(look_again(&both, &wanted, &spans, &now), Some(ASK_AGAIN));
    for silent in [Relay::Silent, Relay::Keeps(10)] {
        let relays = |_: &str, ordinal| if ordinal == 0 { Relay::Keeps(11) } else { silent };
        assert_eq!(next(&both, &wanted, &spans, relays, &at(1_000_000)), both, "{silent:?}");
    }
    let asked =
        |pool: &str, _| if pool == "a" { Relay::Keeps(11) } else { panic!("b has nothing to let go of") };
    let after = next(&both, &wanted, &spans, asked, &now);
    assert_eq!((numbers(&after), look_again(&after, &wanted, &spans, &now)), (vec![11], None));
}

#[test]
fn what_a_relay_has_sent_that_is_gone_counts_until_each_span_is_over() {
    let spans = spans(&[86_400, 1, 3_600]);
    let three = next(&[], &pools(&[("a", 3)]), &spans, |_, _| Relay::Silent, &at(0));
    let wanted = pools(&[("a", 2)]);
    let both = next(&three, &wanted, &spans, |_, _| Relay::Silent, &at(0));
    let relays = |_: &str, ordinal| if ordinal == 2 { Relay::Gone } else { Relay::Keeps(1) };
    let mut divisions = next(&both, &wanted, &spans, relays, &at(100));
    let mut found = Vec::new();
    let mut now = 100;
    while let Some(wait) = look_again(&divisions, &wanted, &spans, &at(now)) {
        found.push((now, divisions[0].longer_than_seconds));
        now += i64::try_from(wait.as_secs()).unwrap();
        divisions = next(&divisions, &wanted, &spans, relays, &at(now));
    }
    assert_eq!(found, [(100, Some(0)), (101, Some(0)), (102, Some(1)), (3_701, Some(3_600))]);
    assert_eq!((now, numbers(&divisions)), (86_501, vec![1]));
}

#[test]
fn a_pool_is_told_its_place_among_all_relays() {
    let divisions = next(&[], &pools(&[("a", 2), ("b", 3)]), &spans(&[]), |_, _| Relay::Silent, &at(0));
    let place = |pool| {
        render(&divisions, pool).into_iter().map(|it| (it.first, it.relays, it.of)).collect::<Vec<_>>()
    };
    assert_eq!((place("a"), place("b"), place("c")), (vec![(0, 2, 5)], vec![(2, 3, 5)], vec![(5, 0, 5)]));
}

/// What may happen to two pools that name one Upstream.
#[derive(Clone, Debug)]
enum Happening {
    /// A pool is to have so many relays.
    Scale(usize, i32),
    /// A relay reads the newest configuration, as far as it has come to it.
    Apply(usize, u32),
    /// A relay's pod is removed, or comes (again).
    Stop(usize, u32),
    Start(usize, u32),
    /// A relay sends as much as it may.
    Send(usize, u32),
    /// All relays read, and all send what they may.
    All,
    /// The operator looks again.
    Reconcile,
    /// Seconds pass.
    Wait(i64),
}

fn happening() -> impl Strategy<Value = Happening> {
    let relay = || (0..2_usize, 0..4_u32);
    prop_oneof![
        (0..2_usize, 0..5_i32).prop_map(|(pool, count)| Happening::Scale(pool, count)),
        relay().prop_map(|(pool, ordinal)| Happening::Apply(pool, ordinal)),
        relay().prop_map(|(pool, ordinal)| Happening::Stop(pool, ordinal)),
        relay().prop_map(|(pool, ordinal)| Happening::Start(pool, ordinal)),
        relay().prop_map(|(pool, ordinal)| Happening::Send(pool, ordinal)),
        Just(Happening::All),
        Just(Happening::Reconcile),
        Just(Happening::Reconcile),
        (1..8_i64).prop_map(Happening::Wait),
    ]
}

/// A relay that runs: the configuration it has read.
#[derive(Clone, Default)]
struct Running {
    divisions: Vec<relay::Division>,
}

/// Two pools, their relays, and the operator.
struct World {
    maximum: u32,
    per_seconds: u32,
    replicas: [i32; 2],
    divisions: Vec<Division>,
    running: std::collections::BTreeMap<(usize, u32), Running>,
    /// When which relay has sent how much.
    sent: Vec<(i64, (usize, u32), u32)>,
    now: i64,
}

const NAMES: [&str; 2] = ["a", "b"];

impl World {
    fn new(maximum: u32, per_seconds: u32) -> Self {
        let (running, sent) = (std::collections::BTreeMap::new(), Vec::new());
        Self { maximum, per_seconds, replicas: [2, 0], divisions: Vec::new(), running, sent, now: 1_000 }
    }

    fn within(&self, relay: Option<(usize, u32)>) -> u32 {
        let counts = |(at, by, _): &&(i64, (usize, u32), u32)| {
            self.now - at < i64::from(self.per_seconds) && relay.is_none_or(|relay| relay == *by)
        };
        self.sent.iter().filter(counts).map(|(_, _, amount)| amount).sum()
    }

    fn share(&self, at: (usize, u32), per_seconds: u32) -> u32 {
        let divisions = self.running.get(&at).map(|running| running.divisions.as_slice()).unwrap_or_default();
        relay::least_share(divisions, self.maximum, per_seconds, at.1)
    }

    fn relay(&self, pool: &str, ordinal: u32) -> Relay {
        let at = (NAMES.iter().position(|name| *name == pool).unwrap(), ordinal);
        match self.running.get(&at) {
            None => Relay::Gone,
            Some(running) if self.within(Some(at)) <= self.share(at, self.per_seconds) => {
                Relay::Keeps(running.divisions.last().map_or(0, |last| i64::try_from(last.number).unwrap()))
            }
            Some(_) => Relay::Keeps(0),
        }
    }

    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::Scale(pool, count) => self.replicas[*pool] = *count,
            Happening::Apply(pool, ordinal) | Happening::Start(pool, ordinal) => {
                let divisions = render(&self.divisions, NAMES[*pool]);
                let at = (*pool, *ordinal);
                if matches!(happening, Happening::Start(..)) || self.running.contains_key(&at) {
                    self.running.insert(at, Running { divisions });
                }
            }
            Happening::Stop(pool, ordinal) => drop(self.running.remove(&(*pool, *ordinal))),
            Happening::Send(pool, ordinal) => {
                let at = (*pool, *ordinal);
                let room = self.share(at, self.per_seconds).saturating_sub(self.within(Some(at)));
                self.sent.push((self.now, at, room));
            }
            Happening::All => {
                let running: Vec<_> = self.running.keys().copied().collect();
                for (pool, ordinal) in running {
                    self.happen(&Happening::Apply(pool, ordinal));
                    self.happen(&Happening::Send(pool, ordinal));
                }
            }
            Happening::Reconcile => {
                let wanted = pools(&[("a", self.replicas[0]), ("b", self.replicas[1])]);
                let spans = spans(&[self.per_seconds]);
                self.divisions =
                    next(&self.divisions, &wanted, &spans, |pool, it| self.relay(pool, it), &at(self.now));
            }
            Happening::Wait(seconds) => self.now += seconds,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Pools are scaled, relays read configurations late or never, go and come back, and send all that they may.
    #[test]
    fn relays_never_have_more_than_there_is_together(
        maximum in 1_u32..20, per_seconds in 1_u32..30, happenings in prop::collection::vec(happening(), 1..150),
    ) {
        let mut world = World::new(maximum, per_seconds);
        for happening in happenings {
            world.happen(&happening);
            let connections: u32 = world.running.keys().map(|at| world.share(*at, 0)).sum();
            prop_assert!(connections <= maximum, "{connections} of {maximum} connections after {happening:?}");
            let sent = world.within(None);
            prop_assert!(sent <= maximum, "{sent} of {maximum} in {per_seconds} s after {happening:?}");
            prop_assert!(world.divisions.len() <= MOST + 1);
        }
    }
}
