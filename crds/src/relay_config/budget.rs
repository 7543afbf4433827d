//! What an upstream may be given, or a route or an identity may send, over the whole pool, and each relay's share of it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// How many sessions an upstream gets, and how long each lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Connections {
    /// Sessions over all relays together.
    pub maximum: u32,
    /// Messages after which a session is ended.
    pub messages_per_connection: u32,
    /// Seconds without a message after which a session is ended.
    pub idle_timeout_seconds: u32,
    /// Seconds after which a session is ended.
    pub maximum_age_seconds: u32,
    /// The longest wait for a reply, or for the upstream to take octets. None: as RFC 5321 §4.5.3.2 says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_timeout_seconds: Option<u32>,
    /// Sessions that each relay keeps open though it has nothing to send; never more than its share of `maximum`.
    #[serde(default)]
    pub minimum_idle: u32,
    /// The relay's own addresses that sessions connect from, in turn. None: the system chooses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_addresses: Vec<IpAddr>,
    /// Bounds on what leaves from each of them, or from the one that the system chooses. Not divided: a relay has its addresses
    /// for itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rates_per_source_address: Vec<Rate>,
}

impl Default for Connections {
    /// What an Upstream gets that says nothing.
    fn default() -> Self {
        Self {
            maximum: 10,
            messages_per_connection: 500,
            idle_timeout_seconds: 30,
            maximum_age_seconds: 900,
            reply_timeout_seconds: None,
            minimum_idle: 0,
            source_addresses: Vec::new(),
            rates_per_source_address: Vec::new(),
        }
    }
}

/// A bound on what goes in every span of `per_seconds`, however it is laid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rate {
    /// At most so many over all relays together.
    pub limit: u32,
    /// What is counted.
    pub unit: RateUnit,
    /// The length of the span.
    pub per_seconds: u32,
}

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RateUnit {
    /// Mail transactions.
    Messages,
    /// Their recipients.
    Recipients,
}

/// One division of what an upstream allows over all relays of all pools that name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Division {
    /// A later one has a higher number.
    pub number: u64,
    /// The place of this pool's relay 0 among all relays.
    pub first: u32,
    /// How many of them are this pool's.
    pub relays: u32,
    /// How many there are.
    pub of: u32,
    /// Binds only rates over spans longer than these seconds. Without it, it binds all rates and the connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longer_than_seconds: Option<u32>,
}

impl Division {
    /// A pool whose relays share it with nobody.
    #[must_use]
    pub fn alone(replicas: u32) -> Self {
        Self { number: 0, first: 0, relays: replicas, of: replicas, longer_than_seconds: None }
    }

    /// What the relay with this ordinal may use out of `maximum`. The shares of all relays add up to `maximum`; a relay beyond them
    /// has none.
    #[must_use]
    pub fn share(&self, maximum: u32, ordinal: u32) -> u32 {
        if ordinal >= self.relays || self.of == 0 {
            return 0;
        }
        let place = self.first.saturating_add(ordinal);
        maximum / self.of + u32::from(place < maximum % self.of)
    }

    /// Whether it binds a rate over so many seconds; zero seconds are connections.
    #[must_use]
    pub fn binds(&self, per_seconds: u32) -> bool {
        self.longer_than_seconds.is_none_or(|seconds| per_seconds > seconds)
    }
}

/// The least of this relay's shares of `maximum` by the divisions that bind a rate over so many seconds, or by none of which
/// there is one.
#[must_use]
pub fn least_share(divisions: &[Division], maximum: u32, per_seconds: u32, ordinal: u32) -> u32 {
    let binding = divisions.iter().filter(|division| division.binds(per_seconds));
    binding.map(|division| division.share(maximum, ordinal)).min().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_maximum_over_all_pools() {
        for maximum in 0..40 {
            for (mine, other) in (1..8).flat_map(|mine| (0..8).map(move |other| (mine, other))) {
                let of = mine + other;
                let division =
                    |first, relays| Division { number: 1, first, relays, of, longer_than_seconds: None };
                let pools = [division(0, mine), division(mine, other)];
                let shares =
                    pools.iter().flat_map(|it| (0..it.relays).map(|ordinal| it.share(maximum, ordinal)));
                assert_eq!(shares.sum::<u32>(), maximum, "{maximum} over {mine} and {other}");
                assert_eq!(pools[0].share(maximum, mine), 0, "a leaving relay has no share");
            }
        }
    }

    #[test]
    fn while_there_are_several_divisions_a_relay_has_the_least_share() {
        let before = Division { longer_than_seconds: Some(1), ..Division::alone(2) };
        let divisions = [before, Division { number: 1, ..Division::alone(4) }];
        let share = |per_seconds, ordinal| least_share(&divisions, 100, per_seconds, ordinal);
        assert_eq!(
            [share(0, 2), share(1, 2)],
            [25, 25],
            "the first binds neither connections nor short spans"
        );
        assert_eq!([share(60, 1), share(60, 2)], [25, 0]);
        assert_eq!(least_share(&[], 100, 0, 0), 0);
    }
}
