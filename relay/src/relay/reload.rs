//! Configurations that come into force while the relay runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::config::{self, Policy};
use crate::metrics::Metrics;
use crate::shutdown::{Phase, Shutdown};
use crate::submission::Listeners;
use crate::telemetry;

/// Puts every usable configuration in force and keeps the last one when another cannot be used (P6). The ports are closed when
/// nothing more is accepted; what is delivered then still follows the configuration.
pub(super) async fn reload(
    path: PathBuf,
    mut changes: mpsc::Receiver<()>,
    mut listeners: Option<Listeners>,
    policy_in_force: watch::Sender<Arc<Policy>>,
    metrics: Arc<Metrics>,
    mut shutdown: Shutdown,
) {
    loop {
        tokio::select! {
            Some(()) = changes.recv() => {}
            () = shutdown.reached(Phase::Draining), if listeners.is_some() => {
                // With them goes the last sender of accepted messages that is not a session's.
                listeners = None;
                continue;
            }
            else => return,
        }
        match put_in_force(&path, listeners.as_mut(), &policy_in_force).await {
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
    listeners: Option<&mut Listeners>,
    policy_in_force: &watch::Sender<Arc<Policy>>,
) -> anyhow::Result<()> {
    let policy = Arc::new(config::load(path)?);
    let Some(listeners) = listeners else {
        policy_in_force.send_replace(policy);
        return Ok(());
    };
    let bound = listeners.bind(&policy).await?;
    policy_in_force.send_replace(policy.clone());
    listeners.apply(&policy, bound);
    Ok(())
}
