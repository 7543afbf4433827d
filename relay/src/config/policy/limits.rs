//! Bounds on clients, and what is changed in what they send.

use std::sync::Arc;
use std::time::Duration;

use postroad_crds::relay_config as rendered;

/// Bounds on what clients may ask for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Octets of one message's content.
    pub message_bytes: u64,
    /// Recipients of one message.
    pub recipients: usize,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address.
    pub connections_per_client: usize,
    /// Received fields a message may come with.
    pub hops: usize,
    /// Time for a whole message's content.
    pub content: Duration,
}

/// A Return-Path is the last server's to write (RFC 5321 §4.4), so one from a client always goes.
pub(super) fn removed_fields(headers: &rendered::Headers) -> Arc<[String]> {
    headers.remove.iter().map(|name| name.to_ascii_lowercase()).chain(["return-path".to_owned()]).collect()
}

pub(super) fn seconds(count: u32) -> Duration {
    Duration::from_secs(u64::from(count))
}
