//! `/healthz`, `/readyz`, `/metrics`: open to all, so they tell nothing of messages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::state::Admin;
use crate::message::Timestamp;
use crate::shutdown::Phase;
use crate::spool::Health;

/// Healthy means: starting the process anew would not help. It does when the spool is unhealthy, as nothing it lost is tried
/// again and nothing that is delivered can be recorded any more: each further delivery would come once more after the
/// start. The probe's patience is the time in which what is under way still ends. On a volume that stays broken the start
/// fails and says so; on one that was full or is mounted again the relay goes on from what is really on disk.
pub(super) async fn healthy(State(admin): State<Admin>) -> (StatusCode, String) {
    match &*admin.spool.health().borrow() {
        Health::Unhealthy(reason) => (StatusCode::SERVICE_UNAVAILABLE, unwritable(reason) + "\n"),
        Health::Healthy | Health::Full => (StatusCode::OK, "ok\n".to_owned()),
    }
}

fn unwritable(reason: &str) -> String {
    format!("the spool cannot be written: {reason}")
}

/// Ready means: can accept mail. A configuration is in force from the first moment the port answers.
pub(super) async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    let reason = match (admin.shutdown.phase(), &*admin.spool.health().borrow()) {
        (Phase::Serving, Health::Healthy) => return (StatusCode::OK, "ok\n".to_owned()),
        (Phase::Leaving | Phase::Draining | Phase::Stopping, _) => "stopping".to_owned(),
        (_, Health::Full) => "the spool is full".to_owned(),
        (_, Health::Unhealthy(reason)) => unwritable(reason),
    };
    (StatusCode::SERVICE_UNAVAILABLE, reason + "\n")
}

/// Seconds since then, in milliseconds since the epoch; none since 0.
fn age(accepted_at: &AtomicU64, now: Timestamp) -> i64 {
    let accepted_at = Timestamp(accepted_at.load(Ordering::Relaxed));
    let seconds = if accepted_at.0 == 0 { 0 } else { now.since(accepted_at).as_secs() };
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// The metrics, with what is measured at this moment.
pub(super) async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let usage = admin.spool.usage();
    let queued = usage.messages.saturating_sub(admin.tombstones.count());
    let metrics = &admin.metrics;
    metrics.connections_open.set(i64::try_from(admin.limits.open()).unwrap_or(i64::MAX));
    metrics.queue_messages.set(i64::try_from(queued).unwrap_or(i64::MAX));
    let now = Timestamp::from(SystemTime::now());
    metrics.queue_oldest_seconds.set(age(&metrics.oldest_accepted_at, now));
    metrics.queue_held_oldest_seconds.set(age(&metrics.oldest_held_accepted_at, now));
    metrics.spool_bytes.set(usage.total_bytes);
    metrics.spool_live_bytes.set(usage.live_bytes);
    metrics.spool_syncs.set(usage.syncs);
    metrics.spool_writable.set(i64::from(*admin.spool.health().borrow() == Health::Healthy));
    metrics.spool_quarantined.set(usage.quarantined);
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], metrics.render_with(&usage))
}
