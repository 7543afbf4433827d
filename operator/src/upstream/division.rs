//! How what an Upstream allows is divided over the relays of all pools that name it, also while these come and go. Pure.
//!
//! Every relay takes an equal share by its place. When the relays change, their shares do, and a relay that is given more must not
//! use it before those that are given less have let go of it. So the division that was in force stays beside the new one, and each
//! relay uses the least of its shares by both, until every relay of the old one keeps to the new one: it says so itself, once its
//! sessions and what it has sent within every span fit into its new share. A relay that does not answer keeps the old division in
//! place, for hours if need be: it may be sending where nobody sees it.
//!
//! A relay that has gone cannot say so, and what it has sent within a span still counts. Where that is so, the old division is over
//! for connections, and goes on to bind rates until their span has passed since.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use postroad_crds::relay_config as relay;
use postroad_crds::v1alpha1::{Division, PoolRelays, RelayPool};

use crate::relay_pool::validate::upstream_names;

/// Divisions that may stand beside the one that is wanted. What is wanted then waits for the first to be over.
const MOST: usize = 8;

/// How long until relays are asked again: what they keep to is in no event.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// What is known of one relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relay {
    /// It keeps to the division of this number.
    Keeps(i64),
    /// It has no pod, so it sends nothing.
    Gone,
    /// It does not say.
    Silent,
}

/// What the Upstream's rates are, as far as it matters here: the seconds of their spans.
#[derive(Clone, Debug, Default)]
pub struct Spans(Vec<u32>);

impl Spans {
    /// The spans of these rates.
    #[must_use]
    pub fn of(rates: &[relay::Rate]) -> Self {
        let mut spans: Vec<u32> = rates.iter().map(|rate| rate.per_seconds).collect();
        spans.sort_unstable();
        Self(spans)
    }

    /// The time until the next span is over; `None` when all are.
    fn next_after(&self, elapsed: Duration) -> Option<Duration> {
        let coming =
            self.0.iter().map(|span| Duration::from_secs(u64::from(*span))).find(|span| *span > elapsed);
        coming.map(|span| span - elapsed)
    }

    fn longest(&self) -> u32 {
        self.0.last().copied().unwrap_or_default()
    }

    /// The longest span that is over after this time; 0 when none is.
    fn passed(&self, elapsed: Duration) -> u32 {
        let passed = |span: &&u32| u64::from(**span) <= elapsed.as_secs();
        self.0.iter().rfind(passed).copied().unwrap_or_default()
    }
}

/// The divisions to be in force after `present`, oldest first, the wanted one last. `relays` tells what is known of a pool's
/// relay; it is asked only about relays that may have to let go of something.
#[must_use]
pub fn next(
    present: &[Division],
    wanted: &[PoolRelays],
    spans: &Spans,
    relays: impl Fn(&str, u32) -> Relay,
    now: &Time,
) -> Vec<Division> {
    let mut divisions = present.to_vec();
    match divisions.last() {
        // Higher than any before, should what was in force be lost with the status.
        None => return vec![new(now.0.as_second(), wanted)],
        Some(last) if last.pools != wanted => {
            let number = last.number + 1;
            // The one before still binds everything: nobody uses more by the one that is replaced than by that.
            if divisions.iter().rev().nth(1).is_some_and(|before| before.ended.is_none()) {
                divisions.pop();
            }
            if divisions.len() <= MOST {
                divisions.push(new(number, wanted));
            }
        }
        Some(last) => {
            let number = last.number;
            let before = divisions.len().checked_sub(2).and_then(|index| divisions.get_mut(index));
            if let Some(before) = before.filter(|before| before.ended.is_none()) {
                match standing(before, number, relays) {
                    Standing::InForce => {}
                    Standing::Left => before.ended = Some(whole_second_after(now)),
                    Standing::Over => drop(divisions.remove(divisions.len() - 2)),
                }
            }
        }
    }
    age(&mut divisions, spans, now);
    divisions
}

/// When to look again though nothing changes; `None`: never.
#[must_use]
pub fn look_again(
    divisions: &[Division],
    wanted: &[PoolRelays],
    spans: &Spans,
    now: &Time,
) -> Option<Duration> {
    let waits = divisions.last().is_none_or(|last| last.pools != wanted);
    let asks = divisions.iter().rev().nth(1).is_some_and(|before| before.ended.is_none());
    let ages =
        divisions.iter().filter_map(|division| spans.next_after(elapsed(division.ended.as_ref()?, now)));
    ages.chain((waits || asks).then_some(ASK_AGAIN)).min()
}

fn new(number: i64, pools: &[PoolRelays]) -> Division {
    Division { number, pools: pools.to_vec(), ended: None, longer_than_seconds: None }
}

/// How a division stands to the next one.
enum Standing {
    /// A relay may still use its share of it.
    InForce,
    /// No relay does, but some have gone that may have.
    Left,
    /// All keep to the next one.
    Over,
}

fn standing(before: &Division, number: i64, relays: impl Fn(&str, u32) -> Relay) -> Standing {
    let mut standing = Standing::Over;
    for pool in &before.pools {
        for ordinal in 0..u32::try_from(pool.replicas).unwrap_or_default() {
            match relays(&pool.name, ordinal) {
                Relay::Keeps(kept) if kept >= number => {}
                Relay::Gone => standing = Standing::Left,
                Relay::Keeps(_) | Relay::Silent => return Standing::InForce,
            }
        }
    }
    standing
}

/// Lets what has ended go on to bind only the spans that are not over since, and removes what binds nothing any more.
fn age(divisions: &mut Vec<Division>, spans: &Spans, now: &Time) {
    divisions.retain_mut(|division| {
        let Some(ended) = &division.ended else { return true };
        let elapsed = elapsed(ended, now);
        division.longer_than_seconds = i32::try_from(spans.passed(elapsed)).ok();
        elapsed.as_secs() < u64::from(spans.longest())
    });
}

fn elapsed(since: &Time, now: &Time) -> Duration {
    Duration::try_from(now.0.duration_since(since.0)).unwrap_or_default()
}

/// Times have whole seconds, and no span may be over too early.
fn whole_second_after(now: &Time) -> Time {
    Time(Timestamp::from_second(now.0.as_second() + 1).unwrap_or(now.0))
}

/// The divisions as the relays of this pool need them: nobody has a share while there is none.
#[must_use]
pub fn render(divisions: &[Division], pool: &str) -> Vec<relay::Division> {
    if divisions.is_empty() {
        return vec![relay::Division::alone(0)];
    }
    let count = |pool: &PoolRelays| u32::try_from(pool.replicas).unwrap_or_default();
    let render = |division: &Division| {
        let before = division.pools.iter().take_while(|held| held.name != pool);
        relay::Division {
            number: u64::try_from(division.number).unwrap_or_default(),
            first: before.map(count).sum(),
            relays: division.pools.iter().find(|held| held.name == pool).map_or(0, count),
            of: division.pools.iter().map(count).sum(),
            longer_than_seconds: division.longer_than_seconds.and_then(|seconds| u32::try_from(seconds).ok()),
        }
    };
    divisions.iter().map(render).collect()
}

/// The pools that name the Upstream, in the order of their names, with their relays.
pub fn wanted<'a>(pools: impl IntoIterator<Item = &'a RelayPool>, upstream: &str) -> Vec<PoolRelays> {
    let naming = pools.into_iter().filter(|pool| upstream_names(pool).contains(&upstream));
    let relays = |pool: &RelayPool| PoolRelays { name: pool.name_any(), replicas: pool.spec.replicas };
    let mut found: Vec<PoolRelays> = naming.map(relays).collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

/// The relays of all these pools.
#[must_use]
pub fn relays(pools: &[PoolRelays]) -> u32 {
    pools.iter().map(|pool| u32::try_from(pool.replicas).unwrap_or_default()).sum()
}

/// What of the Upstream's budgets is too small for every one of so many relays to have a share; `None` when all have.
#[must_use]
pub fn too_small(upstream: &relay::Upstream, relays: u32) -> Option<String> {
    let connections = (upstream.connections.maximum < relays)
        .then(|| format!("{} sessions (spec.connections.maximum)", upstream.connections.maximum));
    let rate = |rate: &relay::Rate| {
        let unit = if rate.unit == relay::RateUnit::Messages { "messages" } else { "recipients" };
        format!("{} {unit} in {} s (spec.rates)", rate.limit, rate.per_seconds)
    };
    let rates = upstream.rates.iter().filter(|rate| rate.limit < relays).map(rate);
    let all: Vec<String> = connections.into_iter().chain(rates).collect();
    (!all.is_empty()).then(|| all.join(" and "))
}

#[cfg(test)]
mod tests;
