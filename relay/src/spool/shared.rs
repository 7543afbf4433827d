//! What handles, drafts, readers and the writer share: the index, counters, health.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use super::error::SpoolError;
use super::index::Index;
use super::ledger::Ledger;
use super::record::Location;

/// Whether the spool takes mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Healthy,
    /// The budget is used up or the file system nearly so; over once a twentieth of the budget, and a segment beyond the
    /// file system's reserve, is free again.
    Full,
    /// A write or sync failed, for the reason told. Until the relay is restarted nothing is kept; reading stays possible.
    Unhealthy(String),
}

/// How much the spool holds and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Messages stored, quarantined ones not among them.
    pub messages: u64,
    /// Their recipients that are still to be delivered.
    pub queued: u64,
    /// The account of recipients since the spool came into being: what was accepted has ended or is queued.
    pub ledger: Ledger,
    /// Bytes of records that stored messages consist of.
    pub live_bytes: u64,
    /// Bytes written to all segments, dead ones included.
    pub total_bytes: u64,
    /// Bytes that earlier runs left and that are still to be read. Messages, recipients and account are those of this run alone
    /// until it is `None`.
    pub unread: Option<u64>,
    /// Segment files.
    pub segments: u64,
    /// Entries in the quarantine directory, those of earlier runs included.
    pub quarantined: u64,
    /// Syncs of data made since the spool was opened; `records / syncs` is what group commit saves.
    pub syncs: u64,
    /// Records written since the spool was opened, copies made by reclaiming included.
    pub records: u64,
    /// Whether reclaiming has work it can do.
    pub reclaiming: bool,
}

/// The part of the spool that all its handles and its writer see.
#[derive(Debug)]
pub(super) struct Shared {
    index: Mutex<Index>,
    pub(super) health: watch::Sender<Health>,
    pub(super) quarantined: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) records: AtomicU64,
    pub(super) reclaiming: AtomicBool,
    /// Bytes that earlier runs left and that are still to be read; `None` once all is known.
    pub(super) unread: watch::Sender<Option<u64>>,
    /// Whether the writer is about to end.
    pub(super) closing: AtomicBool,
}

impl Shared {
    pub(super) fn new(unread: u64, quarantined: u64) -> Self {
        Self {
            index: Mutex::default(),
            health: watch::Sender::new(Health::Healthy),
            quarantined: AtomicU64::new(quarantined),
            syncs: AtomicU64::new(0),
            records: AtomicU64::new(0),
            reclaiming: AtomicBool::new(false),
            unread: watch::Sender::new(Some(unread)),
            closing: AtomicBool::new(false),
        }
    }

    /// The index; held for moments only, never over IO.
    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("nothing that holds the index panics")
    }

    /// Whether what earlier runs left is still being read.
    pub(super) fn recovering(&self) -> bool {
        self.unread.borrow().is_some()
    }

    /// Nothing is kept any more.
    pub(super) fn fail(&self, error: &SpoolError) {
        tracing::error!(%error, "the spool keeps nothing more until the relay is restarted");
        self.health.send_replace(Health::Unhealthy(error.to_string()));
    }

    /// What a request is answered that the writer never will.
    pub(super) fn gone(&self) -> SpoolError {
        match &*self.health.borrow() {
            Health::Unhealthy(reason) => SpoolError::Unhealthy(reason.clone()),
            _ => SpoolError::Closed,
        }
    }

    pub(super) fn usage(&self) -> Usage {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let index = self.index();
        let unread = *self.unread.borrow();
        Usage {
            messages: index.messages() as u64,
            queued: index.queued(),
            ledger: index.ledger,
            live_bytes: index.live_bytes(),
            total_bytes: index.total_bytes() + unread.unwrap_or_default(),
            unread,
            segments: index.segments.len() as u64,
            quarantined: count(&self.quarantined),
            syncs: count(&self.syncs),
            records: count(&self.records),
            reclaiming: self.reclaiming.load(Ordering::Relaxed),
        }
    }
}

/// A chunk of a draft's content on disk. As long as it is held its segment is not reclaimed; dropped, it is dead bytes.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) location: Location,
    shared: Arc<Shared>,
}

impl Pinned {
    pub(super) fn new(location: Location, shared: &Arc<Shared>) -> Self {
        if let Some(usage) = shared.index().segments.get_mut(&location.segment) {
            usage.drafts += location.record_bytes();
        }
        Self { location, shared: shared.clone() }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(usage) = self.shared.index().segments.get_mut(&self.location.segment) {
            usage.drafts -= self.location.record_bytes();
        }
    }
}
