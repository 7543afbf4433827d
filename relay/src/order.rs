//! What may be ordered about a message or an upstream. Leaf: the admin API and clients' sessions give orders, dispatch carries them out.

use postroad_crds::relay_config::Standing;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::message::MessageId;
use crate::spool::SpoolError;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Act {
    /// The next attempt is due now.
    Retry,
    /// It is not attempted, nor given up, until it is released; over restarts too.
    Hold,
    /// It is held no longer, and due now.
    Release,
    /// It is given up. Nobody is told but the log.
    Drop,
}

impl Act {
    /// Its name in the API and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Drop => "drop",
        }
    }
}

/// An order.
#[derive(Debug)]
pub enum Order {
    /// About a message.
    Message(MessageOrder),
    /// About an upstream.
    Upstream(UpstreamOrder),
    /// Of the message's own client, which waits no longer: what has not been begun with is not delivered.
    GiveUp(MessageId),
}

/// An order about an upstream, and where it is to be answered: with where all upstreams stand then, or `None` when there is none of
/// this name.
#[derive(Debug)]
pub struct UpstreamOrder {
    /// Which one is to be drained, or to be given mail again; `None` asks only where they stand.
    pub act: Option<(String, UpstreamAct)>,
    /// Hears what came of it.
    pub answer: oneshot::Sender<Option<Vec<UpstreamState>>>,
}

/// What is to be done with an upstream. It is done when it is answered, and forgotten when the relay ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UpstreamAct {
    /// It is given no more mail. What waits for it goes another way, where a route has one that works, else it waits on.
    Drain,
    /// It is given mail again.
    Resume,
}

impl UpstreamAct {
    /// Its name in the API and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Resume => "resume",
        }
    }
}

/// Where an upstream stands at one relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamState {
    /// The Upstream.
    pub name: String,
    /// Whether a person has ordered that it is given nothing.
    pub drained: bool,
    /// Whether mail that has another way goes to it all the same.
    pub works: bool,
    /// Messages, or parts of them, that are due and wait for it.
    pub waiting: u64,
    /// Sessions that stand.
    pub sessions: u64,
    /// Sessions that it may have now.
    pub allowed_sessions: u64,
    /// Why it gets nothing, or is only tried, in words for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
    /// The same as `drained` and `works` in one word, with what these do not tell apart.
    pub standing: Standing,
    /// The port on which the last session was opened; none for a sandbox, and before the first session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Why ports that are preferred to it were passed over, a reason a port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<String>,
}

/// An order about a message, and where it is to be answered: `Ok` when what it says is on stable storage.
#[derive(Debug)]
pub struct MessageOrder {
    /// The message.
    pub id: MessageId,
    /// What is to be done.
    pub act: Act,
    /// Hears what came of it.
    pub answer: oneshot::Sender<Result<(), OrderRefused>>,
}

/// Why an order is not carried out. The message is as it was.
#[derive(Debug, thiserror::Error)]
pub enum OrderRefused {
    /// A session has it, or an outcome is being recorded.
    #[error("message {0} is being delivered; ask again in a moment")]
    UnderWay(MessageId),
    /// It cannot be tried because it is held.
    #[error("message {0} is held; release it and it is tried at once")]
    Held(MessageId),
    /// There is nothing to release.
    #[error("message {0} is not held")]
    NotHeld(MessageId),
    /// The spool could not be read or written.
    #[error("not done: {0}")]
    Spool(#[from] SpoolError),
}
