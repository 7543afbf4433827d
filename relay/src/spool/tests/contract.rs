//! The contract in the module's docs, sentence by sentence.

use std::fs;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use bytes::Bytes;

use super::super::record::CHUNK;
use super::super::segment::file_name;
use super::super::{Fate, Fates, Health, Ledger, Options, Settlement, Spool, SpoolError};
use super::support::{
    assert_balanced, assert_stored, content, directory, envelope, image, open, read, reclaimed, settlement,
    small, state, store, watch,
};
use crate::message::{MessageId, RecipientState};

#[tokio::test]
async fn a_stored_message_is_found_by_the_next_start_with_its_latest_state() {
    let directory = directory();
    let (spool, recovery) = open(directory.path(), Options::default());
    assert!(recovery.messages.is_empty() && recovery.clean);
    store(&spool, 1, 10_000).await.unwrap();
    store(&spool, 2, 0).await.unwrap();
    spool.update(MessageId(2), state(3)).await.unwrap();
    store(&spool, 3, 5).await.unwrap();
    spool.remove(MessageId(3), Fate::Delivered).await.unwrap();
    spool.close().await;

    let (spool, recovery) = open(directory.path(), Options::default());
    let found: Vec<_> = recovery.messages.iter().map(|message| (message.id.0, message.due_at.0)).collect();
    assert_eq!(found, [(1, 5_000), (2, 5_003)]);
    assert_eq!(recovery.messages[0].identity.as_deref(), Some("rule-1"));
    assert!(recovery.clean && recovery.quarantined.is_empty() && recovery.torn_bytes == 0);
    assert_stored(&spool, 1, 10_000, 0).await;
    assert_stored(&spool, 2, 0, 3).await;
    assert!(matches!(spool.load(MessageId(3)).await, Err(SpoolError::Unknown(MessageId(3)))));
}

#[tokio::test]
async fn what_is_acknowledged_is_in_the_files_at_that_moment() {
    let directory = directory();
    let (spool, _) = open(directory.path(), Options::default());
    for id in 1..20 {
        store(&spool, id, 3_000).await.unwrap();
        let crashed = image(directory.path());
        let (after, recovery) = open(crashed.path(), Options::default());
        assert_eq!(recovery.messages.len() as u128, id);
        assert!(!recovery.clean && recovery.quarantined.is_empty());
        assert_stored(&after, id, 3_000, 0).await;
    }
}

#[tokio::test]
async fn a_second_open_is_refused_while_the_spool_is_open() {
    let directory = directory();
    let (spool, _) = open(directory.path(), Options::default());
    let refused = Spool::open(directory.path(), Options::default()).unwrap_err();
    assert!(matches!(refused, SpoolError::Locked(_)), "{refused}");
    spool.clone().close().await;
    assert!(matches!(store(&spool, 1, 1).await, Err(SpoolError::Closed)));
    open(directory.path(), Options::default());
}

#[tokio::test]
async fn dropping_all_handles_closes_in_order() {
    let directory = directory();
    let (spool, _) = open(directory.path(), Options::default());
    store(&spool, 1, 10).await.unwrap();
    drop(spool);
    let path = directory.path().to_owned();
    watch("the lock is released", || {
        Spool::open(&path, Options::default())
            .is_ok_and(|(_, recovering)| recovering.finished_blocking().unwrap().clean)
    })
    .await;
}

#[tokio::test]
async fn a_segment_of_a_later_version_is_refused_and_left_alone() {
    let directory = directory();
    open(directory.path(), small()).0.close().await;
    let path = directory.path().join(file_name(1));
    let mut bytes = fs::read(&path).unwrap();
    for copy in [0, 32] {
        bytes[copy + 8] = 3;
        let checksum = crc32c::crc32c(&bytes[copy..copy + 28]);
        bytes[copy + 28..copy + 32].copy_from_slice(&checksum.to_le_bytes());
    }
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(Spool::open(directory.path(), small()), Err(SpoolError::Version { version: 3, .. })));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[tokio::test]
async fn mail_is_taken_while_what_earlier_runs_left_is_read_and_a_crash_in_between_changes_nothing() {
    const EARLIER: u128 = 400;
    let mut directory = directory();
    let (spool, _) = open(directory.path(), small());
    for id in 1..=EARLIER {
        store(&spool, id, 1_000).await.unwrap();
        if id % 4 == 0 {
            spool.remove(MessageId(id), Fate::Delivered).await.unwrap();
        }
    }
    directory = image(directory.path());
    drop(spool);
    let mut interrupted = 0;
    for round in 1..=20 {
        let (spool, recovering) = Spool::open(directory.path(), small()).unwrap();
        store(&spool, EARLIER + round, 1_000).await.unwrap();
        assert_stored(&spool, EARLIER + round, 1_000, 0).await;
        let crashed = image(directory.path());
        interrupted += u32::from(spool.usage().unread.is_some());
        recovering.finished().await.unwrap();
        spool.recovered().await;
        assert_eq!(spool.usage().messages as u128, EARLIER / 4 * 3 + round);
        directory = crashed;
    }
    assert!(interrupted > 0, "no crash came before the reading was over");
    let (spool, recovery) = open(directory.path(), small());
    assert_eq!(recovery.quarantined, []);
    assert_eq!(recovery.messages.len() as u128, EARLIER / 4 * 3 + 20);
    let ledger = spool.usage().ledger;
    assert_eq!((ledger.accepted, ledger.fates), (2 * 420, Fates::of(Fate::Delivered, 200)));
    assert_balanced(&spool);
    for id in (1..=EARLIER + 20).filter(|id| *id > EARLIER || id % 4 != 0) {
        assert_stored(&spool, id, 1_000, 0).await;
    }
}

#[tokio::test]
async fn a_spool_can_be_closed_before_it_has_been_read() {
    let directory = directory();
    let (spool, _) = open(directory.path(), small());
    for id in 1..=200 {
        store(&spool, id, 1_000).await.unwrap();
    }
    spool.close().await;
    for _ in 0..20 {
        let (spool, recovering) = Spool::open(directory.path(), small()).unwrap();
        spool.close().await;
        assert!(matches!(recovering.finished().await, Ok(_) | Err(SpoolError::Closed)));
    }
    let (spool, recovery) = open(directory.path(), small());
    assert_eq!((recovery.messages.len(), recovery.clean), (200, true));
    assert_balanced(&spool);
}

#[tokio::test]
async fn the_account_of_recipients_balances_and_goes_on_over_closes_crashes_and_reclaiming() {
    let directory = directory();
    let (mut spool, _) = open(directory.path(), small());
    let mut expected = Ledger::default();
    for round in 0..6 {
        for id in (1..=30).map(|id| round * 100 + id) {
            store(&spool, id, 1_500).await.unwrap();
            expected.accepted += 2;
            let fate = Fate::ALL[id as usize % Fate::ALL.len()];
            // The first recipient ends before the second in every other message; every fifth message stays.
            if id % 2 == 0 {
                let fates = Fates::of(fate, 1);
                let mut first = state(1);
                first.recipients[0] = RecipientState::Delivered;
                let id = MessageId(id);
                spool
                    .settle(Settlement { id, state: Some(first), fates, under_way: vec![], accept: vec![] })
                    .await
                    .unwrap();
                expected.fates += fates;
            }
            if id % 5 != 0 {
                spool.remove(MessageId(id), Fate::Delivered).await.unwrap();
                expected.fates.add(Fate::Delivered, if id % 2 == 0 { 1 } else { 2 });
            }
            assert_balanced(&spool);
            assert_eq!(spool.usage().ledger, expected);
        }
        reclaimed(&spool).await;
        if round % 2 == 0 {
            spool.close().await;
        } else {
            let crashed = image(directory.path());
            assert_eq!(open(crashed.path(), small()).0.usage().ledger, expected);
            spool.close().await;
        }
        let (reopened, recovery) = open(directory.path(), small());
        assert_eq!(reopened.usage().ledger, expected);
        assert_eq!(recovery.messages.len() as u128, (round + 1) * 6);
        assert_balanced(&reopened);
        spool = reopened;
    }
    assert!(spool.usage().segments < 60, "the account has outlived segments: {:?}", spool.usage());
}

#[tokio::test]
async fn recipients_are_ambiguous_from_the_note_that_they_are_sent_to_until_the_outcome() {
    let directory = directory();
    let (spool, _) = open(directory.path(), small());
    for id in 1..=7 {
        store(&spool, id, 1_000).await.unwrap();
    }
    let syncs = || spool.usage().syncs;
    let before = syncs();
    let notes = [(1, &[1][..]), (2, &[0]), (2, &[1]), (3, &[0, 1]), (4, &[0, 1]), (6, &[0, 1]), (7, &[0])];
    for (id, recipients) in notes {
        spool.sending(MessageId(id), recipients, false).await.unwrap().answered().await.unwrap();
    }
    // The one was not sent to after all, nor the other at first.
    for (id, recipient) in [(6, 0), (7, 0)] {
        spool.not_sent(MessageId(id), &[recipient]).await.unwrap().answered().await.unwrap();
    }
    spool.sending(MessageId(7), &[0], false).await.unwrap().answered().await.unwrap();
    assert_eq!(syncs(), before, "a note takes no sync");
    spool.sending(MessageId(5), &[0], true).await.unwrap().answered().await.unwrap();
    assert_eq!(syncs(), before + 1, "unless it is asked for");
    // One part has its outcome while the other is under way; an attempt has failed; a message is done.
    let mut half = state(0);
    half.recipients[0] = RecipientState::Delivered;
    let (id, fates) = (MessageId(2), Fates::of(Fate::Delivered, 1));
    let settlement = Settlement { id, state: Some(half), fates, under_way: vec![1], accept: vec![] };
    spool.settle(settlement).await.unwrap();
    spool.update(MessageId(3), state(1)).await.unwrap();
    spool.remove(MessageId(4), Fate::Delivered).await.unwrap();
    let expected = [(1, vec![1]), (2, vec![1]), (5, vec![0]), (6, vec![1]), (7, vec![0])];
    let expected = expected.map(|(id, recipients)| (MessageId(id), recipients));
    assert_eq!(open(image(directory.path()).path(), small()).1.ambiguous, expected);

    // Reclaiming takes it along.
    for id in 100..200 {
        store(&spool, id, 2_000).await.unwrap();
        spool.remove(MessageId(id), Fate::Delivered).await.unwrap();
    }
    reclaimed(&spool).await;
    assert!(!directory.path().join(file_name(1)).exists());
    assert_eq!(open(image(directory.path()).path(), small()).1.ambiguous, expected);
    let noted = spool.sending(MessageId(4), &[0], false).await.unwrap().answered().await;
    assert!(matches!(noted, Err(SpoolError::Unknown(_))));
    spool.update(MessageId(5), state(0)).await.unwrap();
    spool.close().await;
    let expected: Vec<_> = expected.into_iter().filter(|(id, _)| *id != MessageId(5)).collect();
    assert_eq!(open(directory.path(), small()).1.ambiguous, expected);
}

#[tokio::test]
async fn a_change_that_leaves_recipients_without_a_fate_is_refused() {
    let directory = directory();
    let (spool, _) = open(directory.path(), small());
    store(&spool, 1, 10).await.unwrap();
    let id = MessageId(1);
    for (state, fates) in [
        (None, Fates::of(Fate::Delivered, 1)),
        (None, Fates::of(Fate::Delivered, 3)),
        (Some(state(1)), Fates::of(Fate::Expired, 1)),
    ] {
        let refused = spool.settle(Settlement { id, state, fates, under_way: vec![], accept: vec![] }).await;
        assert!(matches!(refused, Err(SpoolError::Inconsistent(_))), "{refused:?}");
    }
    assert_stored(&spool, 1, 10, 0).await;
    assert_eq!((spool.usage().queued, spool.usage().ledger), (2, Ledger::accepted(2)));
}

#[tokio::test]
async fn concurrent_stores_share_syncs() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path(), Options::default());
    let before = spool.usage().syncs;
    let tasks: Vec<_> = (1..=200)
        .map(|id| {
            let spool = spool.clone();
            tokio::spawn(async move { store(&spool, id, 1_000).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let usage = spool.usage();
    assert_eq!((usage.messages, usage.records), (200, 401), "with the account that begins the segment");
    assert!(usage.syncs - before <= 100, "{} syncs for 200 stores", usage.syncs - before);
}

#[tokio::test]
async fn a_large_message_streams_through_in_chunks() {
    let directory = directory();
    let (spool, _) = open(directory.path(), Options::default());
    let size = 50 << 20;
    let all = content(1, size);
    let mut draft = spool.draft();
    for piece in all.chunks(60_000) {
        draft.append(all.slice_ref(piece)).await.unwrap();
        assert!(draft.buffered() <= CHUNK);
    }
    assert_eq!(draft.size(), size as u64);
    assert_eq!(spool.usage().messages, 0, "not there before its commit");
    draft.commit(envelope(1, size), state(0)).await.unwrap();
    assert_stored(&spool, 1, size, 0).await;
    spool.close().await;
    let (spool, recovery) = open(directory.path(), Options::default());
    assert_eq!((recovery.messages.len(), recovery.quarantined.len()), (1, 0));
    assert_stored(&spool, 1, size, 0).await;
}

#[tokio::test]
async fn content_at_the_edges_of_a_chunk_comes_back_as_it_was() {
    let directory = directory();
    let (spool, _) = open(directory.path(), Options::default());
    for (id, size) in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1].into_iter().enumerate() {
        store(&spool, id as u128, size).await.unwrap();
        assert_stored(&spool, id as u128, size, 0).await;
    }
}

#[tokio::test]
async fn an_abandoned_draft_leaves_nothing_and_does_not_hold_space() {
    let directory = directory();
    let (spool, _) = open(directory.path(), small());
    let mut draft = spool.draft();
    draft.append(content(9, 3 * CHUNK)).await.unwrap();
    assert!(spool.usage().total_bytes > 2 * CHUNK as u64);
    store(&spool, 1, 10).await.unwrap();
    assert_eq!(spool.usage().live_bytes, spool.handle.shared.index().live_bytes());
    drop(draft);
    store(&spool, 2, 10).await.unwrap();
    reclaimed(&spool).await;
    assert!(spool.usage().total_bytes < CHUNK as u64, "{:?}", spool.usage());
    spool.close().await;
    let (_, recovery) = open(directory.path(), small());
    assert_eq!((recovery.messages.len(), recovery.quarantined.len()), (2, 0));
}

#[tokio::test]
async fn a_draft_whose_segment_grew_old_can_still_be_committed() {
    let directory = directory();
    let (spool, _) = open(directory.path(), small());
    let mut draft = spool.draft();
    draft.append(content(1, 2 * CHUNK + 100)).await.unwrap();
    for id in 100..200 {
        store(&spool, id, 4_000).await.unwrap();
        spool.remove(MessageId(id), Fate::Delivered).await.unwrap();
    }
    reclaimed(&spool).await;
    draft.commit(envelope(1, 2 * CHUNK + 100), state(0)).await.unwrap();
    assert_stored(&spool, 1, 2 * CHUNK + 100, 0).await;
    for id in 200..300 {
        store(&spool, id, 10_000).await.unwrap();
        spool.remove(MessageId(id), Fate::Delivered).await.unwrap();
    }
    reclaimed(&spool).await;
    assert_stored(&spool, 1, 2 * CHUNK + 100, 0).await;
    spool.close().await;
    let (spool, _) = open(directory.path(), small());
    assert_stored(&spool, 1, 2 * CHUNK + 100, 0).await;
}

#[tokio::test]
async fn a_dropped_commit_leaves_the_message_in_full_or_not_at_all() {
    let directory = directory();
    let (spool, _) = open(directory.path(), small());
    let mut context = Context::from_waker(Waker::noop());
    for id in 1..50 {
        let mut draft = spool.draft();
        draft.append(content(id, 700)).await.unwrap();
        let mut commit = pin!(draft.commit(envelope(id, 700), state(0)));
        if id % 2 == 0 {
            let _ = commit.as_mut().poll(&mut context);
        }
    }
    store(&spool, 1_000, 10).await.unwrap();
    let mut stored = 0;
    for id in 1..50 {
        if spool.content(MessageId(id)).is_ok() {
            assert_stored(&spool, id, 700, 0).await;
            stored += 1;
        }
    }
    assert_eq!(stored, 24, "those whose commit was begun");
}

#[tokio::test]
async fn a_dropped_append_makes_the_draft_unusable() {
    let directory = directory();
    let (spool, _) = open(directory.path(), small());
    let mut draft = spool.draft();
    {
        let _held = spool.handle.shared.index();
        let mut append = pin!(draft.append(content(1, 2 * CHUNK)));
        assert!(append.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    assert!(matches!(draft.append(Bytes::from_static(b"x")).await, Err(SpoolError::Inconsistent(_))));
    assert!(matches!(draft.commit(envelope(1, 1), state(0)).await, Err(SpoolError::Inconsistent(_))));
}

#[tokio::test]
async fn contradictions_are_refused() {
    let directory = directory();
    let (spool, _) = open(directory.path(), small());
    store(&spool, 1, 10).await.unwrap();
    assert!(matches!(store(&spool, 1, 10).await, Err(SpoolError::Duplicate(MessageId(1)))));
    assert!(matches!(spool.update(MessageId(2), state(0)).await, Err(SpoolError::Unknown(_))));
    assert!(matches!(spool.remove(MessageId(2), Fate::Delivered).await, Err(SpoolError::Unknown(_))));
    assert!(matches!(spool.draft().commit(envelope(2, 7), state(0)).await, Err(SpoolError::Inconsistent(_))));
    let mut state = state(0);
    state.recipients.pop();
    assert!(matches!(spool.draft().commit(envelope(2, 0), state).await, Err(SpoolError::Inconsistent(_))));
    assert_eq!(spool.usage().messages, 1);
}

#[tokio::test]
async fn a_settlement_changes_one_message_and_accepts_others() {
    let directory = directory();
    let (spool, _) = open(directory.path(), small());
    for id in 1..=2 {
        store(&spool, id, 100).await.unwrap();
    }
    let dsn = |id, size| (envelope(id, size), state(0), content(id, size));
    let large = CHUNK + 10;
    let removing = settlement(1, None, vec![dsn(11, 800), dsn(12, large)]);
    spool.settle(removing.clone()).await.unwrap();
    let changing = settlement(2, Some(state(4)), vec![dsn(13, 0)]);
    spool.settle(changing).await.unwrap();
    assert!(matches!(spool.settle(removing).await, Err(SpoolError::Unknown(MessageId(1)))));
    let duplicate = settlement(2, None, vec![dsn(14, 1), dsn(11, 1)]);
    assert!(matches!(spool.settle(duplicate).await, Err(SpoolError::Duplicate(MessageId(11)))));
    spool.settle(settlement(13, None, vec![])).await.unwrap();
    for reopened in [false, true] {
        let spool = if reopened { open(directory.path(), small()).0 } else { spool.clone() };
        assert_eq!(spool.usage().messages, 3);
        assert_stored(&spool, 2, 100, 4).await;
        assert_stored(&spool, 11, 800, 0).await;
        assert_stored(&spool, 12, large, 0).await;
        spool.close().await;
    }
}

#[tokio::test]
async fn space_is_given_back_while_storing_and_the_message_that_stays_is_kept() {
    let directory = directory();
    let (spool, _) = open(directory.path(), small());
    store(&spool, 1, 3_000).await.unwrap();
    store(&spool, 2, CHUNK + 5).await.unwrap();
    spool.update(MessageId(1), state(2)).await.unwrap();
    let mut largest = 0;
    for id in 100..600 {
        store(&spool, id, 4_000).await.unwrap();
        spool.remove(MessageId(id), Fate::Delivered).await.unwrap();
        largest = largest.max(spool.usage().total_bytes);
    }
    reclaimed(&spool).await;
    let usage = spool.usage();
    assert!(usage.total_bytes <= 2 * usage.live_bytes + 6 * small().segment_bytes, "{usage:?}");
    assert!(largest < 1 << 20, "{largest} bytes at the most");
    assert!(!directory.path().join(file_name(1)).exists());
    for reopened in [false, true] {
        let spool = if reopened { open(directory.path(), small()).0 } else { spool.clone() };
        assert_eq!(spool.usage().messages, 2);
        assert_stored(&spool, 1, 3_000, 2).await;
        assert_stored(&spool, 2, CHUNK + 5, 0).await;
        spool.close().await;
    }
}

#[tokio::test]
async fn a_reader_goes_on_while_its_message_is_removed_and_reclaimed() {
    let directory = directory();
    let (spool, _) = open(directory.path(), small());
    store(&spool, 1, 3 * CHUNK).await.unwrap();
    let reader = spool.content(MessageId(1)).unwrap();
    spool.remove(MessageId(1), Fate::Delivered).await.unwrap();
    for id in 100..110 {
        store(&spool, id, 4_000).await.unwrap();
    }
    reclaimed(&spool).await;
    assert!(!directory.path().join(file_name(1)).exists());
    assert_eq!(read(reader).await.unwrap(), content(1, 3 * CHUNK));
}

#[tokio::test]
async fn a_full_spool_says_so_and_lets_mail_end() {
    let directory = directory();
    let options = Options { segment_bytes: 8 << 10, maximum_bytes: 160 << 10, ..small() };
    let (spool, _) = open(directory.path(), options);
    let mut health = spool.health();
    let mut id = 0;
    let refused = loop {
        match store(&spool, id + 1, 4_000).await {
            Ok(()) => id += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, SpoolError::Full { maximum: 163_840, .. }), "{refused}");
    assert_eq!(*health.borrow_and_update(), Health::Full);
    assert!(id > 30, "{id} messages fit");
    let mut draft = spool.draft();
    assert!(matches!(draft.append(content(500, 2 * CHUNK)).await, Err(SpoolError::Full { .. })));
    drop(draft);

    spool.update(MessageId(1), state(1)).await.unwrap();
    let dsn = (envelope(900, 2_000), state(0), content(900, 2_000));
    spool.settle(settlement(2, None, vec![dsn])).await.unwrap();
    for id in 3..id {
        spool.remove(MessageId(id), Fate::Delivered).await.unwrap();
    }
    health.wait_for(|health| *health == Health::Healthy).await.unwrap();
    store(&spool, 1_000, 4_000).await.unwrap();
    assert_stored(&spool, 1, 4_000, 1).await;
    assert_stored(&spool, 900, 2_000, 0).await;
}

#[tokio::test]
async fn a_prepared_segment_is_used_and_its_unused_part_is_no_damage() {
    let directory = directory();
    let options = Options { segment_bytes: 64 << 10, ..small() };
    let (spool, _) = open(directory.path(), options.clone());
    let spare = directory.path().join("spare");
    let active = || directory.path().join(file_name(spool.handle.shared.index().active()));
    let mut id = 0;
    // The first segment is begun before there is anything reserved.
    while fs::metadata(active()).unwrap().len() < 64 << 10 {
        id += 1;
        store(&spool, id, 4_000).await.unwrap();
        assert!(id < 10_000, "no prepared segment is ever used");
    }
    let last = active();
    let crashed = image(directory.path());
    assert_eq!(
        fs::metadata(crashed.path().join(last.file_name().unwrap())).unwrap().len(),
        64 << 10,
        "prepared, so longer than written"
    );
    let (_, recovery) = open(crashed.path(), options.clone());
    assert_eq!((recovery.messages.len() as u128, recovery.quarantined, recovery.torn_bytes), (id, vec![], 0));
    spool.close().await;
    assert_eq!(fs::metadata(&spare).unwrap().len(), 64 << 10, "kept for the next start");
    let (spool, recovery) = open(directory.path(), options);
    assert_eq!((recovery.messages.len() as u128, recovery.quarantined, recovery.clean), (id, vec![], true));
    let active = spool.handle.shared.index().active();
    let active = directory.path().join(file_name(active));
    assert_eq!(fs::metadata(active).unwrap().len(), 64 << 10, "the start went on in it");
}
