//! A departure over several processes: a file in the data folder tells the next one that messages may be under way to peers,
//! should it be told to stay after all.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::sync::mpsc;

use super::Sender;
use crate::message::MessageId;
use crate::submission::Accepted;

/// Exists from before the first message is given until none is under way any more.
const MARKER: &str = "handing-over";

/// What a relay does with its mail when it leaves, and when it does not leave any more.
#[derive(Clone, Debug)]
pub struct Departure {
    marker: PathBuf,
    sender: Sender,
}

impl Departure {
    /// For the relay with this data folder.
    #[must_use]
    pub fn new(data: &Path, sender: Sender) -> Self {
        Self { marker: data.join(MARKER), sender }
    }

    /// Passes on all that the spool holds. Nothing may be delivered or accepted meanwhile. Durability and cancellation as
    /// [`Sender::run`].
    pub async fn pass_on(&self) {
        self.sender.spool.recovered().await;
        // Without the marker a message under way could later be delivered here as well; its folder is the spool's volume.
        if let Err(error) = tokio::fs::write(&self.marker, []).await.and(sync(&self.marker)) {
            return tracing::error!(%error, "nothing is handed over: the data folder cannot be written");
        }
        let messages = self.sender.spool.ids_after(None, usize::MAX);
        tracing::info!(messages = messages.len(), "handing over");
        self.sender.run(messages).await;
        tracing::info!("everything is handed over");
    }

    /// Which messages a departure left under way, which are not to be delivered. Finds out in the background whose they are, and
    /// announces to `ours` what is this relay's. To be called once the spool has recovered.
    ///
    /// # Errors
    /// When the marker of a departure cannot be looked for.
    pub async fn resume(&self, ours: mpsc::WeakSender<Accepted>) -> anyhow::Result<HashSet<MessageId>> {
        let context = || format!("cannot look for {}", self.marker.display());
        if !tokio::fs::try_exists(&self.marker).await.with_context(context)? {
            return Ok(HashSet::new());
        }
        let under_way = self.sender.under_way(self.sender.spool.ids_after(None, usize::MAX)).await;
        tracing::info!(
            messages = under_way.len(),
            "a departure was broken off; messages under way are asked after"
        );
        let (sender, marker) = (self.sender.clone(), self.marker.clone());
        let messages = under_way.iter().copied().collect();
        tokio::spawn(async move {
            sender.resolve(messages, ours).await;
            if let Err(error) = tokio::fs::remove_file(&marker).await {
                tracing::warn!(%error, marker = %marker.display(), "cannot remove the mark of a departure that is over");
            }
        });
        Ok(under_way)
    }
}

/// Makes the marker's existence outlive a power cut.
fn sync(marker: &Path) -> io::Result<()> {
    marker.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
}
