//! Who may use the admin API: whoever bears the token (RFC 6750 §2.1) that the operator has put beside the configuration.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use postroad_crds::admin_token::is_usable;
use subtle::ConstantTimeEq;

use super::refusal::Refusal;
use super::state::Admin;

/// Lets requests with the token pass. Without a usable token of its own the relay lets none pass.
pub(super) async fn demand(
    State(admin): State<Admin>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let file = &admin.token;
    let token = tokio::fs::read_to_string(file).await.ok().filter(|token| is_usable(token.trim_end()));
    let Some(token) = token else {
        tracing::warn!(file = %file.display(), "the admin API is shut: no usable token is in the file");
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "this relay has no usable admin token"));
    };
    if !bears(request.headers(), token.trim_end()) {
        tracing::warn!(path = request.uri().path(), "a request to the admin API without the pool's token");
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "the pool's admin token is needed"));
    }
    Ok(next.run(request).await)
}

/// Whether the headers bear the token; what differs cannot be told from the time this takes.
fn bears(headers: &HeaderMap, token: &str) -> bool {
    let value = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let Some((scheme, borne)) = value.and_then(|value| value.split_at_checked("Bearer ".len())) else {
        return false;
    };
    scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(borne.ct_eq(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_is_the_token() {
        let bears_as = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            bears(&headers, "0123456789")
        };
        assert!(bears_as("Bearer 0123456789") && bears_as("bearer 0123456789"));
        for value in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 012345678",
            "Bearer 01234567890",
            "Basic 0123456789",
            "0123456789",
        ] {
            assert!(!bears_as(value), "{value}");
        }
        assert!(!bears(&HeaderMap::new(), "0123456789"));
    }
}
