//! What is to be said of a condition. Leaf.

use postroad_crds::v1alpha1::Conditions;

use crate::reason::Reason;
use crate::wording::clipped;

/// The longest message, in octets: a person reads it in a terminal.
const MESSAGE: usize = 1500;

/// What is known of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it holds; `None` when that is not known.
    pub holds: Option<bool>,
    /// The word for it.
    pub reason: Reason,
    /// The sentence, in any length.
    pub message: String,
}

impl Verdict {
    /// A verdict.
    #[must_use]
    pub fn new(holds: impl Into<Option<bool>>, reason: Reason, message: impl Into<String>) -> Self {
        Self { holds: holds.into(), reason, message: message.into() }
    }

    /// Adds it as the condition of this type.
    pub fn set(&self, conditions: &mut Conditions, type_: &str) {
        let (reason, message) = (self.reason.as_str(), clipped(&self.message, MESSAGE));
        match self.holds {
            Some(holds) => conditions.set(type_, holds, reason, message),
            None => conditions.set_unknown(type_, reason, message),
        }
    }
}
