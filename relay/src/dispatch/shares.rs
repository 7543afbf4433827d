//! This relay's shares of what its pool may send. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use postroad_crds::relay_config::{self, RateUnit, share};

use crate::budget::{Rate, Scope, Unit};
use crate::config::Policy;

/// The shares of the relay of this ordinal of all rates. It has its addresses for itself.
pub(super) fn rates(policy: &Policy, ordinal: u32) -> BTreeMap<Scope, Vec<Rate>> {
    let limit = |scope: &Scope, rate: &relay_config::Rate| match scope {
        Scope::Source(_) => rate.limit,
        _ => share(rate.limit, ordinal, policy.replicas),
    };
    let of = |scope: &Scope, rate: &relay_config::Rate| Rate {
        limit: u64::from(limit(scope, rate)),
        unit: match rate.unit {
            RateUnit::Messages => Unit::Messages,
            RateUnit::Recipients => Unit::Recipients,
        },
        per: Duration::from_secs(u64::from(rate.per_seconds)),
    };
    let all =
        |scope: &Scope, rates: &[relay_config::Rate]| rates.iter().map(|rate| of(scope, rate)).collect();
    policy.rates.iter().map(|(scope, rates)| (scope.clone(), all(scope, rates))).collect()
}
