//! The records a segment consists of: header, payload, checksums. Pure encoding.
//!
//! A record is a header of [`HEADER`] bytes, little endian, and its payload:
//!
//! | bytes | field |
//! |---|---|
//! | 4 | magic |
//! | 1 | kind; its top bit marks a member of a group |
//! | 16 | id: of the message, or of the content for `Content` |
//! | 4 | payload length |
//! | 4 | CRC-32C of the payload |
//! | 4 | CRC-32C of the segment's salt, the record's offset and the fields above |
//!
//! Salt and offset in the header's checksum make a record valid only where it was written: neither bytes left by an earlier
//! use of the blocks nor bytes that a sender put into a message can pass for one.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;

use super::ledger::{Fates, Ledger};
use crate::message::{DeliveryState, Envelope, MessageId};

/// Bytes of a record's header.
pub(super) const HEADER: usize = 33;
/// The same, as an offset.
pub(super) const HEADER_BYTES: u64 = HEADER as u64;
/// The first bytes of every record.
pub(super) const MAGIC: [u8; 4] = *b"\xD7PrR";
/// Content is kept in chunks of at most so many bytes.
pub(super) const CHUNK: usize = 256 << 10;
/// A `Content` payload starts with its sequence number.
pub(super) const SEQUENCE: usize = 4;
/// A payload larger than this is refused, so that a record never outgrows an offset.
pub(super) const MAXIMUM_PAYLOAD: usize = 1 << 30;

const CHECKED: usize = HEADER - 4;
const MEMBER: u8 = 0x80;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A chunk of content: sequence number, then bytes.
    Content,
    /// A message exists: [`Accepted`] as JSON.
    Accepted,
    /// How its delivery stands now: [`State`] as JSON.
    State,
    /// The message is gone: the [`Fates`] of the recipients it still had, as JSON.
    Removed,
    /// Records that hold together or not at all, marked as members.
    Group,
    /// The spool was closed in order: all bytes before this one are complete.
    Closed,
    /// The account of all that stands before it: [`Ledger`] as JSON.
    Ledger,
    /// The content is about to be sent to these recipients: indices into the envelope's, as JSON.
    Sending,
    /// Its end was not sent to these recipients after all, in the same form.
    NotSent,
}

impl Kind {
    const ALL: [(Self, u8); 9] = [
        (Self::Content, 1),
        (Self::Accepted, 2),
        (Self::State, 3),
        (Self::Removed, 4),
        (Self::Group, 5),
        (Self::Closed, 6),
        (Self::Ledger, 7),
        (Self::Sending, 8),
        (Self::NotSent, 9),
    ];

    fn code(self) -> u8 {
        self as u8 + 1
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == code).map(|(kind, _)| *kind)
    }
}

/// A record's header, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) member: bool,
    pub(super) id: MessageId,
    pub(super) length: u32,
    pub(super) payload_checksum: u32,
}

impl Header {
    /// The header's bytes in a segment of this salt at this offset.
    pub(super) fn encode(&self, salt: u64, offset: u64) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = self.kind.code() | if self.member { MEMBER } else { 0 };
        bytes[5..21].copy_from_slice(&self.id.0.to_le_bytes());
        bytes[21..25].copy_from_slice(&self.length.to_le_bytes());
        bytes[25..29].copy_from_slice(&self.payload_checksum.to_le_bytes());
        let checksum = checksum(salt, offset, &bytes[..CHECKED]);
        bytes[CHECKED..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header that `bytes` start with; `None` unless it was written for this place.
    pub(super) fn decode(bytes: &[u8], salt: u64, offset: u64) -> Option<Self> {
        let bytes: &[u8; HEADER] = bytes.first_chunk()?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[..4] != MAGIC || word(CHECKED) != checksum(salt, offset, &bytes[..CHECKED]) {
            return None;
        }
        Some(Self {
            kind: Kind::from_code(bytes[4] & !MEMBER)?,
            member: bytes[4] & MEMBER != 0,
            id: MessageId(u128::from_le_bytes(*bytes[5..21].first_chunk()?)),
            length: word(21),
            payload_checksum: word(25),
        })
    }

    /// Bytes of the whole record.
    pub(super) fn record_bytes(&self) -> u64 {
        HEADER_BYTES + u64::from(self.length)
    }
}

fn checksum(salt: u64, offset: u64, fields: &[u8]) -> u32 {
    let seed = crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &offset.to_le_bytes());
    crc32c::crc32c_append(seed, fields)
}

/// Where a record is. Kept for every message, hence small; an offset is never zero, as segments have a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) segment: u32,
    pub(super) offset: NonZeroU32,
    /// Bytes of the payload.
    pub(super) length: u32,
}

impl Location {
    pub(super) fn offset(self) -> u64 {
        u64::from(self.offset.get())
    }

    /// Bytes of the whole record.
    pub(super) fn record_bytes(self) -> u64 {
        HEADER_BYTES + u64::from(self.length)
    }

    /// Bytes of content in the `Content` record here.
    pub(super) fn content_bytes(self) -> u64 {
        u64::from(self.length).saturating_sub(SEQUENCE as u64)
    }
}

/// A record on its way to disk: all but its place, which the writer decides. Made by the caller, so that serialising and
/// checksums cost the writer nothing.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) id: MessageId,
    sequence: Option<[u8; SEQUENCE]>,
    body: Bytes,
    checksum: u32,
    /// What it adds to the account.
    pub(super) posting: Ledger,
    /// Whether somebody is told that it is on stable storage.
    pub(super) synced: bool,
}

impl Record {
    fn plain(kind: Kind, id: MessageId, body: Bytes, posting: Ledger) -> Self {
        let checksum = crc32c::crc32c(&body);
        Self { kind, id, sequence: None, body, checksum, posting, synced: true }
    }

    pub(super) fn content(id: MessageId, sequence: u32, body: Bytes) -> Self {
        let sequence = sequence.to_le_bytes();
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&sequence), &body);
        let posting = Ledger::default();
        Self { kind: Kind::Content, id, sequence: Some(sequence), body, checksum, posting, synced: false }
    }

    pub(super) fn accepted(accepted: &Accepted) -> Self {
        Self::plain(Kind::Accepted, accepted.envelope.id, json(accepted), accepted.posting())
    }

    pub(super) fn state(id: MessageId, state: &State) -> Self {
        Self::plain(Kind::State, id, json(state), Ledger::ended(state.fates))
    }

    pub(super) fn sending(id: MessageId, recipients: &[u32], synced: bool) -> Self {
        Self { synced, ..Self::plain(Kind::Sending, id, json(&recipients), Ledger::default()) }
    }

    pub(super) fn not_sent(id: MessageId, recipients: &[u32]) -> Self {
        Self { synced: false, ..Self::plain(Kind::NotSent, id, json(&recipients), Ledger::default()) }
    }

    pub(super) fn removed(id: MessageId, fates: Fates) -> Self {
        Self::plain(Kind::Removed, id, json(&fates), Ledger::ended(fates))
    }

    pub(super) fn closed() -> Self {
        Self::plain(Kind::Closed, MessageId(0), Bytes::new(), Ledger::default())
    }

    pub(super) fn ledger(ledger: &Ledger) -> Self {
        Self { synced: false, ..Self::plain(Kind::Ledger, MessageId(0), json(ledger), Ledger::default()) }
    }

    pub(super) fn payload_bytes(&self) -> usize {
        self.sequence.map_or(0, |bytes| bytes.len()) + self.body.len()
    }

    pub(super) fn record_bytes(&self) -> u64 {
        HEADER_BYTES + self.payload_bytes() as u64
    }

    /// Appends the record as it is written at `offset`; returns its payload's length.
    pub(super) fn encode(&self, member: bool, salt: u64, offset: u64, out: &mut Vec<u8>) -> u32 {
        let length =
            u32::try_from(self.payload_bytes()).expect("callers keep payloads within MAXIMUM_PAYLOAD");
        let (kind, id, payload_checksum) = (self.kind, self.id, self.checksum);
        out.extend_from_slice(&Header { kind, member, id, length, payload_checksum }.encode(salt, offset));
        out.extend_from_slice(self.sequence.as_ref().map_or(&[], |bytes| bytes.as_slice()));
        out.extend_from_slice(&self.body);
        length
    }
}

fn json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).expect("plain structures serialise").into()
}

/// The payload of an `Accepted` record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Accepted {
    /// The id of the `Content` records.
    pub(super) content: MessageId,
    /// How many of them there are.
    pub(super) chunks: u32,
    /// Whether it was written by reclaiming, of a message that exists already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) copied: bool,
    /// In a copy, the recipients that were being sent to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) sending: Vec<u32>,
    pub(super) envelope: Envelope,
    pub(super) state: DeliveryState,
}

impl Accepted {
    /// What it adds to the account.
    pub(super) fn posting(&self) -> Ledger {
        Ledger::accepted(if self.copied { 0 } else { u64::from(queued(&self.state)) })
    }
}

/// The payload of a `State` record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    #[serde(flatten)]
    pub(super) state: DeliveryState,
    /// What became of recipients since the state before.
    #[serde(default, skip_serializing_if = "Fates::is_empty")]
    pub(super) fates: Fates,
    /// Recipients whose attempt goes on; of all others it has come to an outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) under_way: Vec<u32>,
}

/// How many recipients are still to be delivered.
pub(super) fn queued(state: &DeliveryState) -> u32 {
    u32::try_from(state.queued().count()).unwrap_or(u32::MAX)
}

/// The value in a payload whose checksum is right; `None` when it is not one this version knows.
pub(super) fn decode<T: for<'de> Deserialize<'de>>(payload: &[u8]) -> Option<T> {
    serde_json::from_slice(payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(offset: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        Record::content(MessageId(7), 3, Bytes::from_static(b"Subject: x\r\n"))
            .encode(false, 11, offset, &mut bytes);
        bytes
    }

    #[test]
    fn a_header_is_read_back() {
        let header = Header::decode(&encoded(64), 11, 64).expect("valid");
        assert_eq!(
            (header.kind, header.member, header.id, header.length),
            (Kind::Content, false, MessageId(7), 16)
        );
        assert_eq!(header.payload_checksum, crc32c::crc32c(&encoded(64)[HEADER..]));
    }

    #[test]
    fn every_kind_has_a_code_of_its_own() {
        for (kind, code) in Kind::ALL {
            assert_eq!((kind.code(), Kind::from_code(code)), (code, Some(kind)));
        }
        assert_eq!(Kind::from_code(0), None);
        assert_eq!(Kind::from_code(10), None);
    }

    #[test]
    fn any_flipped_bit_of_a_header_is_noticed() {
        for bit in 0..HEADER * 8 {
            let mut bytes = encoded(64);
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bytes, 11, 64), None, "bit {bit}");
        }
    }

    #[test]
    fn a_record_is_valid_only_where_it_was_written() {
        assert!(Header::decode(&encoded(64), 11, 65).is_none(), "another offset");
        assert!(Header::decode(&encoded(64), 12, 64).is_none(), "another segment");
    }
}
