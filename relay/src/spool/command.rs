//! What handles ask of the writer, complete but for the records' places.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::error::SpoolError;
use super::record::{Accepted, CHUNK, HEADER_BYTES, MAXIMUM_PAYLOAD, Record};
use super::shared::Pinned;
use crate::message::{DeliveryState, Envelope, MessageId};

/// Where the answer to a command goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, SpoolError>>;

/// One request to the writer.
#[derive(Debug)]
pub(super) enum Command {
    /// Writes a chunk of a draft; not durable when answered.
    Content {
        record: Record,
        reply: Reply<Pinned>,
    },
    Store {
        message: NewMessage,
        reply: Reply<()>,
    },
    /// A `State` or `Removed` record of a stored message.
    Change {
        record: Record,
        reply: Reply<()>,
    },
    /// A change and the messages that come with it.
    Settle {
        record: Record,
        messages: Vec<NewMessage>,
        reply: Reply<()>,
    },
    Quarantine {
        id: MessageId,
        reason: String,
        reply: Reply<()>,
    },
    Close {
        reply: Reply<()>,
    },
}

impl Command {
    /// Bytes it adds to the log, which have to lie in one segment.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Content { record, .. } | Self::Change { record, .. } => record.record_bytes(),
            Self::Store { message, .. } => message.bytes(),
            Self::Settle { record, messages, .. } => {
                let records: u64 = messages.iter().map(NewMessage::bytes).sum();
                HEADER_BYTES + records + record.record_bytes()
            }
            Self::Quarantine { id, .. } => Record::removed(*id).record_bytes(),
            Self::Close { .. } => 0,
        }
    }

    /// Answers it with an error.
    pub(super) fn refuse(self, error: SpoolError) {
        // A caller that is gone needs no answer.
        match self {
            Self::Content { reply, .. } => drop(reply.send(Err(error))),
            Self::Store { reply, .. }
            | Self::Change { reply, .. }
            | Self::Settle { reply, .. }
            | Self::Quarantine { reply, .. }
            | Self::Close { reply } => drop(reply.send(Err(error))),
        }
    }
}

/// A message about to exist.
#[derive(Debug)]
pub(super) struct NewMessage {
    pub(super) id: MessageId,
    /// The chunks written before, in order.
    pub(super) written: Vec<Pinned>,
    /// The chunks that follow them, then `accepted`.
    pub(super) records: Vec<Record>,
}

impl NewMessage {
    /// A message whose content is in hand.
    pub(super) fn whole(
        envelope: Envelope,
        state: DeliveryState,
        content: &Bytes,
    ) -> Result<Self, SpoolError> {
        let id = envelope.id;
        Self::new(id, Vec::new(), content, envelope, state)
    }

    /// A message whose content `content` is on disk as far as `written` goes, and goes on with `rest`.
    pub(super) fn new(
        content: MessageId,
        written: Vec<Pinned>,
        rest: &Bytes,
        envelope: Envelope,
        state: DeliveryState,
    ) -> Result<Self, SpoolError> {
        let before: u64 = written.iter().map(|chunk| chunk.location.content_bytes()).sum();
        if envelope.size != before + rest.len() as u64 {
            return Err(SpoolError::Inconsistent("the envelope's size is not the content's"));
        }
        if envelope.recipients.len() != state.recipients.len() {
            return Err(SpoolError::Inconsistent("the state's recipients are not the envelope's"));
        }
        if rest.len() > MAXIMUM_PAYLOAD {
            return Err(SpoolError::Inconsistent("too large to be stored in one piece"));
        }
        let id = envelope.id;
        // Content that goes to disk with its envelope bears the message's id, so that it can be told without the envelope.
        let content = if written.is_empty() { id } else { content };
        let first = written.len();
        let mut records: Vec<_> = (0..rest.len())
            .step_by(CHUNK)
            .enumerate()
            .map(|(number, at)| {
                Record::content(content, (first + number) as u32, rest.slice(at..rest.len().min(at + CHUNK)))
            })
            .collect();
        let chunks = (first + records.len()) as u32;
        let accepted = Record::accepted(&Accepted { content, chunks, envelope, state });
        if accepted.payload_bytes() > MAXIMUM_PAYLOAD {
            return Err(SpoolError::Inconsistent("the envelope is too large"));
        }
        records.push(accepted);
        Ok(Self { id, written, records })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.records.iter().map(Record::record_bytes).sum()
    }
}
