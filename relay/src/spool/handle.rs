//! The callers' end of the channel to the writer.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::command::{Command, Reply};
use super::error::SpoolError;
use super::shared::Shared;

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
        let permit = self.commands.reserve().await.map_err(|_| self.shared.gone())?;
        let (reply, answer) = oneshot::channel();
        permit.send(command(reply));
        answer.await.unwrap_or_else(|_| Err(self.shared.gone()))
    }
}
