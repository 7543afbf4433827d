//! Reading a segment from its first record to its last, over damage.
//!
//! Reads ahead while records are small and close, and jumps over large payloads. Called by recovery.

use std::io;

use super::record::{HEADER, Header, MAGIC};
use super::segment::{SEGMENT_HEADER, Segment, read_up_to};

/// What a jump to a far offset reads first; doubled while reading goes on in order.
const FIRST_READ: usize = 8 << 10;
const LARGEST_READ: usize = 1 << 20;
/// How much is searched at once for the next record after damage.
const SEARCH: usize = 64 << 10;

/// What comes next in a segment.
#[derive(Debug)]
pub(super) enum Found {
    /// A record with an intact header, all of it within the segment. Its payload is not verified.
    Record { header: Header, offset: u64 },
    /// Bytes from `from` to before `to` are no record.
    Damage { from: u64, to: u64 },
}

/// A walk over the records of one segment.
pub(super) struct Scanner<'a> {
    segment: &'a Segment,
    length: u64,
    offset: u64,
    start: u64,
    bytes: Vec<u8>,
    ahead: usize,
}

impl<'a> Scanner<'a> {
    /// A walk over the first `length` bytes of `segment`.
    pub(super) fn new(segment: &'a Segment, length: u64) -> Self {
        Self { segment, length, offset: SEGMENT_HEADER, start: 0, bytes: Vec::new(), ahead: FIRST_READ }
    }

    pub(super) fn advance(&mut self) -> io::Result<Option<Found>> {
        let at = self.offset;
        if at >= self.length {
            return Ok(None);
        }
        if let Some(header) = self.header(at)? {
            self.offset = at + header.record_bytes();
            return Ok(Some(Found::Record { header, offset: at }));
        }
        self.offset = self.next_record(at + 1)?;
        Ok(Some(Found::Damage { from: at, to: self.offset }))
    }

    /// The header of a record that starts at `offset`, is no member of a group and ends within the segment.
    fn header(&mut self, offset: u64) -> io::Result<Option<Header>> {
        let salt = self.segment.salt;
        let length = self.length;
        let header = Header::decode(self.view(offset, HEADER)?, salt, offset);
        Ok(header.filter(|header| !header.member && offset + header.record_bytes() <= length))
    }

    /// Where the first record after damage starts, or the end.
    fn next_record(&mut self, from: u64) -> io::Result<u64> {
        let mut at = from;
        loop {
            let view = self.view(at, SEARCH)?;
            let candidates: Vec<u64> = view
                .windows(MAGIC.len())
                .enumerate()
                .filter(|(_, bytes)| *bytes == MAGIC)
                .map(|(place, _)| at + place as u64)
                .collect();
            let searched = view.len();
            for candidate in candidates {
                if self.header(candidate)?.is_some() {
                    return Ok(candidate);
                }
            }
            if searched < SEARCH {
                return Ok(self.length);
            }
            at += (searched - MAGIC.len() + 1) as u64;
        }
    }

    /// `length` bytes from `offset`, fewer where the segment ends.
    pub(super) fn view(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let length = length.min(usize::try_from(self.length.saturating_sub(offset)).unwrap_or(length));
        let end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + length as u64 > end {
            let in_order = offset >= self.start && offset <= end + FIRST_READ as u64;
            self.ahead = if in_order { (self.ahead * 2).min(LARGEST_READ) } else { FIRST_READ };
            let wanted =
                self.ahead.max(length).min(usize::try_from(self.length - offset).unwrap_or(self.ahead));
            self.bytes.resize(wanted, 0);
            let read = read_up_to(&self.segment.file, &mut self.bytes, offset)?;
            self.bytes.truncate(read);
            self.start = offset;
        }
        let from = (offset - self.start) as usize;
        Ok(&self.bytes[from.min(self.bytes.len())..(from + length).min(self.bytes.len())])
    }
}

/// Whether `payload` is what was written after `header`.
pub(super) fn verified(payload: &[u8], header: &Header) -> bool {
    payload.len() == header.length as usize && crc32c::crc32c(payload) == header.payload_checksum
}
