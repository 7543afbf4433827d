//! The fake upstream as a program of its own, for a pod: the harness's SMTP server with a control port over HTTP.
//!
//! ```text
//! GET  /messages?PREFIX   one line for each token that begins with PREFIX: token, copies, SHA-256 of what was sent
//! GET  /sessions          totals as JSON: `Totals`
//! GET  /busiest           the most messages within any second, as JSON: `Busiest`
//! POST /down              stop listening and cut every session, as a crash would
//! POST /up                listen again
//! ```
//!
//! Settings come from the environment: `SMTP_ADDRESS`, `CONTROL_ADDRESS`, `TLS_DIR` (a folder with `tls.crt` and `tls.key`; with it
//! STARTTLS and AUTH are required) and `USERS` (`name=password`, separated by commas). Run by `tests/e2e` alone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use postroad_tests::certificates::IssuedCertificate;
use postroad_tests::conservation::TOKEN_FIELD;
use postroad_tests::smtp_server::{Ledger, Options, Settings, SmtpServer, TlsMode};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::RwLock;

/// What the server saw, in numbers.
#[derive(Serialize)]
struct Totals {
    messages: usize,
    sessions: usize,
    open_sessions: usize,
    most_open_sessions: usize,
    /// Sessions that ended without QUIT.
    cut_sessions: usize,
    /// Sessions by the user who authenticated.
    users: BTreeMap<String, usize>,
    violations: Vec<String>,
}

impl Totals {
    fn of(ledger: &Ledger) -> Self {
        let cut = |end: &Option<String>| end.as_deref().is_some_and(|end| end != "quit");
        let mut users = BTreeMap::new();
        for user in ledger.sessions.iter().filter_map(|session| session.user.clone()) {
            *users.entry(user).or_default() += 1;
        }
        Self {
            users,
            messages: ledger.messages.len(),
            sessions: ledger.sessions.len(),
            open_sessions: ledger.open_sessions,
            most_open_sessions: ledger.most_open_sessions,
            cut_sessions: ledger.sessions.iter().filter(|session| cut(&session.end)).count(),
            violations: ledger.violations.iter().map(|violation| violation.what.clone()).collect(),
        }
    }
}

/// The most messages that came within any second, wherever it begins.
#[derive(Serialize)]
struct Busiest {
    all: usize,
    /// From each client's address.
    by_client: BTreeMap<IpAddr, usize>,
}

/// The copies of one message.
struct Copies {
    count: usize,
    /// Of the content as it was sent; `None` when two copies differ.
    digest: Option<String>,
}

/// The ledger by token, kept up to date message by message: a digest of each is worth computing once.
#[derive(Default)]
struct Tokens {
    seen: usize,
    copies: BTreeMap<String, Copies>,
}

impl Tokens {
    fn update(&mut self, ledger: &Ledger) {
        for message in &ledger.messages[self.seen..] {
            let digest = digest(&message.content);
            let copies = self.copies.entry(message.token().unwrap_or_default());
            let copies = copies.or_insert_with(|| Copies { count: 0, digest: Some(digest.clone()) });
            copies.count += 1;
            copies.digest.take_if(|known| *known != digest);
        }
        self.seen = ledger.messages.len();
    }

    fn lines(&self, prefix: &str) -> String {
        let chosen =
            self.copies.range(prefix.to_owned()..).take_while(|(token, _)| token.starts_with(prefix));
        chosen
            .map(|(token, copies)| {
                format!("{token} {} {}\n", copies.count, copies.digest.as_deref().unwrap_or("differ"))
            })
            .collect()
    }
}

/// The digest of the content without what relays put in front: test messages begin with their token's field.
fn digest(content: &[u8]) -> String {
    let field = TOKEN_FIELD.as_bytes();
    let start = content.windows(field.len()).position(|window| window == field).unwrap_or(0);
    Sha256::digest(&content[start..]).iter().map(|octet| format!("{octet:02x}")).collect()
}

struct Upstream {
    server: RwLock<SmtpServer>,
    tokens: Mutex<Tokens>,
}

async fn messages(State(upstream): State<Arc<Upstream>>, RawQuery(prefix): RawQuery) -> String {
    let server = upstream.server.read().await;
    let mut tokens = upstream.tokens.lock().unwrap_or_else(PoisonError::into_inner);
    server.ledger(|ledger| tokens.update(ledger));
    tokens.lines(prefix.as_deref().unwrap_or_default())
}

async fn sessions(State(upstream): State<Arc<Upstream>>) -> Result<String, (StatusCode, String)> {
    let totals = upstream.server.read().await.ledger(Totals::of);
    serde_json::to_string(&totals).map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

async fn busiest(State(upstream): State<Arc<Upstream>>) -> Json<Busiest> {
    let (all, by_client) =
        upstream.server.read().await.ledger(|ledger| ledger.busiest(Duration::from_secs(1)));
    Json(Busiest { all, by_client })
}

async fn down(State(upstream): State<Arc<Upstream>>) {
    upstream.server.write().await.stop().await;
}

async fn up(State(upstream): State<Arc<Upstream>>) -> Result<(), (StatusCode, String)> {
    let restarted = upstream.server.write().await.restart().await;
    restarted.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

fn options() -> anyhow::Result<Options> {
    let address = std::env::var("SMTP_ADDRESS").unwrap_or_else(|_| "0.0.0.0:2525".to_owned());
    let listen = Some(address.parse().context("SMTP_ADDRESS is no address")?);
    let mut settings = Settings::default();
    for user in std::env::var("USERS").unwrap_or_default().split(',').filter(|user| !user.is_empty()) {
        let (name, password) = user.split_once('=').context("USERS holds an entry without '='")?;
        settings = settings.with_user(name, password);
    }
    let Some(folder) = std::env::var_os("TLS_DIR") else {
        return Ok(Options { listen, settings, ..Options::default() });
    };
    let read = |name| std::fs::read_to_string(Path::new(&folder).join(name)).context(name);
    let certificate =
        Some(IssuedCertificate { certificate_pem: read("tls.crt")?, key_pem: read("tls.key")? });
    settings.require_tls = true;
    settings.require_authentication = true;
    Ok(Options { listen, settings, certificate, tls: TlsMode::StartTls, ..Options::default() })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = RwLock::new(SmtpServer::start(options()?).await?);
    let upstream = Arc::new(Upstream { server, tokens: Mutex::default() });
    let router = Router::new()
        .route("/messages", get(messages))
        .route("/sessions", get(sessions))
        .route("/busiest", get(busiest))
        .route("/down", post(down))
        .route("/up", post(up))
        .with_state(upstream);
    let address = std::env::var("CONTROL_ADDRESS").unwrap_or_else(|_| "0.0.0.0:8080".to_owned());
    axum::serve(TcpListener::bind(address).await.context("CONTROL_ADDRESS")?, router).await?;
    Ok(())
}
