//! What an upstream may be given, or a route or an identity may send, over the whole pool, and each relay's share of it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// How many sessions an upstream gets, and how long each lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Connections {
    /// Sessions of the whole pool together.
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

impl Connections {
    /// The sessions that the relay with this ordinal may have open at once: see [`share`].
    #[must_use]
    pub fn share(&self, ordinal: u32, replicas: u32) -> u32 {
        share(self.maximum, ordinal, replicas)
    }
}

/// A bound on what goes in every span of `per_seconds`, however it is laid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rate {
    /// At most so many by the whole pool; each relay takes its [`share`].
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

/// What the relay with this ordinal may use out of `maximum` over `replicas` relays. The shares of all ordinals below
/// `replicas` add up to `maximum`; an ordinal beyond them has none.
#[must_use]
pub fn share(maximum: u32, ordinal: u32, replicas: u32) -> u32 {
    if ordinal >= replicas {
        return 0;
    }
    maximum / replicas + u32::from(ordinal < maximum % replicas)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(maximum: u32) -> Connections {
        Connections { maximum, ..Connections::default() }
    }

    #[test]
    fn shares_add_up_to_the_maximum() {
        for maximum in 1..40 {
            for replicas in 1..20 {
                let total: u32 =
                    (0..replicas).map(|ordinal| connections(maximum).share(ordinal, replicas)).sum();
                assert_eq!(total, maximum, "{maximum} over {replicas}");
                assert_eq!(connections(maximum).share(replicas, replicas), 0, "a leaving relay has no share");
            }
        }
    }
}
