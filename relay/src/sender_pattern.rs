//! From which addresses an identity may send.

use smtp_protocol::ReversePath;

use crate::domain_pattern::{DomainPattern, InvalidPattern};

/// Reverse-paths that may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Senders {
    /// Every one, the null reverse-path included.
    Any,
    /// Those that match one of these.
    Only(Vec<SenderPattern>),
}

/// One form of reverse-path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderPattern {
    /// `<>`
    Null,
    /// This mailbox, in lower case. Local parts are compared without regard to case: what differs in case alone goes to the
    /// same mailbox nearly everywhere, and nobody gains an identity by it.
    Mailbox(String),
    /// Every mailbox of these domains.
    Domain(DomainPattern),
}

impl Senders {
    /// Reads patterns: a mailbox, a domain, `*.` with a domain, `<>`. None at all is [`Any`](Self::Any).
    ///
    /// # Errors
    /// The first that is none of these.
    pub fn parse(texts: &[String]) -> Result<Self, InvalidPattern> {
        if texts.is_empty() {
            return Ok(Self::Any);
        }
        let pattern = |text: &String| match text.as_str() {
            "<>" => Ok(SenderPattern::Null),
            text if text.contains('@') => Ok(SenderPattern::Mailbox(text.to_lowercase())),
            text => text.parse().map(SenderPattern::Domain),
        };
        texts.iter().map(pattern).collect::<Result<_, _>>().map(Self::Only)
    }

    /// Whether this reverse-path may be used.
    #[must_use]
    pub fn permit(&self, reverse_path: &ReversePath) -> bool {
        let Self::Only(patterns) = self else { return true };
        let address = reverse_path.as_str();
        patterns.iter().any(|pattern| match pattern {
            SenderPattern::Null => address.is_empty(),
            SenderPattern::Mailbox(mailbox) => *mailbox == address.to_lowercase(),
            SenderPattern::Domain(domain) => {
                address.rsplit_once('@').is_some_and(|(_, name)| domain.matches(name))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(patterns: &[&str], address: &str, expected: bool) {
        let texts: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        let path = if address.is_empty() {
            ReversePath::Null
        } else {
            ReversePath::Mailbox(address.parse().unwrap())
        };
        assert_eq!(Senders::parse(&texts).unwrap().permit(&path), expected, "{patterns:?} {address:?}");
    }

    #[test]
    fn without_patterns_everything_may_be_used() {
        check(&[], "a@example.com", true);
        check(&[], "", true);
    }

    #[test]
    fn mailboxes_domains_and_the_null_reverse_path_are_told_apart() {
        check(&["App@Example.com"], "aPP@example.COM", true);
        check(&["app@example.com"], "other@example.com", false);
        check(&["app@example.com"], "app@example.com.evil.example", false);
        check(&["app@example.com"], "", false);
        check(&["example.com"], "any@EXAMPLE.com", true);
        check(&["example.com"], "any@sub.example.com", false);
        check(&["*.example.com"], "any@sub.example.com", true);
        check(&["*.example.com"], "any@example.com", false);
        check(&["example.com"], "\"x@example.com\"@evil.example", false);
        check(&["<>"], "", true);
        check(&["<>"], "a@example.com", false);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        assert!(Senders::parse(&["exa mple".to_owned()]).is_err());
    }
}
