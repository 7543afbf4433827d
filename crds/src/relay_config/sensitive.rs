//! Values that are never shown.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A value that must never be shown: `Debug` prints a placeholder. Serialising it does reveal it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sensitive(pub String);

impl fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<sensitive>")
    }
}
