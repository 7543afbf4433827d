//! What earlier runs left in the spool becomes dispatch's.

use tokio::sync::mpsc;

use crate::ambiguity::Ambiguity;
use crate::handover::Departure;
use crate::message::Timestamp;
use crate::spool::{Recovered, Recovering, Recovery, SpoolError};
use crate::submission::Accepted;
use crate::telemetry;

/// Recovered messages that dispatch is told of at once; between two such batches it looks at everything else.
const BATCH: usize = 1024;

/// Settles what earlier runs were sending, once all they left is read, and gives it to dispatch, but for what a departure left
/// under way: that is announced when it turns out to be this relay's. Mail is taken and delivered meanwhile. A relay that passes
/// on all it has is `resuming` nothing.
pub(super) async fn recover(
    recovering: Recovering,
    ambiguity: Ambiguity,
    resuming: Option<(Departure, mpsc::WeakSender<Accepted>)>,
    recovered: mpsc::Sender<Vec<Recovered>>,
) {
    let recovery = match recovering.finished().await {
        Ok(recovery) => recovery,
        Err(SpoolError::Closed) => return,
        Err(error) => return tracing::error!(%error, "what earlier runs left in the spool cannot be read"),
    };
    report(&recovery);
    let held = ambiguity.settle(recovery.ambiguous).await;
    let Some((departure, announced)) = resuming else { return };
    let under_way = match departure.resume(announced).await {
        Ok(under_way) => under_way,
        Err(error) => {
            let error = telemetry::sentence(&error);
            return tracing::error!(error, "what earlier runs left is not delivered before the next start");
        }
    };
    let due = |message: Recovered| {
        let due_at = if held.contains(&message.id) { Timestamp::NEVER } else { message.due_at };
        Recovered { due_at, ..message }
    };
    let messages = recovery.messages.filter(|message| !under_way.contains(&message.id));
    let mut messages = messages.map(due).peekable();
    while messages.peek().is_some() {
        let batch = messages.by_ref().take(BATCH).collect();
        if recovered.send(batch).await.is_err() {
            // Dispatch has stopped; the next start finds the rest again.
            return;
        }
    }
}

fn report(recovery: &Recovery) {
    tracing::info!(
        messages = recovery.messages.len(),
        segments = recovery.segments,
        torn_bytes = recovery.torn_bytes,
        quarantined = recovery.quarantined.len(),
        clean = recovery.clean,
        "spool read"
    );
    for quarantined in &recovery.quarantined {
        tracing::error!(subject = ?quarantined.subject, reason = quarantined.reason, "damaged on disk, put into quarantine");
    }
}
