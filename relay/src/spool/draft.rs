//! A message that is being received.

use bytes::{Bytes, BytesMut};

use super::command::{Command, NewMessage};
use super::error::SpoolError;
use super::handle::Handle;
use super::record::{CHUNK, Record};
use super::shared::Pinned;
use crate::message::{DeliveryState, Envelope, MessageId};

/// Content on its way into the spool. Dropped without [`commit`](Self::commit), it leaves only bytes to be reclaimed.
///
/// Holds at most 256 KiB of the content in memory: a message up to that size goes to disk with its envelope in one write, a
/// larger one in chunks as it arrives.
#[derive(Debug)]
pub struct Draft {
    handle: Handle,
    content: MessageId,
    buffer: BytesMut,
    written: Vec<Pinned>,
    size: u64,
    /// A chunk was lost: it failed, or its caller went away while it was being written.
    broken: bool,
}

impl Draft {
    pub(super) fn new(handle: Handle) -> Self {
        let content = MessageId(rand::random());
        Self { handle, content, buffer: BytesMut::new(), written: Vec::new(), size: 0, broken: false }
    }

    /// Adds `chunk`, of any size, to the content.
    ///
    /// *Errors*: `Full` and `Unhealthy`; the draft is of no further use then. *Durability*: none before
    /// [`commit`](Self::commit). *Cancellation*: a dropped future makes the draft unusable, so that no part can go missing.
    pub async fn append(&mut self, chunk: Bytes) -> Result<(), SpoolError> {
        if self.broken {
            return Err(SpoolError::Inconsistent("a part of its content could not be kept"));
        }
        self.broken = true;
        for piece in chunk.chunks(CHUNK) {
            self.buffer.extend_from_slice(piece);
            if self.buffer.len() > CHUNK {
                self.write_chunk().await?;
            }
        }
        self.size += chunk.len() as u64;
        self.broken = false;
        Ok(())
    }

    async fn write_chunk(&mut self) -> Result<(), SpoolError> {
        let body = self.buffer.split_to(CHUNK).freeze();
        let record = Record::content(self.content, self.written.len() as u32, body);
        let chunk = self.handle.ask(|reply| Command::Content { record, reply }).await?;
        self.written.push(chunk);
        Ok(())
    }

    /// Octets appended so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of content held in memory.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Stores the message.
    ///
    /// *Durability*: content and envelope are on stable storage when this returns `Ok`: only now may 250 be said (promise
    /// P1). *Errors*: `Full`, `Unhealthy`, `Duplicate`; `Inconsistent` when `envelope.size` is not [`size`](Self::size) or
    /// the state has not as many recipients as the envelope. After `Unhealthy` the message may or may not be found by the
    /// next start. *Cancellation*: a dropped future leaves the message either stored in full or not at all; which of the two
    /// is not known to the caller.
    pub async fn commit(mut self, envelope: Envelope, state: DeliveryState) -> Result<(), SpoolError> {
        if self.broken {
            return Err(SpoolError::Inconsistent("a part of its content could not be kept"));
        }
        let rest = std::mem::take(&mut self.buffer).freeze();
        let written = std::mem::take(&mut self.written);
        let message = NewMessage::new(self.content, written, &rest, envelope, state)?;
        self.handle.ask(|reply| Command::Store { message, reply }).await
    }
}
