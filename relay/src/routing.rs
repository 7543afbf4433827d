//! Which upstream takes which recipient. Pure: what a message is, the policy's routes and which upstreams work in; an upstream
//! out.

use std::sync::Arc;

use crate::config::{CompiledRoute, Policy, Preference};
use crate::domain_pattern::DomainPattern;
use crate::message::MessageId;

/// What of a message decides about its route, beside the recipient.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The reverse-path, a mailbox without brackets; empty for the null one.
    pub sender: &'a str,
    /// The identity that let its client in; `None` for what the relay itself has written.
    pub identity: Option<&'a str>,
}

/// The first route of `policy` that takes mail from `origin` to `recipient`, a mailbox without brackets; `None` when no route
/// matches.
#[must_use]
pub fn route<'a>(policy: &'a Policy, origin: Origin<'_>, recipient: &str) -> Option<&'a Arc<CompiledRoute>> {
    let (sender, recipient) = (domain(origin.sender), domain(recipient));
    policy.routes.iter().find(|route| {
        matches(&route.sender_domains, sender)
            && matches(&route.recipient_domains, recipient)
            && (route.identities.is_empty()
                || origin
                    .identity
                    .is_some_and(|identity| route.identities.iter().any(|held| held == identity)))
    })
}

/// All upstreams of `route`, the best priority first.
pub fn upstreams(route: &CompiledRoute) -> impl Iterator<Item = &str> {
    route.preferences.iter().flatten().map(|held| held.upstream.as_str())
}

/// The best priority of `route` of which an upstream `works`, counted from 0; `None` while none does.
#[must_use]
pub fn working_priority(route: &CompiledRoute, works: impl Fn(&str) -> bool) -> Option<usize> {
    route.preferences.iter().position(|group| group.iter().any(|held| works(&held.upstream)))
}

/// The upstream of `route` for this message: among those of the best priority that has one that `works`, by weight. While none
/// works at all, the message waits for one of the best priority.
///
/// The same message always goes to the same upstream as long as the same ones work, so that recipients of one route travel in
/// one transaction, and messages are divided as the weights say because the end of an id is random.
#[must_use]
pub fn choose(route: &CompiledRoute, id: MessageId, works: impl Fn(&str) -> bool) -> &str {
    let priority = working_priority(route, &works);
    let group = route.preferences.get(priority.unwrap_or(0)).map_or(&[][..], Vec::as_slice);
    let candidates: Vec<_> =
        group.iter().filter(|held| priority.is_none() || works(&held.upstream)).collect();
    by_weight(&candidates, id)
}

fn by_weight<'a>(candidates: &[&'a Preference], id: MessageId) -> &'a str {
    let total: u128 = candidates.iter().map(|held| u128::from(held.weight)).sum();
    let mut point = id.0 % total.max(1);
    for held in candidates {
        let weight = u128::from(held.weight);
        if point < weight {
            return &held.upstream;
        }
        point -= weight;
    }
    // A compiled route has an upstream in every group, and the point lies below the sum of their weights.
    candidates.last().map_or("", |held| held.upstream.as_str())
}

fn matches(patterns: &[DomainPattern], domain: Option<&str>) -> bool {
    patterns.is_empty() || domain.is_some_and(|domain| patterns.iter().any(|pattern| pattern.matches(domain)))
}

/// What follows the last `@`: a quoted local part may contain others (RFC 5321 §4.1.2).
fn domain(mailbox: &str) -> Option<&str> {
    mailbox.rsplit_once('@').map(|(_, domain)| domain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use postroad_crds::relay_config::RelayConfig;
    use std::collections::BTreeMap;

    fn policy() -> Policy {
        let upstream = |name: &str| {
            format!(
                "- {{name: {name}, destination: {{sandbox: {{keepMessages: 1}}}}, connections: \
                 {{maximum: 1, messagesPerConnection: 1, idleTimeoutSeconds: 1, maximumAgeSeconds: 1}}}}\n"
            )
        };
        let upstreams: String = ["ses", "mailgun", "backup"].map(upstream).concat();
        let config = RelayConfig::from_yaml(&format!(
            "version: relay-config.postroad.dev/v1
pool: {{namespace: mail, name: main}}
replicas: 1
hostname: relay.example
listeners: [{{name: smtp, address: '127.0.0.1:0', tls: None, authentication: None}}]
identities: [{{name: billing, match: {{network: {{cidrs: [10.0.0.0/8]}}}}}}]
routes:
- {{name: billing, identities: [billing], recipientDomains: [example.net], upstreams: [{{name: backup}}]}}
- {{name: partner, senderDomains: [example.com], recipientDomains: ['*.example.org'], upstreams: [{{name: mailgun}}]}}
- name: default
  recipientDomains: [example.com, example.net]
  upstreams: [{{name: backup, priority: 2}}, {{name: ses, weight: 90}}, {{name: mailgun, weight: 10}}]
upstreams:
{upstreams}queue: {{expireAfterSeconds: 60, minimumBackoffSeconds: 1, maximumBackoffSeconds: 2, maximumBytes: 1000000}}
limits: {{messageBytes: 1000, recipientsPerMessage: 10, connections: 10, connectionsPerClient: 10}}
shutdown: {{acceptSeconds: 0, gracePeriodSeconds: 1}}
"
        ))
        .unwrap();
        Policy::compile(&config).unwrap()
    }

    fn check(sender: &str, identity: Option<&str>, recipient: &str, expected: Option<&str>) {
        let policy = policy();
        let found = route(&policy, Origin { sender, identity }, recipient);
        assert_eq!(found.map(|route| route.name.as_str()), expected, "{sender} {identity:?} {recipient}");
    }

    #[test]
    fn the_domain_is_what_follows_the_last_at_sign() {
        assert_eq!(domain("\"a@b\"@example.com"), Some("example.com"));
        assert_eq!(domain(""), None);
    }

    #[test]
    fn the_first_route_whose_every_list_matches_takes_a_recipient() {
        check("a@example.com", Some("billing"), "b@example.net", Some("billing"));
        check("a@example.com", Some("other"), "b@example.net", Some("default"));
        check("", None, "b@example.net", Some("default"));
        check("a@example.com", Some("billing"), "b@sub.example.org", Some("partner"));
        check("", None, "b@sub.example.org", None);
        check("a@example.com", Some("billing"), "b@example.edu", None);
    }

    /// How many of 10,000 messages go where while these work.
    fn division(working: &[&str]) -> BTreeMap<String, usize> {
        let policy = policy();
        let route = policy.routes.iter().find(|route| route.name == "default").unwrap();
        let mut counts = BTreeMap::new();
        for number in 0..10_000_u128 {
            // Multiplied by an odd number, so that neighbours lie far apart as random ids do.
            let id = MessageId(number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835));
            let chosen = choose(route, id, |name| working.contains(&name));
            assert_eq!(chosen, choose(route, id, |name| working.contains(&name)), "the same every time");
            *counts.entry(chosen.to_owned()).or_insert(0) += 1;
        }
        counts
    }

    #[test]
    fn messages_are_divided_by_weight_among_the_best_priority_that_works() {
        let both = division(&["ses", "mailgun", "backup"]);
        assert_eq!(both.len(), 2, "{both:?}");
        assert!((8_800..9_200).contains(&both["ses"]), "{both:?}");
        assert_eq!(division(&["mailgun", "backup"]), [("mailgun".to_owned(), 10_000)].into());
        assert_eq!(division(&["backup"]), [("backup".to_owned(), 10_000)].into());
        assert_eq!(division(&[]), both, "while none works they wait where they would go");
    }
}
