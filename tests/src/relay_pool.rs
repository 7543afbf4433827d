//! The configurations of a pool of relays on one host, which can hand mail over to each other: what the operator renders, with a
//! port for each relay where pods have an address each.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use postroad_crds::relay_config::{Certificate, HAND_OVER_NAME, HandOver, RelayConfig, Sensitive};

use crate::certificates::{CertificateAuthority, CertificateError};
use crate::ports::free_port;

/// Why a pool cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// No free port.
    #[error("a port for a relay of the pool: {0}")]
    Port(#[from] io::Error),
    /// No certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// The ports and the certificate of a pool.
pub struct Pool {
    authority_pem: String,
    certificate: Certificate,
    smtp: Vec<u16>,
    hand_over: Vec<u16>,
    upstream: u16,
}

impl Pool {
    /// A pool of `relays` that send in the clear to port `upstream` of this host.
    ///
    /// # Errors
    /// [`PoolError`].
    pub fn new(relays: u32, upstream: u16) -> Result<Self, PoolError> {
        let authority = CertificateAuthority::new("Postroad test pool")?;
        let issued = authority.issue(&[HAND_OVER_NAME])?;
        let ports = || (0..relays).map(|_| free_port()).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            authority_pem: authority.pem(),
            certificate: Certificate {
                certificate_chain_pem: issued.certificate_pem,
                private_key_pem: Sensitive(issued.key_pem),
            },
            smtp: ports()?,
            hand_over: ports()?,
            upstream,
        })
    }

    /// Where the relay of this ordinal takes mail from clients.
    #[must_use]
    pub fn smtp(&self, ordinal: u32) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.smtp[ordinal as usize]))
    }

    /// Where it takes mail from relays.
    #[must_use]
    pub fn hand_over(&self, ordinal: u32) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.hand_over[ordinal as usize]))
    }

    /// The configuration of the relay of this ordinal while those `leaving` are to leave.
    ///
    /// # Panics
    /// When what is rendered here is not a configuration.
    #[must_use]
    pub fn config(&self, ordinal: u32, leaving: impl IntoIterator<Item = u32>) -> RelayConfig {
        let leaving: BTreeSet<u32> = leaving.into_iter().collect();
        let text = format!(
            "version: relay-config.postroad.dev/v1
pool: {{namespace: mail, name: main}}
replicas: {replicas}
hostname: relay.example
listeners: [{{name: smtp, address: '{smtp}', tls: None, authentication: None}}]
identities: [{{name: local, match: {{network: {{cidrs: [127.0.0.0/8]}}}}}}]
routes: [{{name: all, upstreams: [{{name: service}}]}}]
upstreams:
- name: service
  destination: {{smarthost: {{host: localhost, ports: [{{port: {upstream}, tls: None}}], tls: {{}}}}}}
  connections: {{maximum: 8, messagesPerConnection: 500, idleTimeoutSeconds: 30, maximumAgeSeconds: 900}}
queue: {{expireAfterSeconds: 7200, minimumBackoffSeconds: 1, maximumBackoffSeconds: 2, maximumBytes: 1000000000}}
limits: {{messageBytes: 10000000, recipientsPerMessage: 100, connections: 300, connectionsPerClient: 300}}
shutdown: {{acceptSeconds: 0, gracePeriodSeconds: 10}}
",
            replicas = self.smtp.len(),
            smtp = self.smtp(ordinal),
            upstream = self.upstream,
        );
        let mut config = RelayConfig::from_yaml(&text).expect("a configuration");
        config.hand_over = Some(HandOver {
            address: self.hand_over(ordinal).to_string(),
            peers: self.hand_over.iter().map(|port| format!("127.0.0.1:{port}")).collect(),
            authority_pem: self.authority_pem.clone(),
            certificate: self.certificate.clone(),
            leaving,
            ephemeral: false,
        });
        config
    }
}
