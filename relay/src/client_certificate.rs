//! Client certificates as identities: the names one carries, and the names that a rule admits.
//!
//! Pure. Whether a certificate is to be believed is decided before, in the TLS handshake, against the listener's authorities;
//! here only its names count. Subject alternative names are read as RFC 5280 §4.2.1.6 says, the common name of the subject as
//! §4.1.2.6.

use std::fmt;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::domain_pattern::{DomainPattern, InvalidPattern};

/// The names in a certificate that identify its holder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    dns_names: Vec<String>,
    uris: Vec<String>,
    common_name: Option<String>,
}

/// A certificate whose names cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client certificate's names cannot be read")]
pub struct UnreadableCertificate;

impl ClientCertificate {
    /// The names of a certificate whose signature and validity have been verified.
    ///
    /// A DNS name with a wildcard names many hosts and thus no client: it is left out. So is the common name where the subject
    /// has several.
    ///
    /// # Errors
    /// When it is not DER of X.509, or has a second list of alternative names.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, UnreadableCertificate> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| UnreadableCertificate)?;
        let mut names = Self::default();
        let alternative = parsed.subject_alternative_name().map_err(|_| UnreadableCertificate)?;
        for name in alternative.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(name) if !name.contains('*') => names.dns_names.push((*name).to_owned()),
                GeneralName::URI(uri) => names.uris.push((*uri).to_owned()),
                _ => {}
            }
        }
        let mut common_names = parsed.subject().iter_common_name();
        if let (Some(name), None) = (common_names.next(), common_names.next()) {
            names.common_name = name.as_str().ok().map(str::to_owned);
        }
        Ok(names)
    }
}

/// The name that says most about the holder: a URI, else a DNS name, else the common name; of printable US-ASCII, at most 128
/// octets, so that it can stand in a reply, a log line and a comment of a header field.
impl fmt::Display for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.uris.first().or(self.dns_names.first()).or(self.common_name.as_ref());
        let Some(name) = name else { return f.write_str("nobody") };
        let safe = |c: char| c.is_ascii_graphic() && !matches!(c, '(' | ')' | '\\' | ';' | '"');
        let shown: String = name.chars().take(128).map(|c| if safe(c) { c } else { '?' }).collect();
        f.write_str(&shown)
    }
}

/// The certificates that an identity admits: those with at least one of these names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateRule {
    dns_names: Vec<DomainPattern>,
    uris: Vec<UriPattern>,
    common_names: Vec<String>,
}

/// A URI to match.
#[derive(Clone, Debug, PartialEq, Eq)]
enum UriPattern {
    /// Octet by octet.
    Exact(String),
    /// Every URI that begins with this, its last `/` included, and goes on.
    Below(String),
}

impl CertificateRule {
    /// Reads the rule. `dns_names` are compared without regard to case, and `*.example.com` is everything below
    /// `example.com`. `uris` are compared octet by octet, and one that ends in `/*` is everything below it. `common_names`
    /// are compared octet by octet.
    ///
    /// # Errors
    /// When a DNS name is no domain.
    pub fn parse(
        dns_names: &[String],
        uris: &[String],
        common_names: &[String],
    ) -> Result<Self, InvalidPattern> {
        let uri = |text: &String| match text.strip_suffix('*') {
            Some(below) if below.ends_with('/') => UriPattern::Below(below.to_owned()),
            _ => UriPattern::Exact(text.clone()),
        };
        Ok(Self {
            dns_names: dns_names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?,
            uris: uris.iter().map(uri).collect(),
            common_names: common_names.to_vec(),
        })
    }

    /// Whether one of the certificate's names is one of the rule's.
    #[must_use]
    pub fn admits(&self, certificate: &ClientCertificate) -> bool {
        let dns = |name: &String| self.dns_names.iter().any(|pattern| pattern.matches(name));
        let uri = |uri: &String| self.uris.iter().any(|pattern| pattern.matches(uri));
        certificate.dns_names.iter().any(dns)
            || certificate.uris.iter().any(uri)
            || certificate.common_name.as_ref().is_some_and(|name| self.common_names.contains(name))
    }
}

impl UriPattern {
    fn matches(&self, uri: &str) -> bool {
        match self {
            Self::Exact(whole) => whole == uri,
            Self::Below(start) => uri.len() > start.len() && uri.starts_with(start.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn certificate(dns_names: &[&str], uris: &[&str], common_names: &[&str]) -> ClientCertificate {
        let mut params = CertificateParams::default();
        let ia5 = |text: &str| text.try_into().unwrap();
        params.subject_alt_names = dns_names
            .iter()
            .map(|name| SanType::DnsName(ia5(name)))
            .chain(uris.iter().map(|uri| SanType::URI(ia5(uri))))
            .collect();
        params.distinguished_name = rcgen::DistinguishedName::new();
        // rcgen keeps one value a type, so a second common name is written by its number.
        for (name, kind) in
            common_names.iter().zip([DnType::CommonName, DnType::CustomDnType(vec![2, 5, 4, 3])])
        {
            params.distinguished_name.push(kind, *name);
        }
        let signed = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        ClientCertificate::read(signed.der()).unwrap()
    }

    fn rule(dns_names: &[&str], uris: &[&str], common_names: &[&str]) -> CertificateRule {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        CertificateRule::parse(&owned(dns_names), &owned(uris), &owned(common_names)).unwrap()
    }

    #[test]
    fn dns_names_match_without_regard_to_case_and_below_a_wildcard_of_the_rule() {
        let check = |pattern: &str, name: &str, expected| {
            let found = rule(&[pattern], &[], &[]).admits(&certificate(&[name], &[], &[]));
            assert_eq!(found, expected, "{pattern} {name}");
        };
        check("billing.example.com", "Billing.Example.com", true);
        check("billing.example.com", "x.billing.example.com", false);
        check("*.example.com", "billing.example.com", true);
        check("*.example.com", "a.billing.example.com", true);
        check("*.example.com", "example.com", false);
        check("*.example.com", "notexample.com", false);
    }

    #[test]
    fn a_wildcard_in_the_certificate_names_nobody() {
        let held = certificate(&["*.example.com"], &[], &[]);
        assert!(!rule(&["*.example.com", "billing.example.com"], &[], &[]).admits(&held));
    }

    #[test]
    fn uris_match_octet_by_octet_or_below_a_path() {
        let check = |pattern: &str, uri: &str, expected| {
            let found = rule(&[], &[pattern], &[]).admits(&certificate(&[], &[uri], &[]));
            assert_eq!(found, expected, "{pattern} {uri}");
        };
        check("spiffe://cluster.local/ns/billing/sa/app", "spiffe://cluster.local/ns/billing/sa/app", true);
        check("spiffe://cluster.local/ns/billing/sa/app", "spiffe://cluster.local/ns/billing/sa/App", false);
        check("spiffe://cluster.local/ns/billing/*", "spiffe://cluster.local/ns/billing/sa/app", true);
        check("spiffe://cluster.local/ns/billing/*", "spiffe://cluster.local/ns/billing/", false);
        check("spiffe://cluster.local/ns/billing/*", "spiffe://cluster.local/ns/billing-test/sa/app", false);
        check("spiffe://cluster.local/ns/bill*", "spiffe://cluster.local/ns/billing/sa/app", false);
    }

    #[test]
    fn a_common_name_matches_only_common_names_and_only_alone() {
        let named = rule(&["billing.example.com"], &[], &["billing"]);
        assert!(named.admits(&certificate(&[], &[], &["billing"])));
        assert!(!named.admits(&certificate(&[], &[], &["Billing"])));
        assert!(!named.admits(&certificate(&[], &[], &["billing.example.com"])));
        assert!(!named.admits(&certificate(&["billing"], &[], &[])));
        assert!(!named.admits(&certificate(&[], &[], &["billing", "other"])));
        assert!(!named.admits(&certificate(&[], &[], &["other", "billing"])));
    }

    #[test]
    fn an_empty_rule_admits_nobody() {
        assert!(!CertificateRule::default().admits(&certificate(&["a.example"], &["u:a"], &["a"])));
        assert!(!rule(&["a.example"], &["u:a"], &["a"]).admits(&ClientCertificate::default()));
    }

    #[test]
    fn the_name_shown_is_the_strongest_and_harmless() {
        assert_eq!(certificate(&["a.example"], &["spiffe://a/b"], &["c"]).to_string(), "spiffe://a/b");
        assert_eq!(certificate(&["a.example"], &[], &["c"]).to_string(), "a.example");
        assert_eq!(certificate(&[], &[], &["a) b\r\nX: (\u{e9}"]).to_string(), "a??b??X:???");
        assert_eq!(certificate(&[], &[], &[&"a".repeat(300)]).to_string().len(), 128);
        assert_eq!(ClientCertificate::default().to_string(), "nobody");
    }

    #[test]
    fn what_is_no_certificate_is_an_error() {
        assert_eq!(ClientCertificate::read(&CertificateDer::from(vec![0x30, 0])), Err(UnreadableCertificate));
    }
}
