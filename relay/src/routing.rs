//! Which upstream takes which recipient. Pure: envelope addresses and the policy's routes in, a route out.

use crate::config::{CompiledRoute, Policy};
use crate::domain_pattern::DomainPattern;

/// The first route of `policy` that takes mail from `sender` (the reverse-path; empty for the null one) to `recipient`.
/// Both are mailboxes without brackets; `None` when no route matches.
#[must_use]
pub fn route<'a>(policy: &'a Policy, sender: &str, recipient: &str) -> Option<&'a CompiledRoute> {
    let (sender, recipient) = (domain(sender), domain(recipient));
    policy
        .routes
        .iter()
        .find(|route| matches(&route.sender_domains, sender) && matches(&route.recipient_domains, recipient))
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

    #[test]
    fn the_domain_is_what_follows_the_last_at_sign() {
        assert_eq!(domain("\"a@b\"@example.com"), Some("example.com"));
        assert_eq!(domain(""), None);
    }
}
