//! What there is to recover: the segments of earlier runs, opened and not yet read. Quick, however much mail there is.
//!
//! Called by `Spool::open`, before the first segment of this run is begun; `recovery` reads what is found here.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::error::{Context, SpoolError};
use super::quarantine;
use super::record::{HEADER, HEADER_BYTES, Header, Kind};
use super::recovery::{Quarantined, Subject};
use super::segment::{self, Opened, SEGMENT_HEADER, Segment};

/// The end of data is searched for in pieces of this size.
const PIECE: usize = 1 << 20;
const PAGE: usize = 4096;
const ZEROS: [u8; PAGE] = [0; PAGE];

/// The segments of earlier runs, in order.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) segments: Vec<Found>,
    /// What is missing as a whole.
    pub(super) quarantined: Vec<Quarantined>,
}

/// A segment that was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) segment: Arc<Segment>,
    /// The file's length.
    pub(super) bytes: u64,
    /// Whether the process that wrote it may have died while it was the active one: its last write may be there in part.
    pub(super) open: bool,
}

impl Survey {
    /// Bytes to be read.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|found| found.bytes).sum()
    }

    /// Whether the spool had been closed in order.
    pub(super) fn clean(&self) -> bool {
        self.segments.last().is_none_or(|last| !last.open)
    }

    /// The number of the segment that this run begins with.
    pub(super) fn next(&self) -> Result<u32, SpoolError> {
        let used_up = SpoolError::Inconsistent("the spool has used up its segment numbers");
        self.segments.last().map_or(0, |last| last.segment.number).checked_add(1).ok_or(used_up)
    }
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

/// Opens all segments and puts files without an intact header aside.
pub(super) fn survey(directory: &Path) -> Result<Survey, SpoolError> {
    let numbers = segment::list(directory)?;
    let mut survey = Survey::default();
    for (place, &number) in numbers.iter().enumerate() {
        report_gap(place.checked_sub(1).map(|before| numbers[before]), number, &mut survey.quarantined);
        let path = directory.join(segment::file_name(number));
        let segment = match Segment::open(directory, number)? {
            Opened::Segment(segment) => Arc::new(segment),
            Opened::Headless => {
                let last = place + 1 == numbers.len();
                survey.quarantined.extend(set_aside(directory, &path, number, last)?);
                continue;
            }
        };
        // Whether a segment was complete when the next one was begun is in the header of that one.
        if let Some(before) = survey.segments.last_mut() {
            before.open = segment.after_crash;
        }
        let bytes = segment.file.metadata().context("examine", &path)?.len();
        survey.segments.push(Found { segment, bytes, open: true });
    }
    if let Some(last) = survey.segments.last_mut() {
        last.open = !closed(&last.segment, last.bytes).context("read", &last.segment.path)?;
    }
    for found in survey.segments.iter_mut().filter(|found| found.open) {
        found.bytes = trim(&found.segment, found.bytes)?;
    }
    Ok(survey)
}

/// Cuts off what was prepared and not used: on a full volume that is room to begin the next segment. Returns the length left.
fn trim(segment: &Segment, length: u64) -> Result<u64, SpoolError> {
    let data_end = data_end(&segment.file, length).context("read", &segment.path)?.max(SEGMENT_HEADER);
    // A record may end in zeros, though never in a header's length of them unless it is a lone chunk of a draft.
    let left = length.min(data_end + HEADER_BYTES);
    segment.file.set_len(left).context("truncate", &segment.path)?;
    Ok(left)
}

fn report_gap(before: Option<u32>, number: u32, quarantined: &mut Vec<Quarantined>) {
    for missing in before.map_or(number, |before| before + 1)..number {
        quarantined.push(Quarantined {
            subject: Subject::Stretch { segment: missing, offset: 0, length: 0 },
            reason: format!("{} is missing", segment::file_name(missing)),
        });
    }
}

/// A file without a header: one that a crash kept from being begun is deleted, any other goes into quarantine as it is.
fn set_aside(
    directory: &Path,
    path: &Path,
    number: u32,
    last: bool,
) -> Result<Option<Quarantined>, SpoolError> {
    let file = File::open(path).context("open", path)?;
    let length = file.metadata().context("examine", path)?.len();
    if last && data_end(&file, length).context("read", path)? <= SEGMENT_HEADER {
        fs::remove_file(path).context("delete", path)?;
        segment::sync_directory(directory)?;
        return Ok(None);
    }
    quarantine::keep_segment(directory, path)?;
    Ok(Some(Quarantined {
        subject: Subject::Stretch { segment: number, offset: 0, length },
        reason: format!("{} has no intact header", segment::file_name(number)),
    }))
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
pub(super) fn data_end(file: &File, length: u64) -> std::io::Result<u64> {
    let mut end = length;
    let mut bytes = vec![0; PIECE];
    while end > 0 {
        let start = end.saturating_sub(PIECE as u64);
        let piece = &mut bytes[..(end - start) as usize];
        file.read_exact_at(piece, start)?;
        // Whole pages first, which is a comparison of memory: most of it is zeros.
        if let Some(page) = piece.chunks(PAGE).rposition(|page| page != &ZEROS[..page.len()]) {
            let before = page * PAGE;
            let last = piece[before..].iter().take(PAGE).rposition(|byte| *byte != 0).unwrap_or_default();
            return Ok(start + (before + last) as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_data_is_found_wherever_it_is() {
        let file = tempfile::tempfile().unwrap();
        let length = 2 * PIECE as u64 + 5_000;
        file.set_len(length).unwrap();
        assert_eq!(data_end(&file, length).unwrap(), 0);
        for end in [1, 4_096, 4_097, PIECE as u64, PIECE as u64 + 1, 2 * PIECE as u64 + 4_100, length] {
            file.write_all_at(&[1], end - 1).unwrap();
            assert_eq!(data_end(&file, length).unwrap(), end);
        }
    }
}
