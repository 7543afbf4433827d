//! Which Upstream takes which message.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::v1alpha1::reference::UpstreamReference;

/// Which Upstream takes which message.
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
    /// Where it goes.
    pub upstream_ref: UpstreamReference,
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
}
