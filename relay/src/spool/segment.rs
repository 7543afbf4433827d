//! One segment file: its name, its header, reading records from it.
//!
//! The header is written twice, so that one damaged byte in it does not cost the segment. Writing records is in `log`.
//!
//! | bytes | field of a header, little endian |
//! |---|---|
//! | 8 | magic |
//! | 4 | format version |
//! | 4 | number |
//! | 4 | flags: 1, the segment before may be torn; always 0 in version 1 |
//! | 8 | salt |
//! | 4 | CRC-32C of the fields above |

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::error::{Context, SpoolError};
use super::record::{HEADER, Header, Kind, Location, SEQUENCE};

/// Where a segment's records begin.
pub(super) const SEGMENT_HEADER: u64 = 2 * COPY as u64;
const COPY: usize = 32;
const MAGIC: [u8; 8] = *b"POSTROAD";
const VERSION: u32 = 2;
/// The first version that is still read.
const OLDEST_VERSION: u32 = 1;
const AFTER_CRASH: u32 = 1;

/// An open segment. Readable as long as it is held, also after its file was deleted.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u32,
    pub(super) salt: u64,
    /// Whether the segment before it had not been completed when this one was begun: its writer had died.
    pub(super) after_crash: bool,
    pub(super) path: PathBuf,
    pub(super) file: File,
}

/// Why a record could not be read.
#[derive(Debug)]
pub(super) enum ReadFault {
    /// The system refused.
    Io { source: io::Error, path: PathBuf },
    /// What is there is not what was written.
    Damaged(String),
}

/// What a file with a segment's name holds.
pub(super) enum Opened {
    Segment(Segment),
    /// Neither copy of its header is intact.
    Headless,
}

impl Segment {
    /// Writes the header into `file` and makes it the segment of this number; nothing is synced.
    pub(super) fn begin(
        directory: &Path,
        number: u32,
        salt: u64,
        after_crash: bool,
        file: File,
    ) -> Result<Self, SpoolError> {
        let path = directory.join(file_name(number));
        let copy = encode_header(number, salt, if after_crash { AFTER_CRASH } else { 0 });
        file.write_all_at(&[copy, copy].concat(), 0).context("write", &path)?;
        Ok(Self { number, salt, after_crash, path, file })
    }

    /// Opens the segment of this number, for reading and for cutting off a torn tail.
    pub(super) fn open(directory: &Path, number: u32) -> Result<Opened, SpoolError> {
        let path = directory.join(file_name(number));
        let file = OpenOptions::new().read(true).write(true).open(&path).context("open", &path)?;
        let mut bytes = [0; SEGMENT_HEADER as usize];
        let length = read_up_to(&file, &mut bytes, 0).context("read", &path)?;
        let copies = bytes[..length].chunks_exact(COPY);
        let Some((version, flags, salt)) = copies.filter_map(|copy| decode_header(copy, number)).next()
        else {
            return Ok(Opened::Headless);
        };
        if !(OLDEST_VERSION..=VERSION).contains(&version) {
            return Err(SpoolError::Version { path, version });
        }
        let after_crash = flags & AFTER_CRASH != 0;
        Ok(Opened::Segment(Self { number, salt, after_crash, path, file }))
    }

    /// The payload of the record of this kind at `location`, verified.
    pub(super) fn read(&self, location: Location, kind: Kind) -> Result<Bytes, ReadFault> {
        let mut record = vec![0; HEADER + location.length as usize];
        self.file.read_exact_at(&mut record, location.offset()).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ReadFault::Damaged(self.place("cut short", location.offset())),
            _ => ReadFault::Io { source: error, path: self.path.clone() },
        })?;
        let header = Header::decode(&record, self.salt, location.offset())
            .filter(|header| header.kind == kind && header.length == location.length)
            .ok_or_else(|| ReadFault::Damaged(self.place("damaged record header", location.offset())))?;
        let payload = Bytes::from(record).slice(HEADER..);
        if crc32c::crc32c(&payload) != header.payload_checksum {
            return Err(ReadFault::Damaged(self.place("checksum differs", location.offset())));
        }
        Ok(payload)
    }

    /// The content in the `Content` record at `location`, verified.
    pub(super) fn read_content(&self, location: Location) -> Result<Bytes, ReadFault> {
        let payload = self.read(location, Kind::Content)?;
        if payload.len() < SEQUENCE {
            return Err(ReadFault::Damaged(self.place("content without sequence number", location.offset())));
        }
        Ok(payload.slice(SEQUENCE..))
    }

    /// A finding with its place, for people.
    pub(super) fn place(&self, finding: &str, offset: u64) -> String {
        format!("{finding} at byte {offset} of {}", file_name(self.number))
    }
}

fn encode_header(number: u32, salt: u64, flags: u32) -> [u8; COPY] {
    let mut bytes = [0; COPY];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&number.to_le_bytes());
    bytes[16..20].copy_from_slice(&flags.to_le_bytes());
    bytes[20..28].copy_from_slice(&salt.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..28]);
    bytes[28..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Format version, flags and salt, when this is an intact header of this segment.
fn decode_header(bytes: &[u8], number: u32) -> Option<(u32, u32, u64)> {
    let long = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes);
    let word = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes);
    let intact =
        bytes.starts_with(&MAGIC) && word(28)? == crc32c::crc32c(&bytes[..28]) && word(12)? == number;
    if intact { Some((word(8)?, word(16)?, long(20)?)) } else { None }
}

/// Fills `buffer` from `offset` as far as the file goes; returns how much that was.
pub(super) fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The name of the file of segment `number`.
pub(super) fn file_name(number: u32) -> String {
    format!("segment-{number:016x}.log")
}

/// The numbers of the segments in `directory`, in order. Other files are left alone.
pub(super) fn list(directory: &Path) -> Result<Vec<u32>, SpoolError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory).context("list", directory)? {
        let name = entry.context("list", directory)?.file_name();
        let number = name.to_str().and_then(|name| {
            let digits = name.strip_prefix("segment-")?.strip_suffix(".log")?;
            u32::from_str_radix(digits, 16).ok().filter(|number| file_name(*number) == name)
        });
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes created, renamed and deleted names in `directory` durable.
pub(super) fn sync_directory(directory: &Path) -> Result<(), SpoolError> {
    File::open(directory).and_then(|directory| directory.sync_all()).context("sync", directory)
}
