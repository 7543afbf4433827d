//! The relay as a whole: what is started in which order, how configurations come into force, how it stops.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use postroad_crds::admin_token;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::admin::{self, Admin};
use crate::config::{self, Policy};
use crate::dispatch::{self, Dispatch};
use crate::limits::ConnectionLimits;
use crate::listen;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::shutdown::{self, Phase, Shutdown};
use crate::spool::{self, Recovery, Spool};
use crate::submission::{Context, Listeners};
use crate::telemetry;

/// Accepted messages that may wait for dispatch to hear of them.
const ACCEPTED_BACKLOG: usize = 1024;

/// What a relay is started with.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// The rendered configuration. The token of the admin API is the file beside it.
    pub config: PathBuf,
    /// The folder for the spool and the sandbox.
    pub data: PathBuf,
    /// This relay's number in its pool.
    pub ordinal: u32,
    /// Where `/healthz`, `/readyz`, `/metrics` and the admin API are served.
    pub admin: SocketAddr,
    /// Octets of memory it may use; `None`: as much as there is.
    pub memory_limit: Option<u64>,
}

/// Runs a relay until `stop` completes and the work that must not be cut is done.
///
/// # Errors
/// When it cannot start: no usable configuration, spool or port. Each error is one sentence.
pub async fn run(arguments: Arguments, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    // Watched first, so that no change falls between the two; a file that is not there is better told by loading it.
    let changes = config::watch(arguments.config.clone());
    let policy = Arc::new(config::load(&arguments.config)?);
    let changes = changes.with_context(|| format!("{} cannot be watched", arguments.config.display()))?;
    let admin_socket = listen::bind(arguments.admin)
        .await
        .with_context(|| format!("the admin port {} cannot be bound", arguments.admin))?;
    let (spool, recovery) = open_spool(&arguments.data, &policy)?;
    let metrics = Arc::new(Metrics::new());
    let (phase, shutdown) = shutdown::channel();
    let (policy_in_force, policies) = watch::channel(policy.clone());
    let (accepted_in, accepted) = mpsc::channel(ACCEPTED_BACKLOG);
    let limits = ConnectionLimits::default();
    let sessions = TaskTracker::new();

    let mut listeners = Listeners::new(Context {
        policy: policies.clone(),
        spool: spool.clone(),
        memory: arguments.memory_limit.map_or_else(Memory::unlimited, Memory::watch),
        accepted: accepted_in,
        metrics: metrics.clone(),
        shutdown: shutdown.clone(),
        limits: limits.clone(),
        verifier: Arc::default(),
        sessions: sessions.clone(),
    });
    let bound = listeners.bind(&policy).await?;

    let dispatching = tokio::spawn(dispatch::run(
        Dispatch {
            spool: spool.clone(),
            policy: policies.clone(),
            ordinal: arguments.ordinal,
            data: arguments.data.clone(),
            metrics: metrics.clone(),
            shutdown: shutdown.clone(),
        },
        recovery.messages,
        accepted,
    ));
    listeners.apply(&policy, bound);
    metrics.configurations_applied.inc();
    let admin = Admin {
        metrics: metrics.clone(),
        spool: spool.clone(),
        shutdown: shutdown.clone(),
        limits,
        policy: policies.clone(),
        token: arguments.config.with_file_name(admin_token::FILE_NAME),
    };
    let admin = tokio::spawn(admin::serve(admin_socket, admin));
    tracing::info!(pool = policy.pool, ordinal = arguments.ordinal, "relay started");

    let reloading =
        tokio::spawn(reload(arguments.config, changes, listeners, policy_in_force, metrics, shutdown));
    stop.await;
    let policy = policies.borrow().clone();
    let stopping = async {
        leave(&phase, &policy).await;
        // Ends with its listeners, and with them the last sender of accepted messages that is not a session's.
        let _ = reloading.await;
        sessions.close();
        sessions.wait().await;
        let _ = dispatching.await;
        spool.close().await;
    };
    match timeout(policy.grace_period, stopping).await {
        Ok(()) => tracing::info!("relay stopped"),
        Err(_) => tracing::warn!("grace period over; what was under way is tried again after the next start"),
    }
    admin.abort();
    Ok(())
}

fn open_spool(data: &Path, policy: &Policy) -> anyhow::Result<(Spool, Recovery)> {
    let options = spool::Options { maximum_bytes: policy.spool_bytes, ..spool::Options::default() };
    let (spool, recovery) = Spool::open(&data.join("spool"), options)?;
    tracing::info!(
        messages = recovery.messages.len(),
        segments = recovery.segments,
        torn_bytes = recovery.torn_bytes,
        quarantined = recovery.quarantined.len(),
        "spool opened"
    );
    for quarantined in &recovery.quarantined {
        tracing::error!(subject = ?quarantined.subject, reason = quarantined.reason, "damaged on disk, put into quarantine");
    }
    Ok((spool, recovery))
}

/// Not ready at once; still accepting while clients learn of it; then nothing new.
async fn leave(phase: &watch::Sender<Phase>, policy: &Policy) {
    tracing::info!(accept_seconds = policy.accept_after_stop.as_secs(), "stopping");
    phase.send_replace(Phase::Leaving);
    sleep(policy.accept_after_stop).await;
    phase.send_replace(Phase::Stopping);
}

/// Puts every usable configuration in force and keeps the last one when another cannot be used (P6).
async fn reload(
    path: PathBuf,
    mut changes: mpsc::Receiver<()>,
    mut listeners: Listeners,
    policy_in_force: watch::Sender<Arc<Policy>>,
    metrics: Arc<Metrics>,
    mut shutdown: Shutdown,
) {
    loop {
        tokio::select! {
            Some(()) = changes.recv() => {}
            () = shutdown.reached(Phase::Stopping) => return,
        }
        match put_in_force(&path, &mut listeners, &policy_in_force).await {
            Ok(()) => {
                metrics.configurations_applied.inc();
                tracing::info!("configuration changed");
            }
            Err(error) => {
                metrics.configurations_refused.inc();
                tracing::error!(
                    error = telemetry::sentence(&error),
                    "configuration refused; the last good one stays in force"
                );
            }
        }
    }
}

async fn put_in_force(
    path: &Path,
    listeners: &mut Listeners,
    policy_in_force: &watch::Sender<Arc<Policy>>,
) -> anyhow::Result<()> {
    let policy = Arc::new(config::load(path)?);
    let bound = listeners.bind(&policy).await?;
    policy_in_force.send_replace(policy.clone());
    listeners.apply(&policy, bound);
    Ok(())
}
