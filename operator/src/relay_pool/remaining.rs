//! Asks relays what they still hold, over the pool's own channel: the answer may lead to the removal of a volume, so it has to
//! come from the relay. IO, and no decision.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use postroad_crds::relay_config::{HAND_OVER_NAME, REMAINING_PROTOCOL, Remaining};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::relay_pool::credentials::Credentials;
use crate::relay_pool::ports::HAND_OVER_PORT;

/// How long a relay may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than any answer has: the divisions of the 1024 Upstreams that a pool can name, with the longest names, and how they stand.
const ANSWER_OCTETS: u64 = 512 << 10;

/// Asks with these credentials.
#[derive(Clone)]
pub struct Inquiry(TlsConnector);

impl Inquiry {
    /// Asks the relays of the pool that has these credentials.
    ///
    /// # Errors
    /// When they are not a certificate and its key.
    pub fn new(credentials: &Credentials) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(credentials.authority_pem.as_bytes()) {
            roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
        let certificate = &credentials.certificate;
        let chain = CertificateDer::pem_slice_iter(certificate.certificate_chain_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(io::Error::other)?;
        // The PEM parser's error may quote the key.
        let key = PrivateKeyDer::from_pem_slice(certificate.private_key_pem.0.as_bytes())
            .map_err(|_| io::Error::other("the key of the pool's certificate is not PEM"))?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![REMAINING_PROTOCOL.to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// What the relay of this ordinal at this address holds.
    ///
    /// # Errors
    /// When it does not answer in time, is not of the pool, or has another ordinal.
    pub async fn ask(&self, ordinal: u32, address: IpAddr) -> io::Result<Remaining> {
        self.ask_at(ordinal, SocketAddr::new(address, HAND_OVER_PORT)).await
    }

    async fn ask_at(&self, ordinal: u32, address: SocketAddr) -> io::Result<Remaining> {
        let name = ServerName::try_from(HAND_OVER_NAME).map_err(io::Error::other)?;
        let answer = async {
            let mut stream = self.0.connect(name, TcpStream::connect(address).await?).await?;
            let mut answer = Vec::new();
            (&mut stream).take(ANSWER_OCTETS).read_to_end(&mut answer).await?;
            Ok::<_, io::Error>(answer)
        };
        let answer =
            timeout(PATIENCE, answer).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let remaining: Remaining = serde_json::from_slice(&answer).map_err(io::Error::other)?;
        if remaining.ordinal == ordinal {
            Ok(remaining)
        } else {
            Err(io::Error::other(format!("it is relay {}", remaining.ordinal)))
        }
    }
}
