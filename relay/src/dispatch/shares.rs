//! This relay's shares of what its pool may send. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use postroad_crds::relay_config::{self, RateUnit, share};

use crate::budget::{Rate, Scope, Unit};
use crate::config::Policy;

/// The shares of the relay of this ordinal of all rates.
pub(super) fn rates(policy: &Policy, ordinal: u32) -> BTreeMap<Scope, Vec<Rate>> {
    let of = |rate: &relay_config::Rate| Rate {
        limit: u64::from(share(rate.limit, ordinal, policy.replicas)),
        unit: match rate.unit {
            RateUnit::Messages => Unit::Messages,
            RateUnit::Recipients => Unit::Recipients,
        },
        per: Duration::from_secs(u64::from(rate.per_seconds)),
    };
    policy.rates.iter().map(|(scope, rates)| (scope.clone(), rates.iter().map(of).collect())).collect()
}
