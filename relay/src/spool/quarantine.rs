//! Where damaged mail goes: `quarantine/<id>/` with what can be read of a message, and `quarantine/segment-…-at-…` with the
//! raw bytes of a damaged stretch that belongs to no known message. For people to look at; the relay only counts it.
//!
//! Called by recovery, by reclaiming and when a reader has reported damage.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{Context, SpoolError};
use super::record::{HEADER_BYTES, Location, SEQUENCE};
use super::segment::{Segment, file_name, read_up_to, sync_directory};
use crate::message::MessageId;

const NAME: &str = "quarantine";
/// A damaged stretch is copied in pieces of this size.
const PIECE: usize = 1 << 20;

/// What is known of the places of a damaged message's parts.
#[derive(Clone, Debug, Default)]
pub(super) struct Remains {
    pub(super) accepted: Option<Location>,
    pub(super) state: Option<Location>,
    pub(super) content: Vec<Location>,
}

/// Keeps what can be read of message `id`; durable when it returns. Files: `accepted.json` (envelope and first state),
/// `state.json`, `content`, `reason`.
pub(super) fn keep_message(
    directory: &Path,
    id: MessageId,
    reason: &str,
    remains: &Remains,
    segment: impl Fn(u32) -> Option<Arc<Segment>>,
) -> Result<(), SpoolError> {
    let place = subdirectory(&subdirectory(directory, NAME)?, &id.to_string())?;
    let raw = |location: &Location, skip: usize| {
        segment(location.segment).map_or_else(Vec::new, |segment| readable(&segment, *location, skip))
    };
    write(&place.join("reason"), [format!("{reason}\n").into_bytes()])?;
    write(&place.join("accepted.json"), remains.accepted.iter().map(|location| raw(location, 0)))?;
    write(&place.join("state.json"), remains.state.iter().map(|location| raw(location, 0)))?;
    write(&place.join("content"), remains.content.iter().map(|location| raw(location, SEQUENCE)))?;
    sync_directory(&place)
}

/// Keeps the bytes of a stretch of a segment; false when that was done before.
pub(super) fn keep_stretch(
    directory: &Path,
    segment: &Segment,
    from: u64,
    to: u64,
) -> Result<bool, SpoolError> {
    let name = format!("{}-at-{from}", file_name(segment.number).trim_end_matches(".log"));
    let directory = subdirectory(directory, NAME)?;
    let path = directory.join(name);
    if path.exists() {
        return Ok(false);
    }
    let pieces = (from..to).step_by(PIECE).map(|at| {
        let mut bytes = vec![0; PIECE.min((to - at) as usize)];
        let read = read_up_to(&segment.file, &mut bytes, at).unwrap_or(0);
        bytes.truncate(read);
        bytes
    });
    write(&path, pieces)?;
    sync_directory(&directory).map(|()| true)
}

/// Moves a segment file whose header is lost into quarantine, as it is.
pub(super) fn keep_segment(directory: &Path, path: &Path) -> Result<(), SpoolError> {
    let quarantine = subdirectory(directory, NAME)?;
    let target = quarantine.join(path.file_name().unwrap_or_default());
    fs::rename(path, &target).context("move to", &target)?;
    sync_directory(&quarantine)?;
    sync_directory(directory)
}

/// How many messages and stretches are in quarantine.
pub(super) fn count(directory: &Path) -> Result<u64, SpoolError> {
    let path = directory.join(NAME);
    match fs::read_dir(&path) {
        Ok(entries) => Ok(entries.count() as u64),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).context("list", &path),
    }
}

fn subdirectory(directory: &Path, name: &str) -> Result<PathBuf, SpoolError> {
    let path = directory.join(name);
    match fs::create_dir(&path) {
        Ok(()) => sync_directory(directory)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).context("create", &path),
    }
    Ok(path)
}

/// The payload at `location` from its byte `skip` on, unverified, as far as it can be read.
fn readable(segment: &Segment, location: Location, skip: usize) -> Vec<u8> {
    let mut payload = vec![0; location.length as usize];
    let read = read_up_to(&segment.file, &mut payload, location.offset() + HEADER_BYTES).unwrap_or(0);
    payload.truncate(read);
    payload.split_off(skip.min(read))
}

fn write(path: &Path, pieces: impl IntoIterator<Item = Vec<u8>>) -> Result<(), SpoolError> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path);
    let mut file = file.context("create", path)?;
    pieces.into_iter().try_for_each(|piece| file.write_all(&piece)).context("write", path)?;
    file.sync_all().context("sync", path)
}
