//! Which messages go to which upstreams.

use serde::{Deserialize, Serialize};

/// Which messages go to which upstreams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// The route's name in the RelayPool.
    pub name: String,
    /// Domains of the reverse-path: `example.com`, or `*.example.com` for everything below it. Empty matches all,
    /// the null reverse-path included.
    #[serde(default)]
    pub sender_domains: Vec<String>,
    /// Domains of the forward-path, written the same way. Empty matches all.
    #[serde(default)]
    pub recipient_domains: Vec<String>,
    /// The name of an entry of [`RelayConfig::upstreams`].
    pub upstream: String,
}
