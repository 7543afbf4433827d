//! What becomes of recipients that may have their message already: a content was on its way to them when the relay died, and no
//! reply to it is recorded (promise P3). SMTP has no way to ask (RFC 5321 §4.5.5, RFC 1047).
//!
//! Called once by a start, before anything of an earlier run is delivered or handed over. What a session leaves unknown while the
//! relay lives is dispatch's to settle, by the same policy.

use std::collections::HashSet;
use std::sync::Arc;

use futures::future::join_all;
use postroad_crds::relay_config::AmbiguousDelivery;

use crate::message::{DeliveryState, MessageId};
use crate::metrics::{Cause, Metrics, cause};
use crate::spool::{Spool, SpoolError};

/// Settles the messages that earlier runs were sending, with the recipients they were sending to, and counts these. Each is told of
/// by one start only: what is done about them is on stable storage when it returns.
#[derive(Clone, Debug)]
pub struct Ambiguity {
    /// Where they are.
    pub spool: Spool,
    /// What the pool wants done about them.
    pub delivery: AmbiguousDelivery,
    /// Where they are counted.
    pub metrics: Arc<Metrics>,
}

impl Ambiguity {
    /// Returns those that must not be delivered until somebody has released them. With `Hold` a message that cannot be held on
    /// stable storage is among them; it is found again by the next start.
    pub async fn settle(&self, found: Vec<(MessageId, Vec<usize>)>) -> HashSet<MessageId> {
        let hold = self.delivery == AmbiguousDelivery::Hold;
        let settled = found.into_iter().map(|(id, recipients)| async move {
            match self.settle_one(id, &recipients, hold).await {
                Ok(()) => hold.then_some(id),
                Err(SpoolError::Unknown(_)) => None,
                Err(error) => {
                    tracing::error!(%id, %error, "what was being sent when the relay died cannot be settled");
                    hold.then_some(id)
                }
            }
        });
        join_all(settled).await.into_iter().flatten().collect()
    }

    async fn settle_one(&self, id: MessageId, recipients: &[usize], hold: bool) -> Result<(), SpoolError> {
        let stored = self.spool.load(id).await?;
        let count = stored.state.queued().filter(|index| recipients.contains(index)).count();
        let series = self.metrics.recipients_ambiguous.get_or_create(&cause(Cause::RelayDied)).clone();
        series.inc_by(count as u64);
        if hold {
            tracing::warn!(%id, recipients = count, "held: it was being sent when the relay died, and may have arrived");
        } else {
            tracing::warn!(%id, recipients = count, "sent again: it was being sent when the relay died, and may arrive twice");
        }
        let state = DeliveryState { held: stored.state.held || hold, ..stored.state };
        self.spool.update(id, state).await
    }
}
