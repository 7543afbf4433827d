//! The admin port: `/healthz`, `/readyz`, `/metrics`. It tells nothing of messages and takes no orders.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::limits::ConnectionLimits;
use crate::message::Timestamp;
use crate::metrics::Metrics;
use crate::shutdown::{Phase, Shutdown};
use crate::spool::{Health, Spool};

/// What the admin port looks at.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The spool.
    pub spool: Spool,
    /// How far the relay is on its way to stopping.
    pub shutdown: Shutdown,
    /// Connections open now.
    pub limits: ConnectionLimits,
}

/// Serves until dropped.
///
/// # Errors
/// When the socket fails.
pub async fn serve(socket: TcpListener, admin: Admin) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(admin);
    axum::serve(socket, router).await
}

/// Healthy means: starting the process anew would not help. It does when the spool is unhealthy, as nothing it lost is tried
/// again and nothing that is delivered can be recorded any more: each further delivery would come once more after the
/// start. The probe's patience is the time in which what is under way still ends. On a volume that stays broken the start
/// fails and says so; on one that was full or is mounted again the relay goes on from what is really on disk.
async fn healthy(State(admin): State<Admin>) -> (StatusCode, String) {
    match &*admin.spool.health().borrow() {
        Health::Unhealthy(reason) => (StatusCode::SERVICE_UNAVAILABLE, unwritable(reason) + "\n"),
        Health::Healthy | Health::Full => (StatusCode::OK, "ok\n".to_owned()),
    }
}

fn unwritable(reason: &str) -> String {
    format!("the spool cannot be written: {reason}")
}

/// Ready means: can accept mail. A configuration is in force from the first moment the port answers.
async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    let reason = match (admin.shutdown.phase(), &*admin.spool.health().borrow()) {
        (Phase::Serving, Health::Healthy) => return (StatusCode::OK, "ok\n".to_owned()),
        (Phase::Leaving | Phase::Stopping, _) => "stopping".to_owned(),
        (_, Health::Full) => "the spool is full".to_owned(),
        (_, Health::Unhealthy(reason)) => unwritable(reason),
    };
    (StatusCode::SERVICE_UNAVAILABLE, reason + "\n")
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let usage = admin.spool.usage();
    let metrics = &admin.metrics;
    metrics.connections_open.set(i64::try_from(admin.limits.open()).unwrap_or(i64::MAX));
    metrics.queue_messages.set(i64::try_from(usage.messages).unwrap_or(i64::MAX));
    let oldest = Timestamp(metrics.oldest_accepted_at.load(Ordering::Relaxed));
    let age = if oldest.0 == 0 { 0 } else { Timestamp::from(SystemTime::now()).since(oldest).as_secs() };
    metrics.queue_oldest_seconds.set(i64::try_from(age).unwrap_or(i64::MAX));
    metrics.spool_bytes.set(usage.total_bytes);
    metrics.spool_live_bytes.set(usage.live_bytes);
    metrics.spool_syncs.set(usage.syncs);
    metrics.spool_writable.set(i64::from(*admin.spool.health().borrow() == Health::Healthy));
    metrics.spool_quarantined.set(usage.quarantined);
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], metrics.render_with(&usage))
}
