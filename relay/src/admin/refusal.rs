//! Refusals of the admin API: a status and `{"error": "…"}`, one sentence for people.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::spool::SpoolError;

/// Why a request is not answered as asked.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    /// Nobody carries out orders any more.
    pub(super) fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the relay is stopping, or gives its mail to others")
    }
}

impl From<&SpoolError> for Refusal {
    fn from(error: &SpoolError) -> Self {
        let status = match error {
            SpoolError::Unknown(_) => StatusCode::NOT_FOUND,
            SpoolError::Unhealthy(_) | SpoolError::Closed => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = Json(json!({"error": self.reason}));
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 6750 §3.
            return (self.status, [(header::WWW_AUTHENTICATE, "Bearer realm=\"postroad\"")], body)
                .into_response();
        }
        (self.status, body).into_response()
    }
}

/// For paths that are none.
pub(super) async fn not_found() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "there is nothing of this name; docs/reference/admin.md lists all")
}
