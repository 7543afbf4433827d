//! Bounds on what clients may ask for.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bounds on what clients may ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// The largest message accepted, announced by SIZE.
    #[serde(default = "default_message_size")]
    pub message_size: Quantity,
    /// Recipients accepted per message; RFC 5321 asks for at least 100.
    #[serde(default = "default_recipients_per_message")]
    #[schemars(range(min = 1, max = 10_000))]
    pub recipients_per_message: i32,
    /// Connections open at once on one relay. Further ones are answered 421.
    #[serde(default = "default_connections")]
    #[schemars(range(min = 1, max = 100_000))]
    pub connections: i32,
    /// Connections open at once from one address on one relay. Further ones are answered 421.
    #[serde(default = "default_connections_per_client")]
    #[schemars(range(min = 1, max = 100_000))]
    pub connections_per_client: i32,
    /// `Received` fields that a message may come with. One with more is taken to go in circles and refused with 554 5.4.6.
    /// RFC 5321 §6.3 asks for at least 100 unless the site is known to be smaller.
    #[serde(default = "default_hops")]
    #[schemars(range(min = 1, max = 1000))]
    pub hops: i32,
    /// Messages accepted on one connection. Further ones are answered 421; the client opens another.
    #[serde(default = "default_messages_per_connection")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub messages_per_connection: i32,
    /// The largest header section of a message. A larger one is refused with 552 5.3.4.
    #[serde(default = "default_header_size")]
    pub header_size: Quantity,
    /// Header fields of a message. More are refused with 554 5.6.0.
    #[serde(default = "default_header_fields")]
    #[schemars(range(min = 1, max = 100_000))]
    pub header_fields: i32,
    /// Seconds a client may take for a whole command; RFC 5321 §4.5.3.2.7 asks for 300.
    #[serde(default = "default_timeout_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub command_timeout_seconds: i32,
    /// Seconds a client may be silent within a message.
    #[serde(default = "default_timeout_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub content_timeout_seconds: i32,
    /// Seconds a client may take for a whole message, however steadily it sends.
    #[serde(default = "default_content_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub content_seconds: i32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_size: default_message_size(),
            recipients_per_message: default_recipients_per_message(),
            connections: default_connections(),
            connections_per_client: default_connections_per_client(),
            hops: default_hops(),
            messages_per_connection: default_messages_per_connection(),
            header_size: default_header_size(),
            header_fields: default_header_fields(),
            command_timeout_seconds: default_timeout_seconds(),
            content_timeout_seconds: default_timeout_seconds(),
            content_seconds: default_content_seconds(),
        }
    }
}

fn default_message_size() -> Quantity {
    Quantity("25Mi".into())
}
fn default_recipients_per_message() -> i32 {
    100
}
fn default_connections() -> i32 {
    1000
}
fn default_connections_per_client() -> i32 {
    100
}
fn default_hops() -> i32 {
    100
}
fn default_messages_per_connection() -> i32 {
    1000
}
fn default_header_size() -> Quantity {
    Quantity("256Ki".into())
}
fn default_header_fields() -> i32 {
    1000
}
fn default_timeout_seconds() -> i32 {
    300
}
fn default_content_seconds() -> i32 {
    1800
}
