//! Health over HTTP: `/healthz` (the process answers), `/readyz` (the API server answers and every watch has been listed) and
//! `/metrics`. Served always, by leaders and followers alike.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// How long the API server may be silent. The Lease is renewed or looked at every two seconds.
const SILENCE: Duration = Duration::from_secs(15);

/// What readiness depends on.
#[derive(Debug, Default)]
pub struct Health {
    facts: Mutex<Facts>,
}

#[derive(Debug, Default)]
struct Facts {
    answered: Option<Instant>,
    awaited: BTreeSet<String>,
}

impl Health {
    /// The API server has answered at this time.
    pub fn answered(&self, now: Instant) {
        self.facts().answered = Some(now);
    }

    /// A watch has begun and is not listed yet.
    pub fn await_watch(&self, name: &str) {
        self.facts().awaited.insert(name.to_owned());
    }

    /// A watch has been listed.
    pub fn watch_synced(&self, name: &str) {
        self.facts().awaited.remove(name);
    }

    /// Why the operator is not ready, in a sentence; `None` when it is.
    #[must_use]
    pub fn unready(&self, now: Instant) -> Option<String> {
        let facts = self.facts();
        match facts.answered {
            None => Some("the API server has not answered yet".to_owned()),
            Some(at) if now.duration_since(at) > SILENCE => Some(format!(
                "the API server has not answered for {} seconds",
                now.duration_since(at).as_secs()
            )),
            Some(_) => {
                facts.awaited.first().map(|name| format!("the watch of {name} has not been listed yet"))
            }
        }
    }

    fn facts(&self) -> std::sync::MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Binds the address; on a host without IPv6 `[::]` means its IPv4 counterpart.
///
/// # Errors
/// When the address cannot be bound; the text names it.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let bound = match TcpListener::bind(address).await {
        Err(error)
            if address.ip() == Ipv6Addr::UNSPECIFIED
                && !matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await.map_err(|_| error)
        }
        other => other,
    };
    bound.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address} (POSTROAD_HEALTH_ADDRESS): {error}"))
    })
}

/// Answers until the process ends.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, health: Arc<Health>, metrics: Arc<Metrics>) -> io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(health)
        .route("/metrics", get(render).with_state(metrics));
    axum::serve(listener, router).await
}

async fn readyz(State(health): State<Arc<Health>>) -> impl IntoResponse {
    match health.unready(Instant::now()) {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}

async fn render(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], metrics.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_answered_lately_and_every_watch_listed() {
        let (health, start) = (Health::default(), Instant::now());
        health.await_watch("upstreams in all namespaces");
        assert!(health.unready(start).unwrap().contains("has not answered yet"));
        health.answered(start);
        assert!(health.unready(start).unwrap().contains("upstreams in all namespaces"));
        health.watch_synced("upstreams in all namespaces");
        assert_eq!(health.unready(start), None);
        assert!(health.unready(start + Duration::from_secs(16)).unwrap().contains("16 seconds"));
    }
}
