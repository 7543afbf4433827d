//! The admin port: what probes and Prometheus ask for is open to all (`health`), what tells of messages or takes orders is for
//! whoever bears the pool's token (`bearer`, `queue`, `order`, `upstream`). No Service leads here. Reference: docs/reference/admin.md.

mod bearer;
mod health;
mod order;
mod queue;
mod refusal;
mod search;
mod state;
mod upstream;
mod view;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tokio::net::TcpListener;

pub use search::{LARGEST_PAGE, Search};
pub use state::Admin;
pub use view::{
    AttemptView, Done, Message, MessageState, Page, RecipientView, ReplyView, Summary, Upstreams,
};

/// Where the part that demands the token is.
pub const API: &str = "/admin/v1";

/// Serves until dropped.
///
/// # Errors
/// When the socket fails.
pub async fn serve(socket: TcpListener, admin: Admin) -> std::io::Result<()> {
    let api = Router::new()
        .route("/queue", get(queue::list))
        .route("/queue/{id}", get(queue::show))
        .route("/queue/{id}/{act}", post(order::give))
        .route("/upstreams", get(upstream::list))
        .route("/upstreams/{name}/{act}", post(upstream::give))
        .fallback(refusal::not_found)
        .layer(from_fn_with_state(admin.clone(), bearer::demand));
    let router = Router::new()
        .route("/healthz", get(health::healthy))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .nest(API, api)
        .with_state(admin);
    axum::serve(socket, router).await
}
