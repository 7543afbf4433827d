//! The API server's audit log, reduced to writes: who changed what. The proof that a settled cluster costs none.

use std::path::Path;

use serde::Deserialize;

use crate::control_plane::error::{ControlPlaneError, failed};

/// Logs every write once it has been answered, and nothing else.
pub(crate) const POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: Metadata
  verbs: [create, update, patch, delete, deletecollection]
- level: None
";

/// A request that changed, or tried to change, an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The user, as `system:serviceaccount:postroad:postroad-operator`.
    pub user: String,
    /// The client's name for itself.
    pub user_agent: String,
    /// `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// The resource in the plural, with its subresource: `relaypools/status`.
    pub resource: String,
    /// The namespace; empty for cluster-wide objects.
    pub namespace: String,
    /// The object's name; empty where the server or the body names it.
    pub name: String,
    /// The HTTP status of the answer.
    pub code: u16,
    /// Whether it was a dry run.
    pub dry_run: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    #[serde(default)]
    object_ref: Object,
    #[serde(default)]
    response_status: Status,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Object {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
}

impl From<Event> for Write {
    fn from(event: Event) -> Self {
        let Object { resource, subresource, namespace, name } = event.object_ref;
        let resource = if subresource.is_empty() { resource } else { format!("{resource}/{subresource}") };
        Self {
            user: event.user.username,
            user_agent: event.user_agent,
            verb: event.verb,
            resource,
            namespace,
            name,
            code: event.response_status.code,
            dry_run: event.request_uri.contains("dryRun="),
        }
    }
}

/// Reads the log from its beginning. A last line that is still being written is left for the next time.
pub(crate) fn read(path: &Path) -> Result<Vec<Write>, ControlPlaneError> {
    let text = std::fs::read_to_string(path).map_err(failed("the audit log"))?;
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let event = |line: &str| serde_json::from_str::<Event>(line).map(Write::from);
    let writes: Result<Vec<Write>, serde_json::Error> = complete.lines().map(event).collect();
    writes.map_err(|error| failed("the audit log")(error.into()))
}
