//! Whether damage cost more than it touched: shared by the tests that flip bytes of their choice and those that flip any.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::index::Parts;
use super::super::segment::SEGMENT_HEADER;
use super::super::{Options, Quarantined, SpoolError, Subject};
use super::support::{assert_balanced, content, envelope, open, read};
use crate::message::{DeliveryState, MessageId};

/// Message id → size, state, where its parts are.
pub(super) type Kept = BTreeMap<u128, (usize, DeliveryState, Parts)>;

/// Opens the spool, in which the byte of each of `flips` (segment, place) is another than was written. Every message is either
/// as it was, or touched and reported; the account balances.
pub(super) async fn examine(directory: &Path, options: Options, kept: &Kept, flips: &[(u32, u64)]) {
    let (spool, recovery) = open(directory, options);
    assert_balanced(&spool);
    let quarantined = recovery.quarantined;
    for (&id, (size, state, parts)) in kept {
        let stored = spool.load(MessageId(id)).await;
        let content_found = match spool.content(MessageId(id)) {
            Ok(reader) => read(reader).await,
            Err(error) => Err(error),
        };
        let as_it_was = stored
            .as_ref()
            .is_ok_and(|stored| stored.envelope == envelope(id, *size) && stored.state == *state)
            && content_found.as_ref().is_ok_and(|found| *found == content(id, *size));
        if as_it_was {
            continue;
        }
        let damaged_at = format!("bytes {flips:?}: message {id}: {stored:?}, {quarantined:?}");
        assert!(
            flips.iter().any(|flip| touched(parts, *flip, &quarantined)),
            "not touched, {parts:?}, {damaged_at}"
        );
        // Reclaiming has begun since the open, and puts aside what it cannot copy.
        let put_aside = directory.join("quarantine").join(MessageId(id).to_string()).exists();
        let noticed = put_aside || matches!(content_found, Err(SpoolError::Damaged { .. }));
        assert!(noticed || reported(id, flips, &quarantined), "not reported, {damaged_at}");
    }
    let more = recovery.messages.len() > kept.len();
    assert!(!more || !quarantined.is_empty(), "a removed message came back unreported, bytes {flips:?}");
}

/// Whether the byte is in one of the records, or within a stretch reported that one of them is in, or in the header without which
/// nothing of its segment can be read.
fn touched(parts: &Parts, (segment, place): (u32, u64), quarantined: &[Quarantined]) -> bool {
    let records = parts.content.iter().chain([&parts.accepted]).chain(&parts.state);
    records.filter(|location| location.segment == segment).any(|location| {
        let record = location.offset()..location.offset() + location.record_bytes();
        let in_stretch = quarantined.iter().any(|found| match found.subject {
            Subject::Stretch { segment: number, offset, length } => {
                number == segment
                    && offset <= place
                    && place < offset + length
                    && offset <= record.start
                    && record.end <= offset + length
            }
            Subject::Message(_) => false,
        });
        record.contains(&place) || in_stretch || place < SEGMENT_HEADER
    })
}

fn reported(id: u128, flips: &[(u32, u64)], quarantined: &[Quarantined]) -> bool {
    quarantined.iter().any(|found| match found.subject {
        Subject::Message(message) => message.0 == id,
        Subject::Stretch { segment, .. } => flips.iter().any(|(flipped, _)| *flipped == segment),
    })
}
