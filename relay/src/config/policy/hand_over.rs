//! The channel between the relays of the pool, ready for handshakes, and who is leaving.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use postroad_crds::relay_config::{self as rendered, HAND_OVER_PROTOCOL, REMAINING_PROTOCOL};
use rustls::{ClientConfig, ServerConfig};

use super::fault::{PolicyError, invalid};
use super::tls::{mutual_client_tls, mutual_server_tls};

/// What a relay is to do with mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Accept and deliver.
    Serving,
    /// Leave, when nobody stays: accept nothing more and deliver what there is.
    Finishing,
    /// Leave, when others stay: accept nothing more and give them what there is.
    PassingOn,
}

/// How this relay takes mail from others of its pool and passes on its own.
pub struct HandOverPolicy {
    /// Where it listens.
    pub address: SocketAddr,
    /// `HOST:PORT` of every relay, by ordinal.
    pub peers: Vec<String>,
    /// The ordinals that leave for good.
    pub leaving: BTreeSet<u32>,
    /// Whether the storage goes with the pod.
    pub ephemeral: bool,
    /// For handshakes with those that connect.
    pub server: Arc<ServerConfig>,
    /// For handshakes with peers.
    pub client: Arc<ClientConfig>,
}

impl HandOverPolicy {
    /// The relays that mail of this one can go to: all others that stay.
    #[must_use]
    pub fn staying(&self, ordinal: u32) -> Vec<u32> {
        let ordinals = 0..u32::try_from(self.peers.len()).unwrap_or(u32::MAX);
        ordinals.filter(|peer| *peer != ordinal && !self.leaving.contains(peer)).collect()
    }

    /// Whether this ordinal is not a relay of the pool any more, and never comes back with what it had.
    #[must_use]
    pub fn is_gone(&self, ordinal: u32) -> bool {
        ordinal as usize >= self.peers.len()
    }

    /// Whether the relay of this ordinal is to leave. One that is not of the pool any more is, until its pod is gone.
    #[must_use]
    pub fn leaves(&self, ordinal: u32) -> bool {
        self.leaving.contains(&ordinal) || self.is_gone(ordinal)
    }

    /// What the relay of this ordinal is to do.
    #[must_use]
    pub fn role(&self, ordinal: u32) -> Role {
        match (self.leaves(ordinal), self.staying(ordinal).is_empty()) {
            (false, _) => Role::Serving,
            (true, true) => Role::Finishing,
            (true, false) => Role::PassingOn,
        }
    }
}

impl std::fmt::Debug for HandOverPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HandOverPolicy")
            .field("address", &self.address)
            .field("peers", &self.peers)
            .field("leaving", &self.leaving)
            .finish_non_exhaustive()
    }
}

pub(super) fn hand_over(rendered: &rendered::HandOver) -> Result<HandOverPolicy, PolicyError> {
    let place = "handOver";
    let (authority, certificate) = (rendered.authority_pem.as_str(), &rendered.certificate);
    let mut server = mutual_server_tls(place, authority, certificate)?;
    server.alpn_protocols = vec![HAND_OVER_PROTOCOL.to_vec(), REMAINING_PROTOCOL.to_vec()];
    let mut client = mutual_client_tls(place, authority, certificate)?;
    client.alpn_protocols = vec![HAND_OVER_PROTOCOL.to_vec()];
    Ok(HandOverPolicy {
        address: rendered.address.parse().map_err(|_| invalid(place, "address is not IP:PORT"))?,
        peers: rendered.peers.clone(),
        leaving: rendered.leaving.clone(),
        ephemeral: rendered.ephemeral,
        server: Arc::new(server),
        client: Arc::new(client),
    })
}
