//! What becomes of queued mail when a pool is deleted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What becomes of queued mail when a pool is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// The pool waits until its relays have finished it.
    #[default]
    Drain,
    /// It goes with the pool.
    Discard,
}
