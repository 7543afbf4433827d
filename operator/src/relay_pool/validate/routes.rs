//! `spec.routes`.

use postroad_crds::relay_config as relay;
use postroad_crds::v1alpha1::Route;

use super::pattern::domains;
use super::place::At;
use crate::reason::Findings;

pub(super) fn routes(at: &At<'_>, specs: &[Route], findings: &mut Findings) -> Vec<relay::Route> {
    if specs.is_empty() {
        findings.spec.push(
            at.invalid("routes", "name at least one, for example {name: default, upstreamRef: {name: ses}}"),
        );
    }
    let mut route = |spec: &Route| {
        let field = |list: &str| format!("routes[{}].match.{list}", spec.name);
        let matched = spec.match_.clone().unwrap_or_default();
        Some(relay::Route {
            name: spec.name.clone(),
            sender_domains: findings.spec(domains(at, &field("senderDomains"), &matched.sender_domains))?,
            recipient_domains: findings.spec(domains(
                at,
                &field("recipientDomains"),
                &matched.recipient_domains,
            ))?,
            upstream: spec.upstream_ref.name.clone(),
        })
    };
    specs.iter().filter_map(&mut route).collect()
}
