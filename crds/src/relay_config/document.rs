//! The whole document, its version, and reading and writing it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::client::Identity;
use super::hand_over::HandOver;
use super::limits::{Headers, Limits};
use super::listener::{Certificate, Listener};
use super::queue::{Acceptance, Queue, Shutdown};
use super::route::Route;
use super::upstream::Upstream;

/// The key in the Secret and the name of the file in the mounted folder.
pub const FILE_NAME: &str = "relay-config.yaml";

/// The only version of this format so far. A relay refuses any other.
pub const VERSION: &str = "relay-config.postroad.dev/v1";

/// The configuration of one pool's relays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RelayConfig {
    /// Always [`VERSION`].
    pub version: String,
    /// The pool, for replies, logs and metrics.
    pub pool: ObjectName,
    /// How many relays the pool has; each takes its share by ordinal.
    pub replicas: u32,
    /// The name in the banner, in `Received` lines and, towards upstreams, in EHLO.
    pub hostname: String,
    /// Where to listen.
    pub listeners: Vec<Listener>,
    /// When a message is accepted.
    #[serde(default, skip_serializing_if = "Acceptance::is_queued")]
    pub acceptance: Acceptance,
    /// The certificate shown by every listener that speaks TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// Who may relay. A client that matches none of these is refused.
    pub identities: Vec<Identity>,
    /// Which upstreams take which message; the first match in this order wins.
    pub routes: Vec<Route>,
    /// The upstreams that routes name.
    pub upstreams: Vec<Upstream>,
    /// How long and how often delivery is tried.
    pub queue: Queue,
    /// Bounds on what clients may ask for.
    pub limits: Limits,
    /// What is changed in header sections.
    #[serde(default)]
    pub headers: Headers,
    /// How a relay stops.
    pub shutdown: Shutdown,
    /// How mail is passed on between relays. Without it a relay keeps what it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hand_over: Option<HandOver>,
}

/// The namespace and name of a Kubernetes object. Displayed as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectName {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Why a text is not a configuration a relay can run.
#[derive(Debug, thiserror::Error)]
pub enum RelayConfigError {
    /// It is not YAML of this shape. The text says which field, never its value.
    #[error("{0}")]
    Syntax(String),
    /// It was rendered by another release of the operator.
    #[error("version is {found:?}, this relay reads {VERSION:?}: run relay and operator of the same release")]
    Version {
        /// What the file says.
        found: String,
    },
}

/// The version alone, so that a file of another release is named as such rather than by its first unknown field.
#[derive(Deserialize)]
struct Versioned {
    version: String,
}

impl RelayConfig {
    /// Reads the rendered form.
    ///
    /// # Errors
    /// When the text is not YAML of this shape or of another version. Neither text quotes a value.
    pub fn from_yaml(text: &str) -> Result<Self, RelayConfigError> {
        let found: Versioned = serde_yaml::from_str(text).map_err(|error| syntax(&error))?;
        if found.version != VERSION {
            return Err(RelayConfigError::Version { found: found.version });
        }
        serde_yaml::from_str(text).map_err(|error| syntax(&error))
    }

    /// The rendered form. Reveals every secret: for the Secret or a file of mode 0600 only.
    ///
    /// # Errors
    /// Never for values of this type; the signature is serde_yaml's.
    pub fn to_yaml(&self) -> Result<String, serde_yaml::Error> {
        serde_yaml::to_string(self)
    }
}

/// What serde_yaml says quotes scalars ("invalid type: string \"hunter2\", expected …"), so only the place is kept.
fn syntax(error: &serde_yaml::Error) -> RelayConfigError {
    let text = error.to_string();
    let fault = ["unknown field", "missing field", "unknown variant"]
        .iter()
        .find_map(|kind| {
            text.find(kind).map(|at| text[at..].split(", expected").next().unwrap_or(kind).to_owned())
        })
        .unwrap_or_else(|| "not a relay configuration".to_owned());
    match error.location() {
        Some(location) => RelayConfigError::Syntax(format!(
            "line {} column {}: {fault}",
            location.line(),
            location.column()
        )),
        None => RelayConfigError::Syntax(fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_release_is_named_before_any_unknown_field() {
        let error = RelayConfig::from_yaml("version: relay-config.postroad.dev/v9\nfuture: 1\n").unwrap_err();
        assert!(matches!(&error, RelayConfigError::Version { found } if found.ends_with("v9")), "{error}");
    }

    #[test]
    fn an_error_never_quotes_a_value() {
        let text = format!("version: {VERSION}\npool: hunter2\n");
        let error = RelayConfig::from_yaml(&text).unwrap_err().to_string();
        assert!(!error.contains("hunter2") && error.contains("line 2"), "{error}");
    }
}
