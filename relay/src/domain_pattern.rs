//! Domains as routes name them: exactly, or everything below one.

use std::str::FromStr;

/// A domain to match: itself, or with a leading `*.` everything below it (not itself).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainPattern {
    /// Equal, ignoring case.
    Exact(String),
    /// Any name that ends in this, dot included.
    Below(String),
}

/// A text that is no domain pattern.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a domain such as example.com or *.example.com")]
pub struct InvalidPattern(String);

impl FromStr for DomainPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let lower = text.to_ascii_lowercase();
        let name = lower.strip_prefix("*.").unwrap_or(&lower);
        let label = |label: &str| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if !name.split('.').all(label) {
            return Err(InvalidPattern(text.to_owned()));
        }
        Ok(if lower.starts_with("*.") { Self::Below(format!(".{name}")) } else { Self::Exact(lower) })
    }
}

impl DomainPattern {
    /// Whether `domain` matches, ignoring case.
    #[must_use]
    pub fn matches(&self, domain: &str) -> bool {
        match self {
            Self::Exact(name) => name.eq_ignore_ascii_case(domain),
            Self::Below(suffix) => {
                let tail = domain.len().checked_sub(suffix.len()).filter(|&at| at > 0);
                tail.and_then(|at| domain.get(at..)).is_some_and(|tail| tail.eq_ignore_ascii_case(suffix))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, domain: &str, expected: bool) {
        assert_eq!(pattern.parse::<DomainPattern>().unwrap().matches(domain), expected, "{pattern} {domain}");
    }

    #[test]
    fn a_pattern_matches_itself_or_what_is_below_it() {
        check("example.com", "EXAMPLE.com", true);
        check("example.com", "a.example.com", false);
        check("*.example.com", "a.b.example.com", true);
        check("*.example.com", "example.com", false);
        check("*.example.com", "badexample.com", false);
        check("*.example.com", ".example.com", false);
    }

    #[test]
    fn what_is_no_domain_is_refused() {
        for text in ["", "*", "*.", "a..b", "exa mple.com", "user@example.com", "*.*.com"] {
            assert!(text.parse::<DomainPattern>().is_err(), "{text}");
        }
    }
}
