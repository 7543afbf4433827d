//! Damaged bytes: found, reported, and no concern of any message they do not touch.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;

use super::super::record::CHUNK;
use super::super::segment::{SEGMENT_HEADER, file_name};
use super::super::{Fate, Fates, Options, Quarantined, Settlement, Spool, SpoolError, Subject};
use super::examination::{Kept, examine};
use super::support::{
    assert_balanced, assert_stored, content, directory, envelope, image, open, reclaimed, settlement, small,
    state, store,
};
use crate::message::{MessageId, RecipientState};

/// A few segments with every kind of record in them.
async fn fill(spool: &Spool) -> Kept {
    for id in 1..=8 {
        store(spool, id, 900 + 10 * id as usize).await.unwrap();
    }
    spool.update(MessageId(2), state(1)).await.unwrap();
    spool.update(MessageId(2), state(2)).await.unwrap();
    spool.remove(MessageId(3), Fate::Delivered).await.unwrap();
    let dsn = |id, size| (envelope(id, size), state(0), content(id, size));
    let accept = vec![dsn(20, 700), dsn(21, 0)];
    spool.settle(settlement(4, None, accept)).await.unwrap();
    let accept = vec![dsn(22, 300)];
    spool.settle(settlement(5, Some(state(5)), accept)).await.unwrap();
    store(spool, 9, 4_000).await.unwrap();
    spool.update(MessageId(9), state(3)).await.unwrap();
    let attempts = BTreeMap::from([(2, 2), (5, 5), (9, 3)]);
    let sizes = BTreeMap::from([(20, 700), (21, 0), (22, 300), (9, 4_000)]);
    let index = spool.handle.shared.index();
    [1, 2, 5, 6, 7, 8, 9, 20, 21, 22]
        .into_iter()
        .map(|id| {
            let size = sizes.get(&id).copied().unwrap_or(900 + 10 * id as usize);
            let state = state(attempts.get(&id).copied().unwrap_or(0));
            (id, (size, state, index.parts(MessageId(id)).unwrap()))
        })
        .collect()
}

fn options() -> Options {
    Options { segment_bytes: 6 << 10, ..small() }
}

/// Flips one byte after the other (every `stride`th) in each segment of `original` and looks at what an open makes of it.
async fn flip_each(original: &Path, kept: &Kept, stride: usize) {
    let mut flips = 0;
    for number in 1_u32.. {
        let name = file_name(number);
        let Ok(bytes) = fs::read(original.join(&name)) else { break };
        for place in (0..bytes.len()).step_by(stride) {
            let damaged = image(original);
            let mut bytes = bytes.clone();
            bytes[place] ^= 0xa5;
            fs::write(damaged.path().join(&name), &bytes).unwrap();
            examine(damaged.path(), options(), kept, &[(number, place as u64)]).await;
            flips += 1;
        }
    }
    assert!(flips > 500, "{flips} flips");
}

#[tokio::test]
async fn a_flipped_byte_anywhere_in_a_closed_spool_costs_only_the_messages_it_touches() {
    let directory = directory();
    let (spool, _) = open(directory.path(), options());
    let kept = fill(&spool).await;
    spool.close().await;
    flip_each(directory.path(), &kept, 13).await;
}

#[tokio::test]
async fn a_flipped_byte_after_a_crash_costs_only_the_messages_it_touches() {
    let directory = directory();
    let (spool, _) = open(directory.path(), options());
    let kept = fill(&spool).await;
    flip_each(image(directory.path()).path(), &kept, 11).await;
}

/// All of it in one segment, so that no later account makes good what is wrong with this one.
#[tokio::test]
async fn a_flipped_byte_of_a_message_that_has_ended_leaves_the_account_in_balance() {
    let directory = directory();
    let (spool, _) = open(directory.path(), options());
    store(&spool, 1, 100).await.unwrap();
    let mut half = state(1);
    half.recipients[0] = RecipientState::Delivered;
    let fates = Fates::of(Fate::Delivered, 1);
    let settlement =
        Settlement { id: MessageId(1), state: Some(half), fates, under_way: vec![], accept: vec![] };
    spool.settle(settlement).await.unwrap();
    spool.remove(MessageId(1), Fate::Expired).await.unwrap();
    spool.close().await;
    flip_each(directory.path(), &Kept::new(), 1).await;
}

#[tokio::test]
async fn damage_is_reported_once_and_kept_for_people() {
    // Without its header the record is but a stretch; what stands in front of it is kept all the same.
    for (place, entries, envelope_kept) in [(60, 1, true), (10, 2, false)] {
        let directory = directory();
        let (spool, _) = open(directory.path(), Options::default());
        store(&spool, 1, 5_000).await.unwrap();
        store(&spool, 2, 5_000).await.unwrap();
        let envelope_at = spool.handle.shared.index().parts(MessageId(1)).unwrap().accepted;
        spool.close().await;
        flip(directory.path(), 1, envelope_at.offset() + place);

        let (spool, recovery) = open(directory.path(), Options::default());
        assert_eq!((recovery.messages.len(), recovery.quarantined.len()), (1, entries));
        let Quarantined { subject: Subject::Message(MessageId(1)), reason } = &recovery.quarantined[0] else {
            panic!("{:?}", recovery.quarantined)
        };
        assert!(reason.starts_with("damaged envelope at byte"), "{reason}");
        assert_balanced(&spool);
        assert_eq!(spool.usage().quarantined, entries as u64);
        let kept = directory.path().join("quarantine").join(MessageId(1).to_string());
        assert!(fs::read(kept.join("content")).unwrap() == content(1, 5_000));
        assert_eq!(fs::read(kept.join("accepted.json")).unwrap().len() > 100, envelope_kept);
        assert!(fs::read_to_string(kept.join("reason")).unwrap().contains(reason));
        spool.close().await;
        let (spool, recovery) = open(directory.path(), Options::default());
        assert_eq!((recovery.quarantined.len(), spool.usage().quarantined), (0, entries as u64));
        assert_stored(&spool, 2, 5_000, 0).await;
    }
}

#[tokio::test]
async fn content_in_front_of_a_damaged_envelope_is_kept_only_of_a_message_that_has_not_ended() {
    let directory = directory();
    let (spool, _) = open(directory.path(), Options::default());
    store(&spool, 1, 5_000).await.unwrap();
    let envelope_at = spool.handle.shared.index().parts(MessageId(1)).unwrap().accepted;
    spool.remove(MessageId(1), Fate::Delivered).await.unwrap();
    spool.close().await;
    flip(directory.path(), 1, envelope_at.offset() + 10);
    let (spool, recovery) = open(directory.path(), Options::default());
    assert!(matches!(recovery.quarantined[..], [Quarantined { subject: Subject::Stretch { .. }, .. }]));
    assert_balanced(&spool);
}

#[tokio::test]
async fn content_damaged_while_stored_is_noticed_by_its_reader_and_can_be_put_into_quarantine() {
    let directory = directory();
    let (spool, _) = open(directory.path(), Options::default());
    store(&spool, 1, 2 * CHUNK).await.unwrap();
    let second = spool.handle.shared.index().parts(MessageId(1)).unwrap().content[1];
    flip(directory.path(), 1, second.offset() + 1_000);
    let mut reader = spool.content(MessageId(1)).unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap(), content(1, CHUNK));
    assert!(matches!(reader.next().await, Err(SpoolError::Damaged { id: MessageId(1), .. })));
    assert!(matches!(reader.next().await, Err(SpoolError::Damaged { .. })), "no chunk is passed over");

    spool.quarantine(MessageId(1), "checksum differs").await.unwrap();
    assert!(matches!(spool.quarantine(MessageId(1), "again").await, Err(SpoolError::Unknown(_))));
    assert_eq!((spool.usage().messages, spool.usage().quarantined), (0, 1));
    let kept = directory.path().join("quarantine").join(MessageId(1).to_string());
    assert_eq!(fs::metadata(kept.join("content")).unwrap().len(), 2 * CHUNK as u64);
    spool.close().await;
    let (_, recovery) = open(directory.path(), Options::default());
    assert!(recovery.messages.is_empty() && recovery.quarantined.is_empty());
}

#[tokio::test]
async fn damage_met_by_reclaiming_is_put_into_quarantine_and_the_rest_is_kept() {
    let directory = directory();
    let (spool, _) = open(directory.path(), small());
    for id in 1..=3 {
        store(&spool, id, 1_000).await.unwrap();
    }
    let place = spool.handle.shared.index().parts(MessageId(2)).unwrap().content[0];
    flip(directory.path(), 1, place.offset() + 500);
    for id in 100..200 {
        store(&spool, id, 2_000).await.unwrap();
        spool.remove(MessageId(id), Fate::Delivered).await.unwrap();
    }
    reclaimed(&spool).await;
    assert!(!directory.path().join(file_name(1)).exists());
    assert_eq!((spool.usage().messages, spool.usage().quarantined), (2, 1));
    assert!(matches!(spool.load(MessageId(2)).await, Err(SpoolError::Unknown(_))));
    spool.close().await;
    let (spool, recovery) = open(directory.path(), small());
    assert_eq!((recovery.messages.len(), recovery.quarantined.len()), (2, 0));
    assert_stored(&spool, 1, 1_000, 0).await;
    assert_stored(&spool, 3, 1_000, 0).await;
}

#[tokio::test]
async fn records_inside_of_a_message_are_content_even_where_the_record_around_them_is_damaged() {
    let directory = directory();
    let (spool, _) = open(directory.path(), Options::default());
    store(&spool, 1, 100).await.unwrap();
    spool.remove(MessageId(1), Fate::Delivered).await.unwrap();
    store(&spool, 2, 100).await.unwrap();
    // The spool's own records, sent in by somebody who knows the format.
    let records = fs::read(directory.path().join(file_name(1))).unwrap();
    let mut draft = spool.draft();
    draft.append(Bytes::from(records.clone())).await.unwrap();
    draft.commit(envelope(3, records.len()), state(0)).await.unwrap();
    store(&spool, 4, 100).await.unwrap();
    let around = spool.handle.shared.index().parts(MessageId(3)).unwrap().content[0];
    spool.close().await;
    flip(directory.path(), 1, around.offset() + 2);

    let (spool, recovery) = open(directory.path(), Options::default());
    let found: Vec<_> = recovery.messages.iter().map(|message| message.id.0).collect();
    assert_eq!(found, [2, 4]);
    assert_eq!(recovery.quarantined.len(), 2, "the message and the stretch: {:?}", recovery.quarantined);
    assert_stored(&spool, 4, 100, 0).await;
}

#[tokio::test]
async fn a_segment_without_header_goes_into_quarantine_and_the_others_are_recovered() {
    let directory = directory();
    let (spool, _) = open(directory.path(), small());
    for id in 1..=10 {
        store(&spool, id, 2_000).await.unwrap();
    }
    spool.close().await;
    let path = directory.path().join(file_name(2));
    let mut bytes = fs::read(&path).unwrap();
    bytes[..SEGMENT_HEADER as usize].fill(0xee);
    fs::write(&path, bytes).unwrap();
    let (spool, recovery) = open(directory.path(), small());
    assert!(
        recovery.quarantined.iter().any(|found| matches!(found.subject, Subject::Stretch { segment: 2, .. }))
    );
    assert!(directory.path().join("quarantine").join(file_name(2)).exists() && !path.exists());
    assert!((5..10).contains(&recovery.messages.len()), "{:?}", recovery.messages);
    for message in recovery.messages {
        assert_stored(&spool, message.id.0, 2_000, 0).await;
    }
}

fn flip(directory: &Path, segment: u32, place: u64) {
    let path = directory.join(file_name(segment));
    let mut bytes = fs::read(&path).unwrap();
    bytes[place as usize] ^= 0xff;
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes[place as usize..=place as usize], place).unwrap();
}
