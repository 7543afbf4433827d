//! What the spool holds, in memory: where each message's records are, and how much of each segment is live.
//!
//! Pure bookkeeping. A message takes 57 bytes of the table, 65 to 130 with the table's spare room; one of more than one
//! chunk 12 bytes more for each. Written by recovery and the writer, read by everybody.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::ledger::Ledger;
use super::record::Location;
use super::segment::Segment;
use crate::message::MessageId;

/// Everything that is stored and known to be on stable storage.
#[derive(Debug, Default)]
pub(super) struct Index {
    messages: HashMap<Key, Entry>,
    /// Content locations of messages of more than one chunk; nearly all have one, which is in the entry.
    chunked: HashMap<Key, Box<[Location]>>,
    /// Recipients that a content may be on its way to, of the few messages that are being sent.
    sending: HashMap<Key, Vec<u32>>,
    /// All segments, the active one last.
    pub(super) segments: BTreeMap<u32, SegmentUse>,
    /// The account of recipients.
    pub(super) ledger: Ledger,
    queued: u64,
}

/// A segment and what its bytes are used for.
#[derive(Debug)]
pub(super) struct SegmentUse {
    pub(super) segment: Arc<Segment>,
    /// Bytes written to it.
    pub(super) written: u64,
    /// Bytes of records that a stored message consists of.
    pub(super) live: u64,
    /// Bytes of content of messages still being received.
    pub(super) drafts: u64,
}

/// A message id with the alignment of four bytes, which saves twelve in each entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key([u32; 4]);

impl From<MessageId> for Key {
    fn from(id: MessageId) -> Self {
        Self([0, 32, 64, 96].map(|shift| (id.0 >> shift) as u32))
    }
}

impl From<Key> for MessageId {
    fn from(key: Key) -> Self {
        Self(key.0.iter().rev().fold(0, |id, word| (id << 32) | u128::from(*word)))
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    accepted: Location,
    /// The latest `State` record; the state is in the `Accepted` record when there is none.
    state: Option<Location>,
    /// The only chunk; without one the content is empty or `chunked`.
    content: Option<Location>,
    /// Recipients still to be delivered.
    queued: u32,
}

/// Where the parts of one message are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) accepted: Location,
    pub(super) state: Option<Location>,
    pub(super) content: Vec<Location>,
}

impl Parts {
    fn locations(&self) -> impl Iterator<Item = Location> {
        self.content.iter().copied().chain([self.accepted]).chain(self.state)
    }
}

impl Index {
    pub(super) fn messages(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn contains(&self, id: MessageId) -> bool {
        self.messages.contains_key(&id.into())
    }

    /// The ids of all messages, in no order. Some 5 ms a million.
    pub(super) fn ids(&self) -> impl Iterator<Item = MessageId> {
        self.messages.keys().map(|key| MessageId::from(*key))
    }

    /// Recipients of all messages that are still to be delivered.
    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    /// Those of one message; `None` when there is no such message.
    pub(super) fn queued_of(&self, id: MessageId) -> Option<u32> {
        self.messages.get(&id.into()).map(|entry| entry.queued)
    }

    pub(super) fn parts(&self, id: MessageId) -> Option<Parts> {
        let key = id.into();
        let entry = self.messages.get(&key)?;
        let content = match (entry.content, self.chunked.get(&key)) {
            (Some(only), _) => vec![only],
            (None, chunks) => chunks.map(|chunks| chunks.to_vec()).unwrap_or_default(),
        };
        Some(Parts { accepted: entry.accepted, state: entry.state, content })
    }

    /// The message exists, with its state in the `Accepted` record and so many recipients queued. Replaces what was known of
    /// it: copied parts.
    pub(super) fn accept(&mut self, id: MessageId, accepted: Location, content: &[Location], queued: u32) {
        self.forget(id);
        let only = if let [only] = content { Some(*only) } else { None };
        if content.len() > 1 {
            self.chunked.insert(id.into(), content.into());
        }
        self.queued += u64::from(queued);
        self.messages.insert(id.into(), Entry { accepted, state: None, content: only, queued });
        content.iter().chain([&accepted]).for_each(|location| self.add_live(*location));
    }

    /// The message's state is now in the record at `state`, with so many recipients queued, and of others than those `under_way`
    /// the attempt has come to an outcome; false when there is no such message.
    pub(super) fn change_state(
        &mut self,
        id: MessageId,
        state: Location,
        queued: u32,
        under_way: &[u32],
    ) -> bool {
        self.keep_sending(id, |index| under_way.contains(index));
        let Some(entry) = self.messages.get_mut(&id.into()) else { return false };
        self.queued = self.queued - u64::from(entry.queued) + u64::from(queued);
        entry.queued = queued;
        let superseded = entry.state.replace(state);
        self.add_live(state);
        superseded.into_iter().for_each(|location| self.subtract_live(location));
        true
    }

    /// The message's content is about to be sent to these recipients.
    pub(super) fn send(&mut self, id: MessageId, recipients: &[u32]) {
        if !recipients.is_empty() && self.contains(id) {
            let sending = self.sending.entry(id.into()).or_default();
            sending.extend_from_slice(recipients);
            sending.sort_unstable();
            sending.dedup();
        }
    }

    /// The end of the message's content was not sent to these recipients.
    pub(super) fn not_sent(&mut self, id: MessageId, recipients: &[u32]) {
        self.keep_sending(id, |index| !recipients.contains(index));
    }

    fn keep_sending(&mut self, id: MessageId, kept: impl Fn(&u32) -> bool) {
        if let Some(sending) = self.sending.get_mut(&id.into()) {
            sending.retain(kept);
            if sending.is_empty() {
                self.sending.remove(&id.into());
            }
        }
    }

    /// The recipients of a message that its content may be on its way to.
    pub(super) fn sending(&self, id: MessageId) -> &[u32] {
        self.sending.get(&id.into()).map(Vec::as_slice).unwrap_or_default()
    }

    /// The messages that are being sent.
    pub(super) fn being_sent(&self) -> impl Iterator<Item = MessageId> {
        self.sending.keys().map(|key| MessageId::from(*key))
    }

    /// The message is gone; false when there was none.
    pub(super) fn remove(&mut self, id: MessageId) -> bool {
        self.sending.remove(&id.into());
        self.forget(id)
    }

    fn forget(&mut self, id: MessageId) -> bool {
        let Some(parts) = self.parts(id) else { return false };
        parts.locations().for_each(|location| self.subtract_live(location));
        let entry = self.messages.remove(&id.into());
        self.queued -= entry.map_or(0, |entry| u64::from(entry.queued));
        self.chunked.remove(&id.into());
        true
    }

    /// Adds what an earlier run left, of other messages and other segments. The account is the caller's to set.
    pub(super) fn restore(&mut self, earlier: Self) {
        let later = std::mem::replace(self, earlier);
        // Into the larger table, nearly always.
        self.messages.extend(later.messages);
        self.chunked.extend(later.chunked);
        self.sending.extend(later.sending);
        self.segments.extend(later.segments);
        self.queued += later.queued;
    }

    fn add_live(&mut self, location: Location) {
        if let Some(usage) = self.segments.get_mut(&location.segment) {
            usage.live += location.record_bytes();
        }
    }

    fn subtract_live(&mut self, location: Location) {
        if let Some(usage) = self.segments.get_mut(&location.segment) {
            usage.live -= location.record_bytes();
        }
    }

    /// The messages with any part in `segment`, in the order of their first part there. Looks at every message: some
    /// 10 ms a million.
    pub(super) fn in_segment(&self, segment: u32) -> Vec<MessageId> {
        let first = |key: &Key, entry: &Entry| {
            let chunks = self.chunked.get(key).map(|chunks| &**chunks).unwrap_or_default();
            let parts =
                chunks.iter().copied().chain(entry.content).chain([entry.accepted]).chain(entry.state);
            parts.filter(|location| location.segment == segment).map(Location::offset).min()
        };
        let mut found: Vec<_> = self
            .messages
            .iter()
            .filter_map(|(key, entry)| first(key, entry).map(|offset| (offset, MessageId::from(*key))))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, id)| id).collect()
    }

    pub(super) fn segment(&self, number: u32) -> Option<Arc<Segment>> {
        self.segments.get(&number).map(|usage| usage.segment.clone())
    }

    /// The newest segment's number.
    pub(super) fn active(&self) -> u32 {
        self.segments.last_key_value().map_or(0, |(number, _)| *number)
    }

    pub(super) fn total_bytes(&self) -> u64 {
        self.segments.values().map(|usage| usage.written).sum()
    }

    pub(super) fn live_bytes(&self) -> u64 {
        self.segments.values().map(|usage| usage.live).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_as_small_as_the_docs_say() {
        assert_eq!(size_of::<(Key, Entry)>(), 56);
    }

    #[test]
    fn a_key_is_its_id() {
        for id in [0, 1, u128::MAX, 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff] {
            assert_eq!(MessageId::from(Key::from(MessageId(id))), MessageId(id));
        }
    }
}
