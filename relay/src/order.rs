//! What a person may have done with a queued message. Leaf: the admin API gives orders, dispatch carries them out.

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

/// An order, and where it is to be answered: `Ok` when what it says is on stable storage.
#[derive(Debug)]
pub struct Order {
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
