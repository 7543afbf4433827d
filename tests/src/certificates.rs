//! A test certificate authority: certificates for the fake upstream, the relay's listeners and the API server.
//!
//! Not for production: keys live in memory, certificates hardly expire. Names follow RFC 6125 (subject alternative
//! names only). Called by `smtp_server` and the suites.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Why a certificate or a TLS configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The certificate could not be generated or signed, for instance because a name is not a DNS name or an IP address.
    #[error("a test certificate could not be made: {0}")]
    Generation(#[from] rcgen::Error),
    /// Text that should hold certificates or a key in PEM form does not.
    #[error("not a PEM certificate or key: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// rustls refused the certificate, the key or the trust anchor.
    #[error("rustls refused the certificate or key: {0}")]
    Tls(#[from] rustls::Error),
}

/// A certificate authority that exists for one test.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

impl CertificateAuthority {
    /// Makes a new authority under `common_name`, with its own key.
    ///
    /// # Errors
    /// [`CertificateError::Generation`] when the key or the certificate cannot be made.
    pub fn new(common_name: &str) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, common_name);
        let certificate = params.self_signed(&key)?;
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// The authority's certificate, the trust anchor to hand to a client, in PEM form.
    #[must_use]
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Issues a certificate for `names`: DNS names or IP addresses, usable by a server and by a client.
    ///
    /// # Errors
    /// [`CertificateError::Generation`] when a name is neither, or signing fails.
    pub fn issue(&self, names: &[&str]) -> Result<IssuedCertificate, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("nameless"));
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(IssuedCertificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Issues a certificate for a client that `holder` describes.
    ///
    /// # Errors
    /// [`CertificateError::Generation`] when a name is not of its kind, or signing fails.
    pub fn issue_client(&self, holder: &Holder<'_>) -> Result<IssuedCertificate, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        for name in holder.dns_names {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into()?));
        }
        for uri in holder.uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into()?));
        }
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = holder.common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match holder.usage {
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        if holder.expired {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        }
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(IssuedCertificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

/// What a client's certificate says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Holder<'a> {
    /// DNS names among the subject alternative names.
    pub dns_names: &'a [&'a str],
    /// URIs among them.
    pub uris: &'a [&'a str],
    /// The subject's common name.
    pub common_name: Option<&'a str>,
    /// Whether its time is over.
    pub expired: bool,
    /// What it may be used for.
    pub usage: Usage,
}

/// The extended key usage of a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Usage {
    /// Client authentication.
    #[default]
    Client,
    /// Server authentication, and nothing else.
    Server,
}

/// A certificate and its key, as a `kubernetes.io/tls` Secret would hold them.
#[derive(Clone)]
pub struct IssuedCertificate {
    /// The certificate in PEM form (`tls.crt`).
    pub certificate_pem: String,
    /// The private key in PKCS #8 PEM form (`tls.key`).
    pub key_pem: String,
}

impl IssuedCertificate {
    /// A rustls server configuration that presents this certificate and asks for none.
    ///
    /// # Errors
    /// [`CertificateError::Pem`] or [`CertificateError::Tls`] when the material is not usable.
    pub fn server_config(&self) -> Result<Arc<rustls::ServerConfig>, CertificateError> {
        let chain =
            CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes()).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())?;
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Arc::new(config))
    }
}

/// A rustls client configuration that trusts `ca_pem` and nothing else, and shows `shown` to a server that asks.
///
/// # Errors
/// [`CertificateError::Pem`] or [`CertificateError::Tls`] when `ca_pem` holds no usable certificate, or `shown` is none.
pub fn client_config(
    ca_pem: &str,
    shown: Option<&IssuedCertificate>,
) -> Result<Arc<rustls::ClientConfig>, CertificateError> {
    let mut roots = rustls::RootCertStore::empty();
    for anchor in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(anchor?)?;
    }
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match shown {
        None => config.with_no_client_auth(),
        Some(shown) => {
            let chain =
                CertificateDer::pem_slice_iter(shown.certificate_pem.as_bytes()).collect::<Result<_, _>>()?;
            let key = PrivateKeyDer::from_pem_slice(shown.key_pem.as_bytes())?;
            config.with_client_auth_cert(chain, key)?
        }
    };
    Ok(Arc::new(config))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issued_certificate_serves_and_its_authority_is_trusted() {
        let authority = CertificateAuthority::new("test").unwrap();
        let issued = authority.issue(&["localhost", "127.0.0.1"]).unwrap();
        issued.server_config().unwrap();
        client_config(&authority.pem(), None).unwrap();
    }

    #[test]
    fn a_name_outside_ascii_is_refused() {
        let authority = CertificateAuthority::new("test").unwrap();
        assert!(matches!(authority.issue(&["bücher.example"]), Err(CertificateError::Generation(_))));
    }
}
