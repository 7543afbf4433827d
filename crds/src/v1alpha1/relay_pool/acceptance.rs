//! When a message is accepted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a client is told that its message is accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Acceptance {
    /// When it is on stable storage; the relay delivers it, and tells the sender of a failure by a notification.
    #[default]
    Queued,
    /// When an Upstream has accepted it, with the Upstream's own reply.
    PassThrough,
}
