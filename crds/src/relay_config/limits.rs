//! Bounds on what clients may ask for, and what is changed in what they send.

use serde::{Deserialize, Serialize};

/// Bounds on what clients may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Octets of one message's content.
    pub message_bytes: u64,
    /// RCPT commands accepted per message.
    pub recipients_per_message: u32,
    /// Connections open at once on all listeners of one relay.
    pub connections: u32,
    /// Connections open at once from one address.
    pub connections_per_client: u32,
    /// Received fields a message may come with.
    #[serde(default = "default_hops")]
    pub hops: u32,
    /// Messages accepted on one connection.
    #[serde(default = "default_messages_per_connection")]
    pub messages_per_connection: u32,
    /// Octets of one message's header section.
    #[serde(default = "default_header_bytes")]
    pub header_bytes: u64,
    /// Fields of one message's header section.
    #[serde(default = "default_header_fields")]
    pub header_fields: u32,
    /// Seconds for a whole command.
    #[serde(default = "default_timeout_seconds")]
    pub command_timeout_seconds: u32,
    /// Seconds of silence within a message.
    #[serde(default = "default_timeout_seconds")]
    pub content_timeout_seconds: u32,
    /// Seconds for a whole message.
    #[serde(default = "default_content_seconds")]
    pub content_seconds: u32,
}

fn default_hops() -> u32 {
    100
}
fn default_messages_per_connection() -> u32 {
    1000
}
fn default_header_bytes() -> u64 {
    256 * 1024
}
fn default_header_fields() -> u32 {
    1000
}
fn default_timeout_seconds() -> u32 {
    300
}
fn default_content_seconds() -> u32 {
    1800
}

/// What is changed in header sections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Headers {
    /// Names of fields to remove, in lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}
