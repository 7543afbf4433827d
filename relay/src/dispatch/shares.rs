//! This relay's shares of what all relays may send together. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use postroad_crds::relay_config::{self, Division, RateUnit, least_share};

use crate::budget::{Rate, Scope, Unit};
use crate::config::{Policy, UpstreamPolicy};

/// The shares of the relay of this ordinal of all rates. Those of an upstream are divided over all pools that name it; its addresses
/// it has for itself.
pub(super) fn rates(policy: &Policy, ordinal: u32) -> BTreeMap<Scope, Vec<Rate>> {
    let (of_pool, undivided) = ([Division::alone(policy.replicas)], [Division::alone(1)]);
    let shares = |(scope, rates): (&Scope, &[relay_config::Rate])| {
        let (divisions, place) = match scope {
            Scope::Upstream(name) => match policy.upstreams.get(&**name) {
                Some(upstream) => (upstream.divisions.as_slice(), ordinal),
                None => (&of_pool[..], ordinal),
            },
            Scope::Route(_) | Scope::Identity(_) => (&of_pool[..], ordinal),
            Scope::Source(_) => (&undivided[..], 0),
        };
        (scope.clone(), rates.iter().map(|rate| of_rate(rate, divisions, place)).collect())
    };
    policy.rates.iter().map(shares).collect()
}

fn of_rate(rate: &relay_config::Rate, divisions: &[Division], ordinal: u32) -> Rate {
    Rate {
        limit: u64::from(least_share(divisions, rate.limit, rate.per_seconds, ordinal)),
        unit: match rate.unit {
            RateUnit::Messages => Unit::Messages,
            RateUnit::Recipients => Unit::Recipients,
        },
        per: Duration::from_secs(u64::from(rate.per_seconds)),
    }
}

/// The sessions that the relay of this ordinal may have with the upstream: none where `rates` leave it nothing to send on them.
pub(super) fn sessions(upstream: &UpstreamPolicy, rates: &BTreeMap<Scope, Vec<Rate>>, ordinal: u32) -> u32 {
    let scope = Scope::Upstream(upstream.name.as_str().into());
    if rates.get(&scope).is_some_and(|rates| rates.iter().any(|rate| rate.limit == 0)) {
        return 0;
    }
    least_share(&upstream.divisions, upstream.connections.maximum, 0, ordinal)
}
