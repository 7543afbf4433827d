//! What the spool's tests share.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use super::super::{
    ContentReader, Fate, Fates, Options, Quarantined, Recovered, Recovery, Settlement, Spool, SpoolError,
    Stored,
};
use crate::message::{DeliveryState, Envelope, MessageId, Timestamp};

/// Small segments, so that a test sees many of them.
pub(super) fn small() -> Options {
    Options { segment_bytes: 8 << 10, maximum_bytes: 64 << 20, reclaim_bytes_per_batch: 16 << 10 }
}

/// A directory in memory where there is one: crashes are simulated by copies, so no test but those of timing needs a disk.
pub(super) fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// What a start found, in the order of ids.
pub(super) struct Found {
    pub(super) messages: Vec<Recovered>,
    /// In the order of ids.
    pub(super) ambiguous: Vec<(MessageId, Vec<usize>)>,
    pub(super) quarantined: Vec<Quarantined>,
    pub(super) torn_bytes: u64,
    pub(super) clean: bool,
}

/// Opens the spool and waits until all of it is read.
pub(super) fn open(directory: &Path, options: Options) -> (Spool, Found) {
    let (spool, recovering) = Spool::open(directory, options).unwrap();
    let Recovery { messages, mut ambiguous, quarantined, torn_bytes, clean, .. } =
        recovering.finished_blocking().unwrap();
    ambiguous.sort_unstable();
    let mut messages: Vec<_> = messages.collect();
    messages.sort_unstable_by_key(|message| message.id);
    (spool, Found { messages, ambiguous, quarantined, torn_bytes, clean })
}

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub(super) fn envelope(id: u128, size: usize) -> Envelope {
    Envelope {
        id: MessageId(id),
        reverse_path: "app@example.com".into(),
        recipients: vec!["a@example.org".into(), "b@example.org".into()],
        eight_bit: false,
        smtp_utf8: false,
        ret: None,
        envelope_id: None,
        size: size as u64,
        accepted_at: Timestamp(1_000 + id as u64),
        identity: Some(format!("rule-{}", id % 2)),
        user: None,
    }
}

pub(super) fn state(attempts: u32) -> DeliveryState {
    DeliveryState { attempts, ..DeliveryState::new(2, Timestamp(5_000 + u64::from(attempts))) }
}

/// The message's next state, or its end with both recipients delivered, and what comes with it.
pub(super) fn settlement(
    id: u128,
    state: Option<DeliveryState>,
    accept: Vec<(Envelope, DeliveryState, Bytes)>,
) -> Settlement {
    let fates = if state.is_none() { Fates::of(Fate::Delivered, 2) } else { Fates::default() };
    Settlement { id: MessageId(id), state, fates, under_way: vec![], accept }
}

/// What was accepted has ended or is queued.
pub(super) fn assert_balanced(spool: &Spool) {
    let usage = spool.usage();
    assert_eq!(usage.ledger.accepted, usage.ledger.fates.total() + usage.queued, "{usage:?}");
}

/// Bytes that are this message's own.
pub(super) fn content(id: u128, size: usize) -> Bytes {
    let mut word = id as u64 ^ 0x9e37_79b9_7f4a_7c15;
    std::iter::repeat_with(|| {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        word as u8
    })
    .take(size)
    .collect()
}

pub(super) async fn store(spool: &Spool, id: u128, size: usize) -> Result<(), SpoolError> {
    let mut draft = spool.draft();
    draft.append(content(id, size)).await?;
    draft.commit(envelope(id, size), state(0)).await
}

pub(super) async fn read(mut reader: ContentReader) -> Result<Vec<u8>, SpoolError> {
    let mut all = Vec::new();
    while let Some(chunk) = reader.next().await? {
        assert!(!chunk.is_empty() && chunk.len() <= 256 << 10, "a chunk of {} bytes", chunk.len());
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

/// The message is there with this state, and its content is its own.
pub(super) async fn assert_stored(spool: &Spool, id: u128, size: usize, attempts: u32) {
    assert_stored_as(spool, id, size, state(attempts)).await;
}

/// The same with any state.
pub(super) async fn assert_stored_as(spool: &Spool, id: u128, size: usize, state: DeliveryState) {
    let stored = spool.load(MessageId(id)).await.unwrap();
    assert_eq!(stored, Stored { envelope: envelope(id, size), state });
    let reader = spool.content(MessageId(id)).unwrap();
    assert_eq!(reader.size(), size as u64);
    assert!(read(reader).await.unwrap() == content(id, size), "content of {id}");
}

/// What a crash would leave behind: the files as they are, without the lock and the prepared segment.
pub(super) fn image(directory: &Path) -> TempDir {
    let copy = self::directory();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if name.to_str().unwrap().starts_with("segment-") {
            fs::copy(entry.path(), copy.path().join(name)).unwrap();
        }
    }
    copy
}

/// Waits until reclaiming has nothing left to do.
pub(super) async fn reclaimed(spool: &Spool) {
    watch("reclaiming ends", || !spool.usage().reclaiming).await;
}

/// Waits until `condition` holds.
pub(super) async fn watch(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..20_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never: {what}");
}
