//! Texts that match something: networks, domains, sender addresses.

use ipnet::IpNet;

use super::place::At;
use crate::reason::Problem;

pub(super) fn cidrs(at: &At<'_>, field: &str, texts: &[String]) -> Result<Vec<IpNet>, Problem> {
    let network = |text: &String| {
        text.parse().map_err(|_| at.invalid(field, format!("{text:?} is not a network such as 10.0.0.0/8")))
    };
    texts.iter().map(network).collect()
}

/// Domains compare without regard to case (RFC 5321 §2.3.5), so they are rendered in lower case.
pub(super) fn domains(at: &At<'_>, field: &str, texts: &[String]) -> Result<Vec<String>, Problem> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
    };
    let domain = |text: &String| {
        let below = text.strip_prefix("*.").unwrap_or(text);
        if below.len() <= 253 && below.split('.').all(label) {
            return Ok(text.to_lowercase());
        }
        Err(at.invalid(field, format!("{text:?} is neither a domain such as example.com nor *.example.com")))
    };
    texts.iter().map(domain).collect()
}

/// Sender patterns: `<>`, mailboxes, and domains as in routes. Compared without regard to case, so rendered in lower case.
pub(super) fn senders(at: &At<'_>, field: &str, texts: &[String]) -> Result<Vec<String>, Problem> {
    let pattern = |text: &String| {
        if text == "<>" {
            return Ok(text.clone());
        }
        let Some((local_part, domain)) = text.rsplit_once('@') else {
            return Ok(domains(at, field, std::slice::from_ref(text))?.remove(0));
        };
        if local_part.is_empty()
            || domain.starts_with('*')
            || domains(at, field, &[domain.to_owned()]).is_err()
        {
            let what = format!("{text:?} is none of app@example.com, example.com, *.example.com and <>");
            return Err(at.invalid(field, what));
        }
        Ok(text.to_lowercase())
    };
    texts.iter().map(pattern).collect()
}
