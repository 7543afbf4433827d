//! What the records say, replayed in their order: which messages exist, where their parts are, what is damaged.
//!
//! The rules: the later of two `Accepted` records of an id wins (reclaiming copies messages, a crash may come in between);
//! a damaged copy does not supersede an intact original; a group counts as a whole; a message counts as damaged only if it
//! is neither removed nor stored anew later on. Called by `recovery`, one segment after the other.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::index::{Index, SegmentUse};
use super::ledger::{Fates, Ledger};
use super::quarantine::Remains;
use super::record::{
    Accepted, HEADER, HEADER_BYTES, Header, Kind, Location, SEQUENCE, State, decode, queued,
};
use super::scan::{Found, Scanner, verified};
use super::segment::Segment;
use crate::message::{MessageId, Timestamp};

/// How far the end of a segment can be trusted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tail {
    /// All that was written is there: a later segment was begun, or the log was closed in order.
    Complete,
    /// The process died while this was the active segment: the last write may be there in part, and zeros follow
    /// `data_end`.
    Open { data_end: u64 },
}

/// The state of the replay.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) index: Index,
    pub(super) summaries: HashMap<MessageId, Summary>,
    pub(super) damaged: HashMap<MessageId, Damage>,
    pub(super) stretches: Vec<Stretch>,
    /// Whether an account was met, from which the index's goes on.
    pub(super) accounted: bool,
    /// Whether what a record adds to the account could not be read.
    pub(super) doubtful: bool,
    pub(super) identities: Identities,
    contents: HashMap<MessageId, Vec<Chunk>>,
}

/// What the queue has to know of a message.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    pub(super) due_at: Timestamp,
    /// The place of its name among the [`Identities`].
    pub(super) identity: Option<u32>,
}

/// The names of identity rules, each kept once.
#[derive(Debug, Default)]
pub(super) struct Identities {
    names: Vec<Arc<str>>,
    places: HashMap<Arc<str>, u32>,
}

impl Identities {
    fn place(&mut self, name: &str) -> Option<u32> {
        if let Some(place) = self.places.get(name) {
            return Some(*place);
        }
        let (name, place) = (Arc::from(name), u32::try_from(self.names.len()).ok()?);
        self.names.push(Arc::clone(&name));
        self.places.insert(name, place);
        Some(place)
    }

    pub(super) fn into_names(self) -> Vec<Arc<str>> {
        self.names
    }
}

/// Why a message cannot be delivered, and what there is of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Damage {
    pub(super) reason: String,
    pub(super) remains: Remains,
    /// Envelope and content are intact (and in the index); the latest state is not.
    state_only: bool,
}

/// Damaged bytes of no known message.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    pub(super) segment: u32,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// A content record met, whose message may follow.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    sequence: u32,
    location: Location,
    intact: bool,
}

impl Replay {
    /// Replays the first `length` bytes of a segment; returns where its intact part ends.
    pub(super) fn segment(&mut self, segment: Arc<Segment>, length: u64, tail: Tail) -> io::Result<u64> {
        let usage = SegmentUse { segment: segment.clone(), written: length, live: 0, drafts: 0 };
        self.index.segments.insert(segment.number, usage);
        let mut scanner = Scanner::new(&segment, length);
        let mut end = super::segment::SEGMENT_HEADER.min(length);
        // The content that the record just met belongs to.
        let mut content = None;
        while let Some(found) = scanner.advance()? {
            let (from, to, torn) = match found {
                Found::Damage { from, to } => {
                    let torn = to == length && torn(&mut scanner, &segment, from, tail)?;
                    if !torn {
                        self.stretch(&segment, from, to, content.take());
                    }
                    (from, to, torn)
                }
                Found::Record { header, offset } => {
                    let torn = self.record(&mut scanner, &segment, header, offset, tail)?;
                    content = (header.kind == Kind::Content).then_some(header.id);
                    (offset, offset + header.record_bytes(), torn)
                }
            };
            end = if torn { from } else { to };
            if torn {
                break;
            }
        }
        if let Some(usage) = self.index.segments.get_mut(&segment.number) {
            usage.written = end;
        }
        Ok(end)
    }

    /// Bytes that are no record. Those right behind a content were its envelope: the two are written together.
    fn stretch(&mut self, segment: &Segment, from: u64, to: u64, content: Option<MessageId>) {
        self.stretches.push(Stretch { segment: segment.number, from, to });
        let orphan = content.filter(|id| !self.index.contains(*id));
        let Some((id, chunks)) = orphan.and_then(|id| Some((id, self.contents.remove(&id)?))) else { return };
        let content = chunks.iter().map(|chunk| chunk.location).collect();
        let remains = Remains { content, ..Remains::default() };
        let reason = segment.place("damaged envelope", from);
        self.damaged.insert(id, Damage { reason, remains, state_only: false });
    }

    /// Replays one record; true when it turns out to be the torn end of the last write.
    fn record(
        &mut self,
        scanner: &mut Scanner<'_>,
        segment: &Segment,
        header: Header,
        offset: u64,
        tail: Tail,
    ) -> io::Result<bool> {
        let verify = matches!(tail, Tail::Open { .. });
        let end = offset + header.record_bytes();
        if header.kind != Kind::Content {
            let intact = verified(scanner.view(offset + HEADER_BYTES, header.length as usize)?, &header);
            if !intact && matches!(tail, Tail::Open { data_end } if end > data_end) {
                return Ok(true);
            }
            if header.kind == Kind::Group {
                self.group(scanner, segment, offset, end, intact, tail)?;
                return Ok(false);
            }
        }
        self.apply(scanner, segment, header, offset, verify)?;
        Ok(false)
    }

    /// Replays a group's members. A damaged group in a complete segment was whole once, so its intact members count; at
    /// an open tail it may never have been whole, and none does.
    fn group(
        &mut self,
        scanner: &mut Scanner<'_>,
        segment: &Segment,
        offset: u64,
        end: u64,
        intact: bool,
        tail: Tail,
    ) -> io::Result<()> {
        if !intact && matches!(tail, Tail::Open { .. }) {
            self.stretches.push(Stretch { segment: segment.number, from: offset, to: end });
            return Ok(());
        }
        let mut at = offset + HEADER_BYTES;
        while at < end {
            let header = Header::decode(scanner.view(at, HEADER)?, segment.salt, at);
            let Some(header) = header.filter(|header| header.member && at + header.record_bytes() <= end)
            else {
                break;
            };
            self.apply(scanner, segment, header, at, !intact)?;
            at += header.record_bytes();
        }
        if at < end {
            self.stretches.push(Stretch { segment: segment.number, from: at, to: end });
        }
        Ok(())
    }

    /// Replays a record that stands for itself. The payload of content is read in full only to `verify` it.
    fn apply(
        &mut self,
        scanner: &mut Scanner<'_>,
        segment: &Segment,
        header: Header,
        offset: u64,
        verify: bool,
    ) -> io::Result<()> {
        let Some(place) = u32::try_from(offset).ok().and_then(NonZeroU32::new) else { return Ok(()) };
        let location = Location { segment: segment.number, offset: place, length: header.length };
        let whole = verify || header.kind != Kind::Content;
        let wanted = if whole { header.length as usize } else { SEQUENCE };
        let payload = scanner.view(offset + HEADER_BYTES, wanted)?;
        let intact = !whole || verified(payload, &header);
        match header.kind {
            Kind::Content => self.content(header.id, location, payload, intact),
            Kind::Accepted => {
                let accepted = self.posting::<Accepted>(payload, intact);
                self.accepted(header.id, location, accepted, segment);
            }
            Kind::State => {
                let state = self.posting::<State>(payload, intact);
                self.state(header.id, location, state, segment);
            }
            // In its first form it has no payload.
            Kind::Removed if header.length == 0 => self.removed(header.id, Fates::default()),
            Kind::Removed => {
                // Without its payload it is a removal still.
                let fates = self.posting::<Fates>(payload, intact);
                self.removed(header.id, fates.unwrap_or_default());
            }
            Kind::Ledger => {
                if let Some(ledger) = self.posting::<Ledger>(payload, intact) {
                    self.index.ledger = ledger;
                    self.accounted = true;
                }
            }
            Kind::Sending => self.index.send(header.id, &recipients(payload, intact)),
            Kind::NotSent => self.index.not_sent(header.id, &recipients(payload, intact)),
            Kind::Group | Kind::Closed => {}
        }
        Ok(())
    }

    /// The payload of a record that adds to the account. When it cannot be read, nobody knows what: not even of a message that has
    /// ended since, and is no loss.
    fn posting<T: DeserializeOwned>(&mut self, payload: &[u8], intact: bool) -> Option<T> {
        let read = intact.then(|| decode(payload)).flatten();
        self.doubtful |= read.is_none();
        read
    }

    fn content(&mut self, id: MessageId, location: Location, payload: &[u8], intact: bool) {
        let sequence = payload.first_chunk().map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes));
        let chunks = self.contents.entry(id).or_default();
        if sequence == 0 {
            chunks.clear();
        }
        chunks.push(Chunk { sequence, location, intact });
    }

    fn accepted(&mut self, id: MessageId, place: Location, accepted: Option<Accepted>, segment: &Segment) {
        let content = accepted.as_ref().map_or(id, |accepted| accepted.content);
        let chunks = self.contents.remove(&content).unwrap_or_default();
        let locations: Vec<_> = chunks.iter().map(|chunk| chunk.location).collect();
        self.index.ledger += accepted.as_ref().map(Accepted::posting).unwrap_or_default();
        let finding = match &accepted {
            None => "damaged envelope",
            Some(accepted) if !complete(accepted, &chunks) => "damaged content of the message accepted",
            Some(accepted) => {
                self.index.accept(id, place, &locations, queued(&accepted.state));
                self.index.send(id, &accepted.sending);
                self.damaged.remove(&id);
                let identity = accepted.envelope.identity.as_deref();
                let identity = identity.and_then(|name| self.identities.place(name));
                self.summaries.insert(id, Summary { due_at: accepted.state.next_due(), identity });
                return;
            }
        };
        if !self.index.contains(id) {
            let remains = Remains { accepted: Some(place), state: None, content: locations };
            let reason = segment.place(finding, place.offset());
            self.damaged.insert(id, Damage { reason, remains, state_only: false });
        }
    }

    fn state(&mut self, id: MessageId, place: Location, state: Option<State>, segment: &Segment) {
        self.index.ledger += Ledger::ended(state.as_ref().map(|state| state.fates).unwrap_or_default());
        if let Some(damage) = self.damaged.get_mut(&id).filter(|damage| !damage.state_only) {
            damage.remains.state = Some(place);
            return;
        }
        let Some(summary) = self.summaries.get_mut(&id) else { return };
        match state {
            Some(State { state, under_way, .. }) => {
                summary.due_at = state.next_due();
                self.index.change_state(id, place, queued(&state), &under_way);
                self.damaged.remove(&id);
            }
            None => {
                let reason = segment.place("damaged delivery state", place.offset());
                self.damaged.insert(id, Damage { reason, state_only: true, ..Damage::default() });
            }
        }
    }

    fn removed(&mut self, id: MessageId, fates: Fates) {
        self.index.ledger += Ledger::ended(fates);
        self.index.remove(id);
        self.summaries.remove(&id);
        self.damaged.remove(&id);
    }

    /// Takes the damaged messages out of the index, with what is known of their parts.
    pub(super) fn take_damaged(&mut self) -> Vec<(MessageId, Damage)> {
        let mut damaged: Vec<_> = self.damaged.drain().collect();
        for (id, damage) in &mut damaged {
            if let Some(parts) = self.index.parts(*id) {
                damage.remains =
                    Remains { accepted: Some(parts.accepted), state: parts.state, content: parts.content };
                self.index.remove(*id);
                self.summaries.remove(id);
            }
        }
        damaged.sort_unstable_by_key(|(id, _)| *id);
        damaged
    }
}

/// Those that a note is about; none when it cannot be read.
fn recipients(payload: &[u8], intact: bool) -> Vec<u32> {
    intact.then(|| decode(payload)).flatten().unwrap_or_default()
}

fn complete(accepted: &Accepted, chunks: &[Chunk]) -> bool {
    let in_order = chunks.iter().zip(0..).all(|(chunk, number)| chunk.intact && chunk.sequence == number);
    let size: u64 = chunks.iter().map(|chunk| chunk.location.content_bytes()).sum();
    in_order && chunks.len() == accepted.chunks as usize && size == accepted.envelope.size
}

/// Whether damage that reaches the end of the segment is the rest of a write that the crash cut short: nothing, zeros, a
/// part of a header, or a header whose record goes on beyond the data.
fn torn(scanner: &mut Scanner<'_>, segment: &Segment, from: u64, tail: Tail) -> io::Result<bool> {
    let Tail::Open { data_end } = tail else { return Ok(false) };
    if data_end < from + HEADER_BYTES {
        return Ok(true);
    }
    let header = Header::decode(scanner.view(from, HEADER)?, segment.salt, from);
    Ok(header.is_some_and(|header| from + header.record_bytes() > data_end))
}
