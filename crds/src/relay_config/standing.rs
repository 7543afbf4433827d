//! How the Upstreams stand for one relay, as it tells the operator and people.

use serde::{Deserialize, Serialize};

/// What a relay does with an Upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It gives it mail; a session with it has stood since the start or since its configuration changed.
    Works,
    /// It would give it mail, and has had no session with it yet.
    Untried,
    /// It has failed more often than by chance and is only tried now and then. Mail that has another way takes that; other mail waits.
    Fails,
    /// A person has ordered that it is given nothing.
    Drained,
    /// It has no share of the Upstream's connections or rates.
    NoShare,
    /// A word of a later release.
    #[serde(other)]
    Unknown,
}

/// How one Upstream stands for a relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamStanding {
    /// The Upstream.
    pub name: String,
    /// What is done with it.
    pub standing: Standing,
    /// Why it gets nothing, or is only tried: words for people, which may quote the service's reply. Cut where it is long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
    /// The port on which the last session was opened; none for a sandbox, and before the first session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Why ports that are preferred to it were passed over, a reason a port. Cut where they are long.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<String>,
}
