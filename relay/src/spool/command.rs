//! What handles ask of the writer, complete but for the records' places.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::error::SpoolError;
use super::index::Index;
use super::ledger::{Fate, Fates, Ledger};
use super::record::{Accepted, CHUNK, HEADER_BYTES, MAXIMUM_PAYLOAD, Record, State, queued};
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
    Change {
        change: Change,
        reply: Reply<()>,
    },
    /// A change and the messages that come with it.
    Settle {
        change: Change,
        messages: Vec<NewMessage>,
        reply: Reply<()>,
    },
    /// Notes that a content is about to be sent, or that it was not. Answered once it is written, or synced where its record
    /// says so.
    Sending {
        sending: Sending,
        reply: Reply<()>,
    },
    /// Ends a message: its recipients that are still queued have this fate.
    Remove {
        id: MessageId,
        fate: Fate,
        reply: Reply<()>,
    },
    Quarantine {
        id: MessageId,
        reason: String,
        reply: Reply<()>,
    },
    /// Makes known what earlier runs left.
    Restore {
        restored: Box<Restored>,
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
            Self::Content { record, .. } => record.record_bytes(),
            Self::Store { message, .. } => message.bytes(),
            Self::Change { change, .. } => change.record.record_bytes(),
            Self::Sending { sending, .. } => sending.record.record_bytes(),
            Self::Settle { change, messages, .. } => {
                let records: u64 = messages.iter().map(NewMessage::bytes).sum();
                HEADER_BYTES + records + change.record.record_bytes()
            }
            Self::Remove { id, fate, .. } => Change::end(*id, *fate, u32::MAX).record.record_bytes(),
            Self::Quarantine { id, .. } => {
                Change::end(*id, Fate::Quarantined, u32::MAX).record.record_bytes()
            }
            Self::Restore { restored, .. } => {
                let removals: u64 = restored.removals().iter().map(Record::record_bytes).sum();
                removals + Record::ledger(&Ledger::largest()).record_bytes()
            }
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
            | Self::Sending { reply, .. }
            | Self::Settle { reply, .. }
            | Self::Remove { reply, .. }
            | Self::Quarantine { reply, .. }
            | Self::Restore { reply, .. }
            | Self::Close { reply } => drop(reply.send(Err(error))),
        }
    }
}

/// What earlier runs left.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) index: Index,
    /// Messages put into quarantine, which the log has still to call removed.
    pub(super) damaged: Vec<MessageId>,
}

impl Restored {
    /// The removal of the damaged messages. They are in the account already.
    pub(super) fn removals(&self) -> Vec<Record> {
        self.damaged.iter().map(|id| Record::removed(*id, Fates::default())).collect()
    }
}

/// A `State` or `Removed` record of a stored message.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) record: Record,
    /// Recipients that are queued after it.
    pub(super) queued: u32,
    /// Recipients that may be being sent to after it.
    pub(super) under_way: Vec<u32>,
}

impl Change {
    /// The message's state from now on, or its removal, what became of recipients in between, and of which the attempt goes on.
    pub(super) fn new(
        id: MessageId,
        state: Option<DeliveryState>,
        fates: Fates,
        under_way: &[usize],
    ) -> Self {
        let Some(state) = state else {
            return Self { queued: 0, record: Record::removed(id, fates), under_way: Vec::new() };
        };
        let state = State { state, fates, under_way: indices(under_way) };
        Self { queued: queued(&state.state), record: Record::state(id, &state), under_way: state.under_way }
    }

    /// The removal of a message of which so many recipients are still queued.
    pub(super) fn end(id: MessageId, fate: Fate, recipients: u32) -> Self {
        Self::new(id, None, Fates::of(fate, u64::from(recipients)), &[])
    }
}

/// A `Sending` or `NotSent` record of a stored message.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) record: Record,
    pub(super) recipients: Vec<u32>,
}

impl Sending {
    /// For these recipients; `synced` when it must be on stable storage before the content is sent.
    pub(super) fn new(id: MessageId, recipients: &[usize], synced: bool) -> Self {
        let recipients = indices(recipients);
        Self { record: Record::sending(id, &recipients, synced), recipients }
    }

    /// Takes back what was noted of these recipients.
    pub(super) fn withdrawn(id: MessageId, recipients: &[usize]) -> Self {
        let recipients = indices(recipients);
        Self { record: Record::not_sent(id, &recipients), recipients }
    }
}

/// Envelopes have nowhere near as many recipients as these could number.
fn indices(recipients: &[usize]) -> Vec<u32> {
    recipients.iter().filter_map(|index| u32::try_from(*index).ok()).collect()
}

/// A message about to exist.
#[derive(Debug)]
pub(super) struct NewMessage {
    pub(super) id: MessageId,
    /// Recipients that are queued.
    pub(super) queued: u32,
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
        let queued = queued(&state);
        let accepted = Record::accepted(&Accepted {
            content,
            chunks,
            copied: false,
            sending: Vec::new(),
            envelope,
            state,
        });
        if accepted.payload_bytes() > MAXIMUM_PAYLOAD {
            return Err(SpoolError::Inconsistent("the envelope is too large"));
        }
        records.push(accepted);
        Ok(Self { id, queued, written, records })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.records.iter().map(Record::record_bytes).sum()
    }
}
