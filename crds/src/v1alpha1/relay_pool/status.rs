//! What the operator observed of a RelayPool.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator observed of a RelayPool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RelayPoolStatus {
    /// The name under which apps reach the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Relay pods that exist.
    #[serde(default)]
    pub replicas: i32,
    /// Relay pods that accept mail.
    #[serde(default)]
    pub ready_replicas: i32,
    /// The label selector of the relay pods, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Messages that leaving relays still hold, those in quarantine among them, as far as the relays say; absent when none leaves.
    /// Since when they leave: the condition `Draining`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining_messages: Option<i64>,
    /// `Accepted`: the spec makes sense. `ResolvedRefs`: every Upstream and Secret it names, directly or through an Upstream,
    /// exists and has what it needs. `Programmed`: the relays' configuration and objects are in place as this generation
    /// wants them. `Ready`: they are, and all relays accept mail.
    /// `PreferredUpstreams`: False when relays send the mail of a route to Upstreams of a worse priority, because those of the best one
    /// fail or are drained (`FailedOver`), or to none (`NoUpstreamWorks`: it waits); Unknown when no relay answers. Relays are asked
    /// every 15 seconds.
    /// `Draining`: relays that are to go, or all because the pool is being deleted, still hold mail and are waited for.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
