//! Which messages go to which upstreams.

use serde::{Deserialize, Serialize};

use super::budget::Rate;

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
    /// Names of [`Identity`](super::Identity) entries. Empty matches all, also what no client has sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<String>,
    /// Where it goes. Never empty.
    pub upstreams: Vec<RouteUpstream>,
    /// Bounds on what takes it over the whole pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rates: Vec<Rate>,
}

/// One of a route's upstreams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteUpstream {
    /// The name of an entry of [`RelayConfig::upstreams`](super::RelayConfig::upstreams).
    pub name: String,
    /// Its part of the messages among those of the same priority.
    #[serde(default = "one")]
    pub weight: u32,
    /// The lowest that works takes the message.
    #[serde(default = "one")]
    pub priority: u32,
}

fn one() -> u32 {
    1
}
