//! Reading what is stored.
//!
//! A read blocks its thread, and whether it waits for the disk cannot be told beforehand. What was written to one of the two
//! newest segments and is small is read at once, as it is nearly always in the page cache still; everything else is read on
//! the runtime's blocking threads. Segments are held open while they are read, so that reclaiming does not disturb a reader.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::error::SpoolError;
use super::record::{Accepted, Kind, Location, State, decode};
use super::segment::{ReadFault, Segment};
use super::shared::Shared;
use crate::message::{DeliveryState, Envelope, MessageId};

/// A read of more bytes than this never blocks the calling thread.
const DIRECT_BYTES: u64 = 64 << 10;
/// How many of the newest segments are taken to be in the page cache.
const CACHED_SEGMENTS: u32 = 2;

/// A stored message without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The envelope as it was accepted.
    pub envelope: Envelope,
    /// How its delivery stands.
    pub state: DeliveryState,
}

/// The content of one stored message, in chunks. It stays readable when the message is removed meanwhile.
#[derive(Debug)]
pub struct ContentReader {
    id: MessageId,
    chunks: VecDeque<Place>,
    size: u64,
}

/// A record that can be read whatever becomes of the index.
#[derive(Clone, Debug)]
struct Place {
    segment: Arc<Segment>,
    location: Location,
    direct: bool,
}

impl Place {
    async fn read<T, F>(self, read: F) -> Result<T, ReadFault>
    where
        T: Send + 'static,
        F: FnOnce(&Segment, Location) -> Result<T, ReadFault> + Send + 'static,
    {
        if self.direct {
            return read(&self.segment, self.location);
        }
        let path = self.segment.path.clone();
        let reading = tokio::task::spawn_blocking(move || read(&self.segment, self.location));
        reading
            .await
            .unwrap_or_else(|error| Err(ReadFault::Io { source: std::io::Error::other(error), path }))
    }
}

/// Finds the records of a message: envelope, state if it is not with the envelope, content.
fn places(shared: &Shared, id: MessageId) -> Result<(Place, Option<Place>, VecDeque<Place>), SpoolError> {
    let index = shared.index();
    let parts = index.parts(id).ok_or(SpoolError::Unknown(id))?;
    let active = index.active();
    let place = |location: Location| {
        let segment = index
            .segment(location.segment)
            .ok_or_else(|| SpoolError::Damaged { id, reason: "a segment is missing".into() })?;
        let direct = location.record_bytes() <= DIRECT_BYTES && active - location.segment < CACHED_SEGMENTS;
        Ok(Place { segment, location, direct })
    };
    let content = parts.content.iter().map(|location| place(*location)).collect::<Result<_, SpoolError>>()?;
    Ok((place(parts.accepted)?, parts.state.map(place).transpose()?, content))
}

pub(super) async fn load(shared: &Shared, id: MessageId) -> Result<Stored, SpoolError> {
    let (accepted, state, _) = places(shared, id)?;
    let payload = accepted.read(|segment, location| segment.read(location, Kind::Accepted)).await;
    let payload = payload.map_err(|fault| error(id, fault))?;
    let unknown = |part: &str| SpoolError::Damaged { id, reason: format!("{part} is not in a known form") };
    let accepted: Accepted = decode(&payload).ok_or_else(|| unknown("the envelope"))?;
    let state = match state {
        None => accepted.state,
        Some(place) => {
            let payload = place.read(|segment, location| segment.read(location, Kind::State)).await;
            let payload = payload.map_err(|fault| error(id, fault))?;
            let latest: Option<State> = decode(&payload);
            latest.ok_or_else(|| unknown("the delivery state"))?.state
        }
    };
    Ok(Stored { envelope: accepted.envelope, state })
}

fn error(id: MessageId, fault: ReadFault) -> SpoolError {
    match fault {
        ReadFault::Damaged(reason) => SpoolError::Damaged { id, reason },
        ReadFault::Io { source, path } => SpoolError::Io { action: "read", path, source },
    }
}

impl ContentReader {
    pub(super) fn open(shared: &Shared, id: MessageId) -> Result<Self, SpoolError> {
        let (_, _, chunks) = places(shared, id)?;
        let size = chunks.iter().map(|place| place.location.content_bytes()).sum();
        Ok(Self { id, chunks, size })
    }

    /// The content's octets in all, those already read included.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether everything has been read.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The next chunk, of at most 256 KiB; `None` after the last.
    ///
    /// *Errors*: `Damaged` when its checksum is wrong, `Io` when it cannot be read; the same chunk is tried again by the next
    /// call. *Cancellation*: a dropped future loses nothing.
    pub async fn next(&mut self) -> Result<Option<Bytes>, SpoolError> {
        let Some(place) = self.chunks.front().cloned() else { return Ok(None) };
        let content = place.read(Segment::read_content).await.map_err(|fault| error(self.id, fault))?;
        self.chunks.pop_front();
        Ok(Some(content))
    }
}
