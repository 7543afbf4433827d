//! When a message is accepted, how long and how often delivery is tried, and how a relay stops.

use serde::{Deserialize, Serialize};

/// When a client is told that its message is accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Acceptance {
    /// When it is on stable storage; delivery is tried until it expires.
    #[default]
    Queued,
    /// When an upstream has accepted it, with the upstream's own reply; nothing is stored.
    PassThrough,
}

impl Acceptance {
    /// Whether it is the default.
    #[must_use]
    pub fn is_queued(&self) -> bool {
        *self == Self::Queued
    }
}

/// How long and how often delivery is tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Queue {
    /// Seconds after acceptance at which a message is returned to its sender.
    pub expire_after_seconds: u32,
    /// Seconds to the second attempt; each further wait is twice as long.
    pub minimum_backoff_seconds: u32,
    /// The longest wait between two attempts, in seconds.
    pub maximum_backoff_seconds: u32,
    /// Octets of disk the spool may use; above it new mail is answered 452.
    pub maximum_bytes: u64,
    /// What becomes of recipients that may have their message already.
    #[serde(default)]
    pub ambiguous_delivery: AmbiguousDelivery,
}

/// What becomes of recipients that may have their message already: all of it was sent, and the reply is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AmbiguousDelivery {
    /// It is sent again.
    #[default]
    Resend,
    /// It is held until a person decides.
    Hold,
}

/// How a relay stops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Shutdown {
    /// Seconds after SIGTERM in which new connections and transactions are still accepted, because endpoints lag.
    pub accept_seconds: u32,
    /// Seconds after SIGTERM at which the process ends whatever still runs.
    pub grace_period_seconds: u32,
}
