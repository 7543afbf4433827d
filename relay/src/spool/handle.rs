//! The callers' end of the channel to the writer.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::command::{Command, Reply};
use super::error::SpoolError;
use super::shared::Shared;

/// The answer to what was asked of the writer, which may be awaited later.
///
/// *Cancellation*: what was asked is carried out whether anybody awaits the answer or not.
#[derive(Debug)]
pub struct Pending<T> {
    answer: oneshot::Receiver<Result<T, SpoolError>>,
    shared: Arc<Shared>,
}

impl<T> Pending<T> {
    /// Waits for the answer. *Durability* and *errors* are those of what was asked.
    pub async fn answered(self) -> Result<T, SpoolError> {
        self.answer.await.unwrap_or_else(|_| Err(self.shared.gone()))
    }
}

/// Asks the writer, and knows what it shares.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>, commands: mpsc::Sender<Command>) -> Self {
        Self { shared, commands }
    }

    /// Sends a command and awaits its answer. Dropped before the command was sent, nothing happens; dropped later, the
    /// command is carried out all the same.
    pub(super) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, SpoolError> {
        self.send(command).await?.answered().await
    }

    /// Sends a command, behind all that were sent before.
    pub(super) async fn send<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<Pending<T>, SpoolError> {
        let permit = self.commands.reserve().await.map_err(|_| self.shared.gone())?;
        let (reply, answer) = oneshot::channel();
        permit.send(command(reply));
        Ok(Pending { answer, shared: self.shared.clone() })
    }
}
