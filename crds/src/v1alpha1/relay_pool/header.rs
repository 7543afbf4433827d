//! What relays change in the header section of accepted mail.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What relays change in the header section of accepted mail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Headers {
    /// Names of header fields to remove, in any case, for example `X-Originating-IP`. `Received`, `From`, `Date` and
    /// `Message-ID` cannot be removed. Counts from the next message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 76), regex(pattern = "^[!-9;-~]+$")))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub remove: Vec<String>,
}
