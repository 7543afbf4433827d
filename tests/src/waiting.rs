//! Waiting by watching: the error of a wait that ended without what was waited for, and the wait on a watch channel.
//!
//! Called by everything in the harness that waits. Nothing here sleeps: a change wakes the waiter.

use std::time::Duration;

use tokio::sync::watch;

/// A wait reached its limit. The text says what was awaited and what was there instead.
#[derive(Debug, thiserror::Error)]
#[error("waited {waited:?} for {what}; {found}")]
pub struct TimedOut {
    /// What was awaited, as the caller named it.
    pub what: String,
    /// How long the wait lasted.
    pub waited: Duration,
    /// What was seen instead, for whoever reads the failed test.
    pub found: String,
}

/// Waits until `check` answers `Some`, looking again after each change that `changes` announces.
///
/// The first look is immediate, so a state reached before the call is seen. `check` may look at state beside the
/// channel: every announcement has to come after the change it announces.
///
/// *Cancellation*: dropping the future leaves nothing behind.
///
/// # Errors
/// [`TimedOut`] after `limit`, or when the announcing side is gone; `describe` then tells what was found.
pub async fn watched<C, T>(
    mut changes: watch::Receiver<C>,
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Option<T>,
    describe: impl FnOnce() -> String,
) -> Result<T, TimedOut> {
    let search = async {
        loop {
            // Marked as seen before the look, so that a change made during the look is not missed.
            changes.borrow_and_update();
            if let Some(found) = check() {
                return Some(found);
            }
            if changes.changed().await.is_err() {
                return check();
            }
        }
    };
    match tokio::time::timeout(limit, search).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) | Err(_) => Err(TimedOut { what: what.to_owned(), waited: limit, found: describe() }),
    }
}
