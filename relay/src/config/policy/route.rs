//! Which upstreams take which message.

use std::collections::BTreeMap;
use std::sync::Arc;

use postroad_crds::relay_config::{self as rendered, RelayConfig};

use super::fault::{PolicyError, invalid};
use super::upstream::UpstreamPolicy;
use crate::domain_pattern::DomainPattern;

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledRoute {
    /// Its name in the RelayPool.
    pub name: String,
    /// What the reverse-path's domain must match; empty: anything, the null reverse-path included.
    pub sender_domains: Vec<DomainPattern>,
    /// What the forward-path's domain must match; empty: anything.
    pub recipient_domains: Vec<DomainPattern>,
    /// Which identities' messages match; empty: all, also what no client has sent.
    pub identities: Vec<String>,
    /// Its upstreams by priority, the best first. Neither the list nor any of its groups is empty.
    pub preferences: Vec<Vec<Preference>>,
}

/// One upstream among those of its priority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preference {
    /// The key in [`Policy::upstreams`](super::Policy::upstreams).
    pub upstream: String,
    /// Its part of the messages, at least 1.
    pub weight: u32,
}

pub(super) fn routes(
    config: &RelayConfig,
    upstreams: &BTreeMap<String, Arc<UpstreamPolicy>>,
) -> Result<Vec<Arc<CompiledRoute>>, PolicyError> {
    let compile = |route: &rendered::Route| {
        let place = format!("route {:?}", route.name);
        if let Some(missing) = route.upstreams.iter().find(|named| !upstreams.contains_key(&named.name)) {
            return Err(invalid(place, format!("there is no upstream {:?}", missing.name)));
        }
        let known = |name: &&String| config.identities.iter().any(|identity| identity.name == **name);
        if let Some(missing) = route.identities.iter().find(|name| !known(name)) {
            return Err(invalid(place, format!("there is no identity {missing:?}")));
        }
        let patterns = |domains: &[String]| -> Result<Vec<DomainPattern>, PolicyError> {
            domains
                .iter()
                .map(|domain| domain.parse().map_err(|error| invalid(place.as_str(), error)))
                .collect()
        };
        Ok(Arc::new(CompiledRoute {
            name: route.name.clone(),
            sender_domains: patterns(&route.sender_domains)?,
            recipient_domains: patterns(&route.recipient_domains)?,
            identities: route.identities.clone(),
            preferences: preferences(&place, &route.upstreams)?,
        }))
    };
    config.routes.iter().map(compile).collect()
}

fn preferences(place: &str, named: &[rendered::RouteUpstream]) -> Result<Vec<Vec<Preference>>, PolicyError> {
    let mut groups: BTreeMap<u32, Vec<Preference>> = BTreeMap::new();
    for rendered::RouteUpstream { name, weight, priority } in named {
        if *weight == 0 {
            return Err(invalid(place, format!("upstream {name:?} has no weight")));
        }
        groups.entry(*priority).or_default().push(Preference { upstream: name.clone(), weight: *weight });
    }
    if groups.is_empty() {
        return Err(invalid(place, "it names no upstream"));
    }
    Ok(groups.into_values().collect())
}
