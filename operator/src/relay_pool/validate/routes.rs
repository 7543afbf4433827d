//! `spec.routes`.

use postroad_crds::relay_config as relay;
use postroad_crds::v1alpha1::{Identity, Route, RouteMatch, RouteUpstream};

use super::pattern::domains;
use super::place::At;
use super::rates::rates;
use crate::reason::{Findings, Problem};

pub(super) fn routes(
    at: &At<'_>,
    specs: &[Route],
    identities: &[Identity],
    replicas: i32,
    findings: &mut Findings,
) -> Vec<relay::Route> {
    if specs.is_empty() {
        findings.spec.push(
            at.invalid("routes", "name at least one, for example {name: default, upstreams: [{name: ses}]}"),
        );
    }
    let mut route = |spec: &Route| {
        let field = |list: &str| format!("routes[{}].{list}", spec.name);
        let matched = spec.match_.clone().unwrap_or_default();
        let senders = domains(at, &field("match.senderDomains"), &matched.sender_domains);
        let recipients = domains(at, &field("match.recipientDomains"), &matched.recipient_domains);
        findings.spec(known(at, &field("match.identities"), &matched, identities));
        Some(relay::Route {
            name: spec.name.clone(),
            sender_domains: findings.spec(senders)?,
            recipient_domains: findings.spec(recipients)?,
            identities: matched.identities,
            upstreams: findings.spec(upstreams(at, &field("upstreams"), &spec.upstreams))?,
            rates: findings.spec(rates(at, &field("rates"), &spec.rates, replicas))?,
        })
    };
    specs.iter().filter_map(&mut route).collect()
}

/// A name that no identity has would match nothing, for ever and silently.
fn known(at: &At<'_>, field: &str, matched: &RouteMatch, identities: &[Identity]) -> Result<(), Problem> {
    let unknown = matched.identities.iter().find(|name| !identities.iter().any(|held| held.name == **name));
    match unknown {
        Some(name) => Err(at.invalid(field, format!("there is no {name:?} in spec.clients.identities"))),
        None => Ok(()),
    }
}

fn upstreams(
    at: &At<'_>,
    field: &str,
    specs: &[RouteUpstream],
) -> Result<Vec<relay::RouteUpstream>, Problem> {
    if specs.is_empty() {
        return Err(at.invalid(field, "name at least one Upstream, for example {name: ses}"));
    }
    let upstream = |spec: &RouteUpstream| {
        Ok(relay::RouteUpstream {
            name: spec.name.clone(),
            weight: at.count(&format!("{field}[{}].weight", spec.name), spec.weight)?,
            priority: at.count(&format!("{field}[{}].priority", spec.name), spec.priority)?,
        })
    };
    specs.iter().map(upstream).collect()
}
