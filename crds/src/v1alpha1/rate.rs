//! Rates: how much may go in a span of time. Upstreams, routes and identities have them.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// A bound on how much mail goes.
#[derive(KubeSchema, Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("has(self.messages) != has(self.recipients)")
        .message("a rate counts messages or recipients: set exactly one of them")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rate {
    /// At most so many messages. Exactly one of `messages` and `recipients` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub messages: Option<i32>,
    /// At most so many recipients, as most daily quotas count. A message with more than a relay's share of them travels in
    /// several transactions. Exactly one of `messages` and `recipients` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub recipients: Option<i32>,
    /// In every span of so many seconds: 1, 60, 3600 or 86400, say.
    #[schemars(range(min = 1, max = 86_400))]
    pub per_seconds: i32,
}
