//! Why a configuration does not compile.

/// Why a RelayConfig does not compile. The first field says where, in the words of the RelayPool or Upstream.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct PolicyError {
    place: String,
    reason: String,
}

pub(super) fn invalid(place: impl Into<String>, reason: impl ToString) -> PolicyError {
    PolicyError { place: place.into(), reason: reason.to_string() }
}
