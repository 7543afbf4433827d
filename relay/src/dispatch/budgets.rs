//! The records of budgets on disk: what of [`budget`](crate::budget) needs a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::event::{Recorded, SavedBudgets};
use crate::budget::{Saved, ledger};
use crate::config::Policy;

/// What the last process has left of these upstreams' budgets. Reads one small file for each that has rates.
pub(super) fn read(data: &Path, upstreams: Vec<String>, policy: &Policy) -> SavedBudgets {
    let has_rates =
        |name: &String| policy.upstreams.get(name).is_some_and(|upstream| !upstream.rates.is_empty());
    let saved = |name: &String| match ledger::read(data, name) {
        _ if !has_rates(name) => None,
        Ok(saved) => saved,
        Err(error) => {
            tracing::error!(
                upstream = name, %error,
                "what was sent before cannot be read; its rates count as used up until their time is over"
            );
            Some(Saved::unknown())
        }
    };
    upstreams.into_iter().map(|name| (name.clone(), saved(&name))).collect()
}

/// Writes a record and tells the driver.
pub(super) async fn record(
    data: PathBuf,
    upstream: Arc<str>,
    saved: Saved,
    covered: u64,
    done: mpsc::Sender<Recorded>,
) {
    let name = upstream.clone();
    let written = spawn_blocking(move || ledger::write(&data, &name, &saved)).await;
    let covered = match written {
        Ok(Ok(())) => Some(covered),
        Ok(Err(error)) => {
            tracing::error!(%upstream, %error, "what is sent cannot be recorded; mail under a long rate waits");
            None
        }
        Err(_) => None,
    };
    let _ = done.send(Recorded { upstream, covered }).await;
}

/// Records what was really spent, when nothing more will be.
pub(super) async fn leave(data: PathBuf, records: Vec<(Arc<str>, Saved)>) {
    let _ = spawn_blocking(move || {
        for (upstream, saved) in records {
            if let Err(error) = ledger::write(&data, &upstream, &saved) {
                tracing::warn!(%upstream, %error, "what was sent could not be recorded; more counts as sent than was");
            }
        }
    })
    .await;
}
