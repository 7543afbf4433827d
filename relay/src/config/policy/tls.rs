//! TLS from PEM, for listeners, towards upstreams and between the relays of a pool.

use std::sync::Arc;

use postroad_crds::relay_config as rendered;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::fault::{PolicyError, invalid};
use super::listener::Certificate;

/// The one crypto provider of the whole tree, named where it is used instead of installed as a global.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(place: &str, certificate: &rendered::Certificate) -> Result<Identity, PolicyError> {
    let chain = CertificateDer::pem_slice_iter(certificate.certificate_chain_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| invalid(place, "the chain is not PEM"))?;
    // The PEM parser's error may quote what it read, which here is a private key.
    let key = PrivateKeyDer::from_pem_slice(certificate.private_key_pem.0.as_bytes())
        .map_err(|_| invalid(place, "the private key is not PEM"))?;
    Ok((chain, key))
}

/// What a listener does in handshakes.
///
/// Where it asks for client certificates no session is resumed: a resumed one would be taken for its first client's without
/// looking at the certificate again (RFC 8446 §2.2).
pub(super) fn server_tls(
    place: &str,
    certificate: &rendered::Certificate,
    request: Option<&rendered::ClientCertificateRequest>,
) -> Result<Certificate, PolicyError> {
    let (chain, key) = identity("certificate", certificate)?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid("certificate", error))?;
    let builder = match request {
        None => builder.with_no_client_auth(),
        Some(request) => builder.with_client_cert_verifier(client_verifier(
            place,
            &request.ca_bundle_pem,
            request.required,
        )?),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| invalid("certificate", error))?;
    if request.is_some() {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Certificate(Arc::new(config)))
}

fn client_verifier(
    place: &str,
    authority: &str,
    required: bool,
) -> Result<Arc<dyn ClientCertVerifier>, PolicyError> {
    let roots = Arc::new(roots(place, authority)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| invalid(place, format!("the CA bundle: {error}")))
}

/// A server that takes clients only with a certificate of `authority`.
pub(super) fn mutual_server_tls(
    place: &str,
    authority: &str,
    certificate: &rendered::Certificate,
) -> Result<ServerConfig, PolicyError> {
    let (chain, key) = identity(place, certificate)?;
    ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| invalid(place, error))?
        .with_client_cert_verifier(client_verifier(place, authority, true)?)
        .with_single_cert(chain, key)
        .map_err(|error| invalid(place, error))
}

/// A client that shows a certificate and believes only those of `authority`.
pub(super) fn mutual_client_tls(
    place: &str,
    authority: &str,
    certificate: &rendered::Certificate,
) -> Result<ClientConfig, PolicyError> {
    let (chain, key) = identity(place, certificate)?;
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| invalid(place, error))?
        .with_root_certificates(roots(place, authority)?)
        .with_client_auth_cert(chain, key)
        .map_err(|error| invalid(place, error))
}

pub(super) fn client_tls(place: &str, ca_bundle: Option<&str>) -> Result<Arc<ClientConfig>, PolicyError> {
    let roots = match ca_bundle {
        None => webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(),
        Some(bundle) => roots(place, bundle)?,
    };
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(place, error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn roots(place: &str, bundle: &str) -> Result<RootCertStore, PolicyError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        let certificate = certificate.map_err(|_| invalid(place, "the CA bundle is not PEM"))?;
        roots.add(certificate).map_err(|error| invalid(place, format!("the CA bundle: {error}")))?;
    }
    if roots.is_empty() {
        return Err(invalid(place, "the CA bundle holds no certificate"));
    }
    Ok(roots)
}
