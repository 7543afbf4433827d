//! Which rates there are, and which of them a message counts for.

use std::collections::BTreeMap;
use std::sync::Arc;

use postroad_crds::relay_config::{Rate, RelayConfig, Upstream};

use crate::budget::Scope;

/// The name of what has no rates: no route and no identity is called so.
const NONE: &str = "";

/// The rates of upstreams, their source addresses, routes and identities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rates {
    by_scope: BTreeMap<Scope, Vec<Rate>>,
    /// By route and by identity, where these have rates, what of both a message counts for.
    charged: BTreeMap<String, BTreeMap<String, Arc<[Scope]>>>,
}

impl Rates {
    pub(super) fn of(config: &RelayConfig) -> Self {
        let upstreams =
            config.upstreams.iter().map(|it| (Scope::Upstream(it.name.as_str().into()), &it.rates));
        let routes = config.routes.iter().map(|it| (Scope::Route(it.name.as_str().into()), &it.rates));
        let identities =
            config.identities.iter().map(|it| (Scope::Identity(it.name.as_str().into()), &it.rates));
        let by_scope: BTreeMap<_, _> = upstreams
            .chain(config.upstreams.iter().flat_map(sources))
            .chain(routes)
            .chain(identities)
            .filter(|(_, rates)| !rates.is_empty())
            .map(|(scope, rates)| (scope, rates.clone()))
            .collect();
        let charged = charged(by_scope.keys());
        Self { by_scope, charged }
    }

    /// All scopes that have rates, and these: what the whole pool may send.
    pub fn iter(&self) -> impl Iterator<Item = (&Scope, &[Rate])> {
        self.by_scope.iter().map(|(scope, rates)| (scope, rates.as_slice()))
    }

    /// What a message counts for that takes this route and comes from this identity, beside its upstream.
    #[must_use]
    pub fn charged(&self, route: &str, identity: Option<&str>) -> Arc<[Scope]> {
        let by_identity = self.charged.get(route).or_else(|| self.charged.get(NONE));
        let find = |name: &str| by_identity.and_then(|held| held.get(name));
        identity.and_then(find).or_else(|| find(NONE)).cloned().unwrap_or_default()
    }

    /// Whether messages planned under `other` count for the same as under this.
    #[must_use]
    pub fn charge_as(&self, other: &Self) -> bool {
        self.charged == other.charged
    }
}

/// What may leave from each address for this upstream.
fn sources(upstream: &Upstream) -> Vec<(Scope, &Vec<Rate>)> {
    let connections = &upstream.connections;
    let of = |address| (Scope::source(&upstream.name, address), &connections.rates_per_source_address);
    match connections.source_addresses.as_slice() {
        [] => vec![of(None)],
        addresses => addresses.iter().map(|address| of(Some(*address))).collect(),
    }
}

/// One entry for every combination, so that all messages of one share it.
fn charged<'a>(scopes: impl Iterator<Item = &'a Scope>) -> BTreeMap<String, BTreeMap<String, Arc<[Scope]>>> {
    let (mut routes, mut identities) = (vec![None], vec![None]);
    for scope in scopes {
        match scope {
            Scope::Upstream(_) | Scope::Source(_) => {}
            Scope::Route(_) => routes.push(Some(scope)),
            Scope::Identity(_) => identities.push(Some(scope)),
        }
    }
    let name = |scope: Option<&Scope>| scope.map_or(NONE, Scope::name).to_owned();
    let both = |route: Option<&Scope>, identity: Option<&Scope>| {
        (name(identity), route.into_iter().chain(identity).cloned().collect())
    };
    let of_route = |route: Option<&Scope>| {
        (name(route), identities.iter().map(|identity| both(route, *identity)).collect())
    };
    routes.iter().map(|route| of_route(*route)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_counts_for_its_route_and_its_identity_where_they_have_rates() {
        let scopes =
            [Scope::Route("bulk".into()), Scope::Identity("shop".into()), Scope::Upstream("ses".into())];
        let rates = Rates { by_scope: BTreeMap::new(), charged: charged(scopes.iter()) };
        let check = |route: &str, identity: Option<&str>, expected: &[Scope]| {
            assert_eq!(&*rates.charged(route, identity), expected, "{route} {identity:?}");
        };
        check("bulk", Some("shop"), &scopes[..2]);
        check("bulk", Some("other"), &scopes[..1]);
        check("bulk", None, &scopes[..1]);
        check("default", Some("shop"), &scopes[1..2]);
        check("default", None, &[]);
    }
}
