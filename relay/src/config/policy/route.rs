//! Which upstream takes which message.

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
    /// The key in [`Policy::upstreams`].
    pub upstream: String,
}

pub(super) fn routes(
    config: &RelayConfig,
    upstreams: &BTreeMap<String, Arc<UpstreamPolicy>>,
) -> Result<Vec<CompiledRoute>, PolicyError> {
    let compile = |route: &rendered::Route| {
        let place = format!("route {:?}", route.name);
        if !upstreams.contains_key(&route.upstream) {
            return Err(invalid(place, format!("there is no upstream {:?}", route.upstream)));
        }
        let patterns = |domains: &[String]| -> Result<Vec<DomainPattern>, PolicyError> {
            domains
                .iter()
                .map(|domain| domain.parse().map_err(|error| invalid(place.as_str(), error)))
                .collect()
        };
        Ok(CompiledRoute {
            name: route.name.clone(),
            sender_domains: patterns(&route.sender_domains)?,
            recipient_domains: patterns(&route.recipient_domains)?,
            upstream: route.upstream.clone(),
        })
    };
    config.routes.iter().map(compile).collect()
}
