//! The records of budgets on disk: what of [`budget`](crate::budget) needs a file.

use std::path::{Path, PathBuf};

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::event::{Recorded, SavedBudgets};
use crate::budget::{Saved, Scope, ledger};

/// What the last process has left of these budgets. Reads one small file for each.
pub(super) fn read(data: &Path, scopes: Vec<Scope>) -> SavedBudgets {
    let saved = |scope: &Scope| match ledger::read(data, scope) {
        Ok(saved) => saved,
        Err(error) => {
            tracing::error!(
                budget = %scope, %error,
                "what was sent before cannot be read; its rates count as used up until their time is over"
            );
            Some(Saved::unknown())
        }
    };
    scopes.into_iter().map(|scope| (scope.clone(), saved(&scope))).collect()
}

/// Writes a record and tells the driver.
pub(super) async fn record(
    data: PathBuf,
    scope: Scope,
    saved: Saved,
    covered: u64,
    done: mpsc::Sender<Recorded>,
) {
    let recorded = scope.clone();
    let written = spawn_blocking(move || ledger::write(&data, &recorded, &saved)).await;
    let covered = match written {
        Ok(Ok(())) => Some(covered),
        Ok(Err(error)) => {
            tracing::error!(budget = %scope, %error, "what is sent cannot be recorded; mail under a long rate waits");
            None
        }
        Err(_) => None,
    };
    let _ = done.send(Recorded { scope, covered }).await;
}

/// Records what was really spent, when nothing more will be.
pub(super) async fn leave(data: PathBuf, records: Vec<(Scope, Saved)>) {
    let _ = spawn_blocking(move || {
        for (scope, saved) in records {
            if let Err(error) = ledger::write(&data, &scope, &saved) {
                tracing::warn!(budget = %scope, %error, "what was sent could not be recorded; more counts as sent than was");
            }
        }
    })
    .await;
}
