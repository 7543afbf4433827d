//! Which Upstreams take which message.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::v1alpha1::rate::Rate;

/// Which Upstreams take which message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// The route's name, as it appears in logs.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// What a message must match. Without it everything matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "match")]
    pub match_: Option<RouteMatch>,
    /// Where it goes: to the Upstreams of the lowest `priority` that work, divided by `weight`. When all of a priority fail,
    /// messages go to the next one until one of the better ones works again; each tries itself with a single message now and
    /// then. Messages that wait for an Upstream when it fails move too.
    #[schemars(length(min = 1, max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub upstreams: Vec<RouteUpstream>,
    /// How much may take this route, beside what its Upstreams allow. Counted as `spec.rates` of an Upstream: over all relays of
    /// this pool together, in every span, also over restarts. What goes beyond waits while mail of other routes goes on. In spans in
    /// which `replicas` changes it may be exceeded by the shares of the relays that come or go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub rates: Vec<Rate>,
}

/// What a message must match: every list that is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteMatch {
    /// Domains of the sender address (MAIL FROM): `example.com`, or `*.example.com` for everything below it. When set, the
    /// null reverse-path of delivery reports does not match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    pub sender_domains: Vec<String>,
    /// Domains of the recipient address (RCPT TO), written the same way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    pub recipient_domains: Vec<String>,
    /// Names of `clients.identities`: messages of clients that one of these let in. When set, the delivery reports that relays
    /// write themselves do not match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub identities: Vec<String>,
}

/// One of a route's Upstreams.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteUpstream {
    /// The `metadata.name` of an Upstream in the pool's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its part of the messages among the route's Upstreams of the same priority: 90 beside 10 takes nine of ten. Default: 1.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: i32,
    /// 1 takes messages first; 2 does while every Upstream of priority 1 fails, and so on. Default: 1.
    #[serde(default = "default_priority")]
    #[schemars(range(min = 1, max = 16))]
    pub priority: i32,
}

fn default_weight() -> i32 {
    1
}
fn default_priority() -> i32 {
    1
}
