//! How the relays of a pool pass mail on to each other, and which of them are leaving for good.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::listener::Certificate;
use super::standing::UpstreamStanding;

/// The name in the certificate of every relay: what is certified is that it belongs to the pool, not where it runs.
pub const HAND_OVER_NAME: &str = "relay.postroad.internal";

/// The protocol (ALPN, RFC 7301) in which a relay takes mail from another. A later version has another name.
pub const HAND_OVER_PROTOCOL: &[u8] = b"postroad-hand-over/1";

/// The protocol (ALPN) in which a relay says what it still holds: after the handshake it sends a [`Remaining`] as JSON and closes.
pub const REMAINING_PROTOCOL: &[u8] = b"postroad-remaining/1";

/// The internal channel between the relays of a pool. Both ends show the pool's certificate and demand it of the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HandOver {
    /// The address and port to bind, the same on every relay unless a relay has its own host.
    pub address: String,
    /// `HOST:PORT` of every relay that there is, by ordinal.
    pub peers: Vec<String>,
    /// PEM of the authority that has signed the pool's certificate and nothing else.
    pub authority_pem: String,
    /// What every relay of the pool shows; it bears [`HAND_OVER_NAME`].
    pub certificate: Certificate,
    /// The ordinals that are to leave for good: they accept nothing more and pass on what they hold, or finish it when nobody
    /// stays.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub leaving: BTreeSet<u32>,
    /// Whether a relay's storage goes with its pod, so that what is left when it stops has to be passed on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ephemeral: bool,
}

/// What a relay still holds, as it answers to the pool's own certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remaining {
    /// Its ordinal.
    pub ordinal: u32,
    /// Whether it knows that it is to leave and accepts nothing any more. Only then can `messages` not grow.
    pub closed: bool,
    /// Messages it is responsible for.
    pub messages: u64,
    /// Messages in quarantine: nobody's to deliver, and lost with the volume.
    pub quarantined: u64,
    /// By upstream, the number of the newest [`Division`](super::Division) when it keeps to that: its sessions and what it has sent
    /// within every span fit into its share. 0 for an upstream where that is not so yet. Empty as long as it delivers nothing.
    #[serde(default)]
    pub divisions: BTreeMap<String, u64>,
    /// How the upstreams stand, in so much room as a relay gives them: those that fail, are drained or are reached on another port
    /// than the preferred one come first. Empty as long as it delivers nothing, and from a relay of an earlier release.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<UpstreamStanding>,
}
