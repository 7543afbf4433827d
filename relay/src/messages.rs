//! Where dispatch and delivery find a message: in the spool, or, while its client waits for the upstream's reply, in transit.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::message::{DeliveryState, MessageId};
use crate::spool::{self, Spool, SpoolError, Stored};
use crate::transit::Transit;

/// All messages. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Messages {
    /// Those that are stored.
    pub spool: Spool,
    /// Those that pass through.
    pub transit: Transit,
}

/// The content of one message, in pieces. It stays readable when the message is removed meanwhile.
#[derive(Debug)]
pub enum ContentReader {
    /// Of a stored message.
    Stored(spool::ContentReader),
    /// Of one in transit.
    InTransit(VecDeque<Bytes>),
}

impl Messages {
    /// A message without its content.
    ///
    /// # Errors
    /// As [`Spool::load`].
    pub async fn load(&self, id: MessageId) -> Result<Stored, SpoolError> {
        match self.transit.envelope(id) {
            Some(envelope) => {
                let state = DeliveryState::new(envelope.recipients.len(), envelope.accepted_at);
                Ok(Stored { envelope: (*envelope).clone(), state })
            }
            None => self.spool.load(id).await,
        }
    }

    /// Its content, to be read in pieces.
    ///
    /// # Errors
    /// As [`Spool::content`].
    pub fn content(&self, id: MessageId) -> Result<ContentReader, SpoolError> {
        match self.transit.content(id) {
            Some(content) => Ok(ContentReader::InTransit(content)),
            None => Ok(ContentReader::Stored(self.spool.content(id)?)),
        }
    }
}

impl ContentReader {
    /// The next piece; `None` behind the last.
    ///
    /// # Errors
    /// As [`spool::ContentReader::next`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, SpoolError> {
        match self {
            Self::Stored(reader) => reader.next().await,
            Self::InTransit(content) => Ok(content.pop_front()),
        }
    }

    /// Whether everything has been read.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        match self {
            Self::Stored(reader) => reader.is_at_end(),
            Self::InTransit(content) => content.is_empty(),
        }
    }
}
