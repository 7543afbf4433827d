//! References to other objects: by name, in the namespace of the object that makes the reference.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Names a Secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretReference {
    /// The Secret's `metadata.name`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}
