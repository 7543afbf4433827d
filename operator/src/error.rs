//! Why a reconcile has to be tried again. What an object's author can mend is not here: that is data, told by its status.

use crate::client::ApiError;
use crate::reason::{Problem, Reason};

/// A reconcile that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not answer or refused.
    #[error("{0}")]
    Api(#[from] ApiError),
    /// Objects could not be put in place; the status says so.
    #[error("{0}")]
    Refused(Problem),
}

impl Error {
    /// The reason for metrics.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Api(error) => error.reason(),
            Self::Refused(problem) => problem.reason,
        }
    }
}
