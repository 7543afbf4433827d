//! Giving space back: the oldest segment is deleted once nothing in it is live, and emptied by copying when it stays.
//!
//! Only the oldest segment is ever deleted, so that a `State` or `Removed` record outlives all that it refers to. A message
//! with any part in the segment to be emptied is copied whole (content, envelope, current state) to the end of the log; the
//! segment goes once the copies are synced. Work is done in steps between batches, each bounded in bytes. Damaged messages
//! met on the way are put into quarantine. Only the writer thread calls this.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::command::Change;
use super::error::SpoolError;
use super::index::{Index, Parts};
use super::ledger::Fate;
use super::log::Log;
use super::options::Options;
use super::quarantine::{self, Remains};
use super::record::{Accepted, Kind, Location, Record, State, decode, queued};
use super::segment::ReadFault;
use super::shared::{Pinned, Shared};
use crate::message::MessageId;

/// Segments that may be dead beyond twice what is live, before copying begins.
const SLACK_SEGMENTS: u64 = 4;
/// The same when the budget runs short.
const PRESSED_SLACK_SEGMENTS: u64 = 2;

/// A change of the index that a staged record stands for, made once the record is on stable storage.
#[derive(Debug)]
pub(super) enum Effect {
    Accepted { id: MessageId, accepted: Location, content: Vec<Location>, queued: u32, pins: Vec<Pinned> },
    State { id: MessageId, state: Location, queued: u32, under_way: Vec<u32> },
    Sending { id: MessageId, recipients: Vec<u32> },
    NotSent { id: MessageId, recipients: Vec<u32> },
    Removed { id: MessageId },
    Restored { index: Box<Index> },
}

impl Effect {
    /// The message that it ends.
    pub(super) fn end(&self) -> Option<MessageId> {
        if let Self::Removed { id } = self { Some(*id) } else { None }
    }
}

/// The progress of reclaiming.
#[derive(Debug)]
pub(super) struct Reclaim {
    directory: PathBuf,
    options: Options,
    shared: Arc<Shared>,
    sweep: Option<Sweep>,
    /// Set when a segment could not be read: deleting on is safe, copying is not.
    stopped: bool,
}

/// A segment that is being emptied.
#[derive(Debug)]
struct Sweep {
    segment: u32,
    /// The messages in it that are still to be copied, the next one last.
    remaining: Vec<MessageId>,
    copying: Option<Copying>,
}

/// A message of which some chunks have been copied.
#[derive(Debug)]
struct Copying {
    id: MessageId,
    placed: Vec<Location>,
}

/// Why a step ended early.
enum Fault {
    Log(SpoolError),
    Read(ReadFault),
}

impl From<SpoolError> for Fault {
    fn from(error: SpoolError) -> Self {
        Self::Log(error)
    }
}

impl From<ReadFault> for Fault {
    fn from(fault: ReadFault) -> Self {
        Self::Read(fault)
    }
}

impl Reclaim {
    pub(super) fn new(directory: &Path, options: Options, shared: Arc<Shared>) -> Self {
        Self { directory: directory.to_owned(), options, shared, sweep: None, stopped: false }
    }

    /// Whether there is work that can be done now.
    pub(super) fn pending(&self) -> bool {
        if self.shared.recovering() {
            return false;
        }
        let index = self.shared.index();
        self.sweep.is_some()
            || deletable(&index).is_some()
            || !self.stopped && sweepable(&index, &self.options).is_some()
    }

    /// Does some of the work: deletes the oldest segment if it is dead, else copies a bounded number of bytes. All earlier
    /// effects must have been made; the new ones are added to `effects`.
    pub(super) fn step(&mut self, log: &mut Log, effects: &mut Vec<Effect>) -> Result<(), SpoolError> {
        // What is not read yet may refer to anything.
        if self.shared.recovering() {
            return Ok(());
        }
        let dead = deletable(&self.shared.index());
        if let Some(dead) = dead {
            log.delete(dead)?;
            self.sweep.take_if(|sweep| sweep.segment <= dead);
        }
        if self.sweep.is_none() && !self.stopped {
            self.sweep = self.begin();
        }
        let mut budget = self.options.reclaim_bytes_per_batch;
        while budget > 0 && self.sweep.is_some() {
            let used = self.copy_some(log, effects)?;
            budget = budget.saturating_sub(used);
        }
        Ok(())
    }

    fn begin(&self) -> Option<Sweep> {
        let mut index = self.shared.index();
        let segment = sweepable(&index, &self.options)?;
        let mut remaining = index.in_segment(segment);
        remaining.reverse();
        if remaining.is_empty() {
            tracing::error!(
                segment,
                "a spool segment counted as live has no message in it; please report this"
            );
            index.segments.get_mut(&segment)?.live = 0;
        }
        Some(Sweep { segment, remaining, copying: None })
    }

    /// Copies one chunk or one envelope; ends the sweep when nothing remains. Returns the bytes staged.
    fn copy_some(&mut self, log: &mut Log, effects: &mut Vec<Effect>) -> Result<u64, SpoolError> {
        let Some(sweep) = &mut self.sweep else { return Ok(0) };
        let Some(mut copying) = sweep.copying.take().or_else(|| sweep.remaining.pop().map(Copying::new))
        else {
            self.sweep = None;
            return Ok(0);
        };
        let Some(parts) = self.shared.index().parts(copying.id) else { return Ok(0) };
        match copying.advance(&parts, &self.shared, log) {
            Ok((bytes, None)) => {
                sweep.copying = Some(copying);
                Ok(bytes)
            }
            Ok((bytes, Some(effect))) => {
                effects.push(effect);
                Ok(bytes)
            }
            Err(Fault::Log(error)) => Err(error),
            Err(Fault::Read(ReadFault::Damaged(reason))) => {
                let removal = quarantine_stored(&self.directory, copying.id, &reason, &self.shared)?.record;
                log.room(removal.record_bytes())?;
                log.stage(&removal);
                effects.push(Effect::Removed { id: copying.id });
                Ok(removal.record_bytes())
            }
            Err(Fault::Read(ReadFault::Io { source, path })) => {
                tracing::error!(error = %source, path = %path.display(), "a spool segment cannot be read: its space is not reclaimed");
                self.stopped = true;
                self.sweep = None;
                Ok(0)
            }
        }
    }
}

impl Copying {
    fn new(id: MessageId) -> Self {
        Self { id, placed: Vec::new() }
    }

    /// Copies the next chunk, or after the last one the envelope, whose effect it then returns.
    fn advance(
        &mut self,
        parts: &Parts,
        shared: &Shared,
        log: &mut Log,
    ) -> Result<(u64, Option<Effect>), Fault> {
        let Some(&chunk) = parts.content.get(self.placed.len()) else {
            return self.finish(parts, shared, log);
        };
        let body = segment(shared, chunk)?.read_content(chunk)?;
        let record = Record::content(self.id, self.placed.len() as u32, body);
        log.room(record.record_bytes())?;
        self.placed.push(log.stage(&record));
        Ok((record.record_bytes(), None))
    }

    fn finish(
        &mut self,
        parts: &Parts,
        shared: &Shared,
        log: &mut Log,
    ) -> Result<(u64, Option<Effect>), Fault> {
        let read = |location: Location, kind| segment(shared, location)?.read(location, kind);
        let unknown = |part: &str| ReadFault::Damaged(format!("{part} is not in a known form"));
        let accepted: Option<Accepted> = decode(&read(parts.accepted, Kind::Accepted)?);
        let mut accepted = accepted.ok_or_else(|| unknown("the envelope"))?;
        if let Some(state) = parts.state {
            let latest: Option<State> = decode(&read(state, Kind::State)?);
            accepted.state = latest.ok_or_else(|| unknown("the delivery state"))?.state;
        }
        (accepted.content, accepted.copied) = (self.id, true);
        accepted.sending = shared.index().sending(self.id).to_vec();
        let queued = queued(&accepted.state);
        let record = Record::accepted(&accepted);
        log.room(record.record_bytes())?;
        let (accepted, content) = (log.stage(&record), std::mem::take(&mut self.placed));
        let effect = Effect::Accepted { id: self.id, accepted, content, queued, pins: Vec::new() };
        Ok((record.record_bytes(), Some(effect)))
    }
}

fn segment(shared: &Shared, location: Location) -> Result<Arc<super::segment::Segment>, ReadFault> {
    let gone = || ReadFault::Damaged("a segment is missing".into());
    shared.index().segment(location.segment).ok_or_else(gone)
}

/// The oldest segment, when nothing refers to it and it is not the active one.
fn deletable(index: &Index) -> Option<u32> {
    let (number, usage) = index.segments.first_key_value()?;
    (usage.live == 0 && usage.drafts == 0 && *number != index.active()).then_some(*number)
}

/// The oldest segment, when it is worth copying what is live in it.
fn sweepable(index: &Index, options: &Options) -> Option<u32> {
    let (number, usage) = index.segments.first_key_value()?;
    let (total, live) = (index.total_bytes(), index.live_bytes());
    let wasteful = total > 2 * live + SLACK_SEGMENTS * options.segment_bytes;
    let pressed = total > options.maximum_bytes / 4 * 3
        && total - live > PRESSED_SLACK_SEGMENTS * options.segment_bytes;
    (usage.live > 0 && *number != index.active() && (wasteful || pressed)).then_some(*number)
}

/// Puts a stored message into quarantine; returns the change that then takes it out of the log.
pub(super) fn quarantine_stored(
    directory: &Path,
    id: MessageId,
    reason: &str,
    shared: &Shared,
) -> Result<Change, SpoolError> {
    let parts = shared.index().parts(id).ok_or(SpoolError::Unknown(id))?;
    let remains = Remains { accepted: Some(parts.accepted), state: parts.state, content: parts.content };
    quarantine::keep_message(directory, id, reason, &remains, |number| shared.index().segment(number))?;
    shared.quarantined.store(quarantine::count(directory)?, Ordering::Relaxed);
    tracing::error!(%id, reason, "a damaged message was put into the spool's quarantine directory");
    let recipients = shared.index().queued_of(id).unwrap_or_default();
    Ok(Change::end(id, Fate::Quarantined, recipients))
}
