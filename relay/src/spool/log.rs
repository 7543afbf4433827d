//! The end of the log: staging records, writing them, syncing, going on to the next segment.
//!
//! Only the writer thread has it. Every error it returns is final: what a failed write or sync left behind is unknown, so
//! nothing may be acknowledged any more. What is staged is in the index only once the writer has synced it and says so.

use std::fs::{self, File, OpenOptions};
use std::num::NonZeroU32;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::error::{Context, SpoolError};
use super::index::SegmentUse;
use super::ledger::Ledger;
use super::record::{HEADER_BYTES, Header, Kind, Location, Record};
use super::segment::{SEGMENT_HEADER, Segment, file_name, sync_directory};
use super::shared::Shared;
use super::spare::Spare;

/// The staging buffer is given back to this size after a large batch.
const STAGING_KEPT: usize = 1 << 20;
/// The next segment is prepared once this part of the active one is used.
const PREPARE_AT: u64 = 4;

/// The active segment and what is about to be written to it.
#[derive(Debug)]
pub(super) struct Log {
    directory: PathBuf,
    segment_bytes: u64,
    shared: Arc<Shared>,
    active: Arc<Segment>,
    written: u64,
    staged: Vec<u8>,
    unsynced: bool,
    total: u64,
    /// The account after what is staged.
    ledger: Ledger,
    /// Whether it is that of all segments, not of this run alone.
    restored: bool,
    /// Where the active segment's beginning ends.
    begun: u64,
    prepared: bool,
    spare: Spare,
}

impl Log {
    /// Begins segment `number` and is ready to append to it, behind segments of so many bytes; `after_crash` says that the last of
    /// them may be torn. The account begins at zero, see [`restore`](Self::restore).
    pub(super) fn begin(
        directory: &Path,
        segment_bytes: u64,
        number: u32,
        (earlier_bytes, after_crash): (u64, bool),
        shared: Arc<Shared>,
    ) -> Result<Self, SpoolError> {
        let mut spare = Spare::find(directory, segment_bytes).context("examine the spare in", directory)?;
        let (file, prepared) = next_file(directory, number, &mut spare)?;
        let active = Arc::new(Segment::begin(directory, number, rand::random(), after_crash, file)?);
        let total = earlier_bytes + SEGMENT_HEADER;
        let mut log = Self {
            directory: directory.to_owned(),
            segment_bytes,
            shared,
            active,
            written: SEGMENT_HEADER,
            staged: Vec::new(),
            unsynced: false,
            total,
            ledger: Ledger::default(),
            restored: false,
            begun: SEGMENT_HEADER,
            prepared,
            spare,
        };
        log.publish()?;
        log.spare.reserve();
        Ok(log)
    }

    /// Makes the new active segment durable and known; the account, when it is whole, is the first thing staged for it.
    fn publish(&mut self) -> Result<(), SpoolError> {
        self.active.file.sync_all().context("sync", &self.active.path)?;
        sync_directory(&self.directory)?;
        let usage = SegmentUse { segment: self.active.clone(), written: self.written, live: 0, drafts: 0 };
        self.shared.index().segments.insert(self.active.number, usage);
        if self.restored {
            self.stage(&Record::ledger(&self.ledger));
        }
        self.begun = self.end();
        Ok(())
    }

    /// Sees to it that the next `bytes` staged lie in one segment.
    pub(super) fn room(&mut self, bytes: u64) -> Result<(), SpoolError> {
        let end = self.end();
        if end > self.begun && end + bytes > self.segment_bytes {
            self.rotate()?;
        }
        Ok(())
    }

    /// Adds the account that earlier runs left to that of this one, and stages it: from here on the log needs theirs no more.
    pub(super) fn restore(&mut self, earlier: Ledger) {
        self.ledger += earlier;
        self.restored = true;
        self.stage(&Record::ledger(&self.ledger));
    }

    /// The segments' total is known better now: torn ends are cut off.
    pub(super) fn measure(&mut self) {
        self.total = self.shared.index().total_bytes();
    }

    /// The account after all that is staged.
    pub(super) fn ledger(&self) -> Ledger {
        self.ledger
    }

    /// Bytes of all segments, what is staged included.
    pub(super) fn total_bytes(&self) -> u64 {
        self.total + self.staged.len() as u64
    }

    /// Deletes the oldest segment, which nothing refers to any more.
    pub(super) fn delete(&mut self, number: u32) -> Result<(), SpoolError> {
        let path = self.directory.join(file_name(number));
        fs::remove_file(&path).context("delete", &path)?;
        sync_directory(&self.directory)?;
        let deleted = self.shared.index().segments.remove(&number);
        self.total -= deleted.map_or(0, |usage| usage.written);
        self.spare.reserve();
        Ok(())
    }

    /// Bytes staged and not yet written.
    pub(super) fn staged_bytes(&self) -> u64 {
        self.staged.len() as u64
    }

    fn end(&self) -> u64 {
        self.written + self.staged.len() as u64
    }

    /// Stages a record; it is at the returned place once [`write`](Self::write) has succeeded.
    pub(super) fn stage(&mut self, record: &Record) -> Location {
        self.stage_as(record, false)
    }

    fn stage_as(&mut self, record: &Record, member: bool) -> Location {
        let offset = self.end();
        let length = record.encode(member, self.active.salt, offset, &mut self.staged);
        self.unsynced |= record.synced;
        self.ledger += record.posting;
        self.shared.records.fetch_add(1, Ordering::Relaxed);
        let offset = u32::try_from(offset).ok().and_then(NonZeroU32::new);
        Location {
            segment: self.active.number,
            offset: offset.expect("within a segment, after its header"),
            length,
        }
    }

    /// Stages records that come into being together or not at all; their places are in their order.
    ///
    /// The group's header carries the checksum over all members, so that recovery sees a whole group or none.
    pub(super) fn stage_group(&mut self, records: &[&Record]) -> Vec<Location> {
        let (start, offset) = (self.staged.len(), self.end());
        self.staged.resize(start + HEADER_BYTES as usize, 0);
        let places = records.iter().map(|record| self.stage_as(record, true)).collect();
        let members = &self.staged[start + HEADER_BYTES as usize..];
        let header = Header {
            kind: Kind::Group,
            member: false,
            id: records.first().map_or(crate::message::MessageId(0), |record| record.id),
            length: u32::try_from(members.len()).expect("callers keep groups within MAXIMUM_PAYLOAD"),
            payload_checksum: crc32c::crc32c(members),
        };
        let header = header.encode(self.active.salt, offset);
        self.staged[start..start + header.len()].copy_from_slice(&header);
        places
    }

    /// Hands what is staged to the system. Not durable yet.
    pub(super) fn write(&mut self) -> Result<(), SpoolError> {
        if self.staged.is_empty() {
            return Ok(());
        }
        self.active.file.write_all_at(&self.staged, self.written).context("write", &self.active.path)?;
        self.total += self.staged.len() as u64;
        self.written = self.end();
        self.staged.clear();
        self.staged.shrink_to(STAGING_KEPT);
        if let Some(usage) = self.shared.index().segments.get_mut(&self.active.number) {
            usage.written = self.written;
        }
        if self.written > self.segment_bytes / PREPARE_AT {
            self.spare.prepare();
        }
        Ok(())
    }

    /// Brings what is written to stable storage, when any of it needs to be.
    pub(super) fn sync(&mut self) -> Result<(), SpoolError> {
        if !std::mem::take(&mut self.unsynced) {
            return Ok(());
        }
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        self.active.file.sync_data().context("sync", &self.active.path)
    }

    /// Completes the active segment and begins the next. A segment is on stable storage in full before the next one is
    /// used, so only the last one can be torn.
    fn rotate(&mut self) -> Result<(), SpoolError> {
        self.write()?;
        self.complete()?;
        let number = self.active.number + 1;
        let (file, prepared) = next_file(&self.directory, number, &mut self.spare)?;
        self.prepared = prepared;
        self.active = Arc::new(Segment::begin(&self.directory, number, rand::random(), false, file)?);
        self.written = SEGMENT_HEADER;
        self.total += SEGMENT_HEADER;
        self.publish()?;
        self.spare.reserve();
        Ok(())
    }

    /// Cuts off what was prepared and not used, and syncs all of the active segment.
    fn complete(&mut self) -> Result<(), SpoolError> {
        if self.prepared {
            self.active.file.set_len(self.written).context("truncate", &self.active.path)?;
        }
        self.unsynced = false;
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        self.active.file.sync_all().context("sync", &self.active.path)
    }

    /// Marks the log as closed in order, which tells recovery that nothing of it is torn.
    pub(super) fn close(&mut self) -> Result<(), SpoolError> {
        self.stage(&Record::closed());
        self.write()?;
        self.complete()
    }
}

/// The file of the next segment, and whether it is longer than what is written to it: the spare, or else an empty one.
fn next_file(directory: &Path, number: u32, spare: &mut Spare) -> Result<(File, bool), SpoolError> {
    let path = directory.join(file_name(number));
    match spare.take() {
        Some((spare_path, file)) => {
            fs::rename(&spare_path, &path).context("rename to", &path)?;
            Ok((file, true))
        }
        None => {
            let options = OpenOptions::new().read(true).write(true).create_new(true).clone();
            Ok((options.open(&path).context("create", &path)?, false))
        }
    }
}
