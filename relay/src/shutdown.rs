//! How far the relay is on its way to stopping. One writer, many readers.

use tokio::sync::watch;

/// The phases, in their order; there is no way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Accepting and delivering.
    Serving,
    /// Not ready any more, yet still accepting, because clients learn late that the endpoint is gone.
    Leaving,
    /// Accepting nothing new; running mail transactions end; delivering.
    Draining,
    /// Running deliveries end.
    Stopping,
}

/// A reader's view of the phase.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Phase>);

/// Makes the writer and the first reader, in phase `Serving`.
#[must_use]
pub fn channel() -> (watch::Sender<Phase>, Shutdown) {
    let (sender, receiver) = watch::channel(Phase::Serving);
    (sender, Shutdown(receiver))
}

impl Shutdown {
    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits until `phase` is reached. Cancellation loses nothing.
    pub async fn reached(&mut self, phase: Phase) {
        if self.0.wait_for(|now| *now >= phase).await.is_err() {
            // The writer is gone with the process's main task: that is as far as it goes.
        }
    }
}
