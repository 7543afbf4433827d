//! What the relays of a pool know each other by: a certificate of an authority that exists for this pool alone. The authority's key
//! is thrown away once it has signed, so that nothing else can ever be of the pool.
//!
//! They live in the rendered configuration, which is read back from its Secret: deleting that Secret makes new ones. Relays that
//! have not read them yet hand over a moment later.

use k8s_openapi::api::core::v1::Secret;
use postroad_crds::relay_config::{Certificate, FILE_NAME, HAND_OVER_NAME, HandOver, RelayConfig, Sensitive};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::reason::{Problem, Reason};

/// The certificate of a pool and who has signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// PEM of the authority.
    pub authority_pem: String,
    /// What every relay shows.
    pub certificate: Certificate,
}

impl Credentials {
    /// Those in a rendered configuration.
    #[must_use]
    pub fn of(rendered: &RelayConfig) -> Option<Self> {
        let HandOver { authority_pem, certificate, .. } = rendered.hand_over.as_ref()?;
        Some(Self { authority_pem: authority_pem.clone(), certificate: certificate.clone() })
    }
}

/// The configuration in the Secret of a pool, if it is one of this release.
#[must_use]
pub fn rendered(secret: Option<&Secret>) -> Option<RelayConfig> {
    let text = secret?.data.as_ref()?.get(FILE_NAME)?;
    RelayConfig::from_yaml(std::str::from_utf8(&text.0).ok()?).ok()
}

/// Those that the pool has, or new ones.
///
/// # Errors
/// When none can be made, which takes a broken random number generator.
pub fn of_pool(pool: &str, rendered: Option<&RelayConfig>) -> Result<Credentials, Problem> {
    let issued = rendered.and_then(Credentials::of).map_or_else(|| issue(pool), Ok);
    issued.map_err(|error| {
        let message = format!("RelayPool {pool}: no certificate can be made for its relays: {error}");
        Problem::new(Reason::ObjectRefused, message)
    })
}

fn issue(pool: &str) -> Result<Credentials, rcgen::Error> {
    let authority_key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, format!("relays of {pool}"));
    let authority = params.self_signed(&authority_key)?;
    let issuer = Issuer::new(params, authority_key);

    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![HAND_OVER_NAME.to_owned()])?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Credentials {
        authority_pem: authority.pem(),
        certificate: Certificate {
            certificate_chain_pem: certificate.pem(),
            private_key_pem: Sensitive(key.serialize_pem()),
        },
    })
}
