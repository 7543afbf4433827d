//! Opening a spool directory: lock, replay of all segments, quarantine of what is damaged.
//!
//! Header checksums and the payload checksums of everything but content are verified in all segments, those of content in a
//! segment that may be torn (elsewhere on every read). A torn end is cut off; it holds nothing that was acknowledged.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::error::{Context, SpoolError};
use super::ledger::Ledger;
use super::quarantine;
use super::record::{HEADER, HEADER_BYTES, Header, Kind};
use super::replay::{Replay, Tail};
use super::segment::{self, Opened, SEGMENT_HEADER, Segment};
use super::spare::Spare;
use crate::message::{MessageId, Timestamp};

/// The end of data is searched for in pieces of this size.
const PIECE: usize = 1 << 20;

/// What [`Spool::open`](super::Spool::open) found.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// The messages stored, in the order of their ids, which is that of acceptance.
    pub messages: Vec<Recovered>,
    /// What could not be recovered and was put into the `quarantine` directory; each is reported by one open only.
    pub quarantined: Vec<Quarantined>,
    /// Bytes cut off the last segment: the last write of a process that died during it.
    pub torn_bytes: u64,
    /// Segment files read.
    pub segments: usize,
    /// Whether the spool had been closed in order.
    pub clean: bool,
}

/// A message found in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Its name.
    pub id: MessageId,
    /// When its next attempt is due.
    pub due_at: Timestamp,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// The identity rule that let its client in.
    pub identity: Option<Arc<str>>,
}

/// Something damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// What it is.
    pub subject: Subject,
    /// What is wrong with it, and where; without content or mailboxes.
    pub reason: String,
}

/// What is damaged: a message, or bytes of which that cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A message whose envelope, content or latest state is damaged.
    Message(MessageId),
    /// A stretch of a segment: a message accepted, changed or removed by it stands as it did before.
    Stretch {
        /// The segment's number.
        segment: u32,
        /// Where the stretch begins, in bytes.
        offset: u64,
        /// Its length in bytes; zero for a segment that is missing.
        length: u64,
    },
}

/// Takes the directory's lock, held as long as the file is open.
pub(super) fn lock(directory: &Path) -> Result<File, SpoolError> {
    let path = directory.join("lock");
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).open(&path).context("open", &path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SpoolError::Locked(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(error).context("lock", &path),
    }
}

/// Reads all segments. Returns the replay, the report, the damaged messages still to be marked as removed, and the number
/// of the next segment.
pub(super) fn recover(directory: &Path) -> Result<(Replay, Recovery, Vec<MessageId>, u32), SpoolError> {
    Spare::discard(directory).context("delete the prepared segment in", directory)?;
    let numbers = segment::list(directory)?;
    let mut replay = Replay::default();
    let mut recovery = Recovery { segments: numbers.len(), clean: true, ..Recovery::default() };
    for (place, &number) in numbers.iter().enumerate() {
        report_gap(place.checked_sub(1).map(|before| numbers[before]), number, &mut recovery);
        read_segment(directory, number, place + 1 == numbers.len(), &mut replay, &mut recovery)?;
    }
    let damaged = quarantine_damaged(directory, &mut replay, &mut recovery)?;
    settle_account(&mut replay, &recovery);
    recovery.messages = messages(&mut replay);
    let next = replay
        .index
        .active()
        .checked_add(1)
        .ok_or(SpoolError::Inconsistent("the spool has used up its segment numbers"))?;
    Ok((replay, recovery, damaged, next))
}

fn report_gap(before: Option<u32>, number: u32, recovery: &mut Recovery) {
    for missing in before.map_or(number, |before| before + 1)..number {
        recovery.quarantined.push(Quarantined {
            subject: Subject::Stretch { segment: missing, offset: 0, length: 0 },
            reason: format!("{} is missing", segment::file_name(missing)),
        });
    }
}

fn read_segment(
    directory: &Path,
    number: u32,
    last: bool,
    replay: &mut Replay,
    recovery: &mut Recovery,
) -> Result<(), SpoolError> {
    let path = directory.join(segment::file_name(number));
    let segment = match Segment::open(directory, number)? {
        Opened::Segment(segment) => Arc::new(segment),
        Opened::Headless => return set_aside(directory, &path, number, last, recovery),
    };
    let length = segment.file.metadata().context("examine", &path)?.len();
    let complete = !last || closed(&segment, length).context("read", &path)?;
    recovery.clean &= complete;
    let (tail, limit) = if complete {
        (Tail::Complete, length)
    } else {
        let data_end = data_end(&segment.file, length).context("read", &path)?.max(SEGMENT_HEADER);
        // A record may end in zeros, though never in a header's length of them unless it is a lone chunk of a draft.
        (Tail::Open { data_end }, length.min(data_end + HEADER_BYTES))
    };
    let end = replay.segment(segment.clone(), limit, tail).context("read", &path)?;
    if !complete {
        if let Tail::Open { data_end } = tail {
            recovery.torn_bytes += data_end.saturating_sub(end);
        }
        // What the dead process wrote and did not sync is about to be relied upon.
        segment.file.set_len(end).and_then(|()| segment.file.sync_all()).context("truncate", &path)?;
    }
    Ok(())
}

/// A file without a header: one that a crash kept from being begun is deleted, any other goes into quarantine as it is.
fn set_aside(
    directory: &Path,
    path: &Path,
    number: u32,
    last: bool,
    recovery: &mut Recovery,
) -> Result<(), SpoolError> {
    let file = File::open(path).context("open", path)?;
    let length = file.metadata().context("examine", path)?.len();
    if last && data_end(&file, length).context("read", path)? <= SEGMENT_HEADER {
        recovery.clean = false;
        fs::remove_file(path).context("delete", path)?;
        return segment::sync_directory(directory);
    }
    quarantine::keep_segment(directory, path)?;
    recovery.quarantined.push(Quarantined {
        subject: Subject::Stretch { segment: number, offset: 0, length },
        reason: format!("{} has no intact header", segment::file_name(number)),
    });
    Ok(())
}

/// Whether the segment ends with the mark of an orderly close.
fn closed(segment: &Segment, length: u64) -> std::io::Result<bool> {
    let Some(offset) = length.checked_sub(HEADER_BYTES).filter(|offset| *offset >= SEGMENT_HEADER) else {
        return Ok(false);
    };
    let mut bytes = [0; HEADER];
    segment.file.read_exact_at(&mut bytes, offset)?;
    Ok(Header::decode(&bytes, segment.salt, offset).is_some_and(|header| header.kind == Kind::Closed))
}

/// Where the last byte that is not zero ends.
fn data_end(file: &File, length: u64) -> std::io::Result<u64> {
    let mut end = length;
    let mut bytes = vec![0; PIECE];
    while end > 0 {
        let start = end.saturating_sub(PIECE as u64);
        let piece = &mut bytes[..(end - start) as usize];
        file.read_exact_at(piece, start)?;
        if let Some(last) = piece.iter().rposition(|byte| *byte != 0) {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Puts what is damaged into quarantine; returns the messages, which the log must then call removed.
fn quarantine_damaged(
    directory: &Path,
    replay: &mut Replay,
    recovery: &mut Recovery,
) -> Result<Vec<MessageId>, SpoolError> {
    let damaged = replay.take_damaged();
    for (id, damage) in &damaged {
        let find = |number| replay.index.segment(number);
        quarantine::keep_message(directory, *id, &damage.reason, &damage.remains, find)?;
        let subject = Subject::Message(*id);
        recovery.quarantined.push(Quarantined { subject, reason: damage.reason.clone() });
    }
    for stretch in &replay.stretches {
        let Some(segment) = replay.index.segment(stretch.segment) else { continue };
        if quarantine::keep_stretch(directory, &segment, stretch.from, stretch.to)? {
            let length = stretch.to - stretch.from;
            recovery.quarantined.push(Quarantined {
                subject: Subject::Stretch { segment: stretch.segment, offset: stretch.from, length },
                reason: segment.place("damaged records", stretch.from),
            });
        }
    }
    Ok(damaged.into_iter().map(|(id, _)| id).collect())
}

/// Lets the account agree with what was found, as far as damage explains that it does not. An earlier format had no account: it
/// begins with what is queued.
fn settle_account(replay: &mut Replay, recovery: &Recovery) {
    let queued = replay.index.queued();
    let ledger = &mut replay.index.ledger;
    if !replay.accounted {
        *ledger = Ledger::accepted(queued);
    }
    if replay.doubtful || !replay.stretches.is_empty() || !recovery.quarantined.is_empty() {
        ledger.reconcile(queued);
    }
    if ledger.accepted != ledger.fates.total() + queued {
        tracing::error!(
            ?ledger,
            queued,
            "the spool's account of recipients does not balance; please report this"
        );
    }
}

fn messages(replay: &mut Replay) -> Vec<Recovered> {
    let recovered = |(id, summary): (MessageId, super::replay::Summary)| Recovered {
        id,
        due_at: summary.due_at,
        accepted_at: summary.accepted_at,
        identity: summary.identity,
    };
    let mut messages: Vec<_> = replay.summaries.drain().map(recovered).collect();
    messages.sort_unstable_by_key(|message| message.id);
    messages
}
