//! Messages that pass through: kept in memory while their clients wait for the upstream's own reply, and nowhere else. A relay that
//! dies loses none that it has taken responsibility for, as it has said 250 to none.
//!
//! Leaf: submission puts them here, dispatch and delivery read them, dispatch takes them out with the reply for the client.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use smtp_protocol::Reply;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::message::{Envelope, MessageId};

/// How long a message may wait for an upstream to begin with it. What an upstream has begun with is waited for as long as the
/// protocol says (RFC 5321 §4.5.3.2). Clients wait ten minutes for the reply to their final dot (§4.5.3.2.6), many libraries less.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Octets of content in one piece of memory.
const CHUNK: usize = 64 << 10;
/// Octets of content at once, where the relay's memory has no limit.
const UNLIMITED: usize = 256 << 20;

/// The messages in transit. Cheap to clone; clones are the same ones.
#[derive(Clone, Debug)]
pub struct Transit {
    messages: Arc<Mutex<HashMap<MessageId, Passing>>>,
    /// One permit an octet of content.
    room: Arc<Semaphore>,
    octets: usize,
}

/// A message in transit.
#[derive(Debug)]
pub struct Passing {
    /// Its envelope.
    pub envelope: Arc<Envelope>,
    content: VecDeque<Bytes>,
    answer: oneshot::Sender<Reply>,
    _room: Option<OwnedSemaphorePermit>,
}

/// Why no more content can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// Other messages take it: later there is some.
    #[error("other messages in transit take up the memory for them")]
    Now,
    /// There never is.
    #[error("the message is larger than the {0} octets of memory for messages in transit")]
    Ever(usize),
}

/// A message that is being received. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Draft {
    transit: Transit,
    content: VecDeque<Bytes>,
    last: BytesMut,
    room: Option<OwnedSemaphorePermit>,
    size: u64,
}

impl Transit {
    /// None yet. Their contents take a quarter of `memory` at most, if there is a limit to it.
    #[must_use]
    pub fn new(memory: Option<u64>) -> Self {
        let quarter = |memory: u64| usize::try_from(memory / 4).unwrap_or(usize::MAX);
        let octets = memory.map_or(UNLIMITED, quarter).min(Semaphore::MAX_PERMITS);
        Self { messages: Arc::default(), room: Arc::new(Semaphore::new(octets)), octets }
    }

    /// Begins a message.
    #[must_use]
    pub fn draft(&self) -> Draft {
        let transit = self.clone();
        Draft { transit, content: VecDeque::new(), last: BytesMut::new(), room: None, size: 0 }
    }

    /// The envelope of a message in transit; `None` when it is not, or no longer.
    #[must_use]
    pub fn envelope(&self, id: MessageId) -> Option<Arc<Envelope>> {
        Some(self.messages().get(&id)?.envelope.clone())
    }

    /// The content of a message in transit, in pieces. Shared, not copied.
    #[must_use]
    pub fn content(&self, id: MessageId) -> Option<VecDeque<Bytes>> {
        Some(self.messages().get(&id)?.content.clone())
    }

    /// Takes a message out, to be [answered](Passing::answer).
    #[must_use]
    pub fn take(&self, id: MessageId) -> Option<Passing> {
        self.messages().remove(&id)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.messages().len()
    }

    fn messages(&self) -> MutexGuard<'_, HashMap<MessageId, Passing>> {
        // Nothing that is done under the lock leaves the map half changed.
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passing {
    /// Tells the client. Nobody hears it when the client's session has ended meanwhile.
    pub fn answer(self, reply: Reply) {
        let _ = self.answer.send(reply);
    }
}

impl Draft {
    /// Adds `slice` to the content.
    ///
    /// # Errors
    /// When there is no memory for it; the draft is of no further use then, and holds none any more, however long its client takes
    /// to come to its end.
    pub fn append(&mut self, slice: &[u8]) -> Result<(), NoRoom> {
        let added = self.add(slice);
        if added.is_err() {
            *self = self.transit.draft();
        }
        added
    }

    fn add(&mut self, slice: &[u8]) -> Result<(), NoRoom> {
        if slice.is_empty() {
            return Ok(());
        }
        self.size += slice.len() as u64;
        let octets = self.transit.octets;
        let permits = u32::try_from(slice.len()).map_err(|_| NoRoom::Ever(octets))?;
        if self.size > octets as u64 {
            return Err(NoRoom::Ever(octets));
        }
        let room = self.transit.room.clone().try_acquire_many_owned(permits).map_err(|_| NoRoom::Now)?;
        match &mut self.room {
            Some(held) => held.merge(room),
            None => self.room = Some(room),
        }
        self.last.extend_from_slice(slice);
        if self.last.len() >= CHUNK {
            self.content.push_back(self.last.split().freeze());
        }
        Ok(())
    }

    /// Octets appended so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Puts the message in transit. What it returns hears the upstream's reply, or that there will be none when nobody is left to
    /// give it.
    #[must_use]
    pub fn send(mut self, envelope: Arc<Envelope>) -> oneshot::Receiver<Reply> {
        if !self.last.is_empty() {
            self.content.push_back(self.last.freeze());
        }
        let (answer, reply) = oneshot::channel();
        let id = envelope.id;
        let passing = Passing { envelope, content: self.content, answer, _room: self.room };
        self.transit.messages().insert(id, passing);
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_is_there_until_its_client_is_answered() {
        let transit = Transit::new(None);
        let mut draft = transit.draft();
        let piece = vec![b'x'; CHUNK - 1];
        for _ in 0..3 {
            draft.append(&piece).unwrap();
        }
        let size = draft.size();
        let mut reply = draft.send(Arc::new(Envelope::example(1)));
        let content = transit.content(MessageId(1)).unwrap();
        assert_eq!(content.iter().map(Bytes::len).sum::<usize>() as u64, size);
        assert!(reply.try_recv().is_err() && transit.count() == 1);
        transit.take(MessageId(1)).unwrap().answer(Reply::new(250, (2, 0, 0), "kept"));
        assert_eq!(reply.await.unwrap().to_string(), "250 2.0.0 kept");
        assert!(transit.envelope(MessageId(1)).is_none() && transit.count() == 0);
    }

    #[test]
    fn contents_take_a_quarter_of_the_memory_and_give_it_back() {
        let transit = Transit::new(Some(400));
        let mut first = transit.draft();
        first.append(&[0; 60]).unwrap();
        let mut second = transit.draft();
        assert_eq!((second.append(&[0; 30]), second.append(&[0; 30])), (Ok(()), Err(NoRoom::Now)));
        assert_eq!(transit.draft().append(&[0; 40]), Ok(()), "one that has failed holds none");
        assert_eq!(transit.draft().append(&[0; 101]), Err(NoRoom::Ever(100)));
        let waiting = first.send(Arc::new(Envelope::example(1)));
        assert_eq!(transit.draft().append(&[0; 60]), Err(NoRoom::Now), "it is in transit");
        drop((waiting, transit.take(MessageId(1))));
        assert_eq!(transit.draft().append(&[0; 100]), Ok(()));
    }
}
