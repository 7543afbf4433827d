//! Locking for a harness whose tests panic on purpose: a poisoned lock is entered all the same.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex` even when a panicking test held it: the ledger and the logs must stay readable for the failure's report.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
