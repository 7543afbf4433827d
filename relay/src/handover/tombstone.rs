//! What is kept of messages that another relay gave to this one, when they are done with: the message itself, with nothing left
//! to deliver, so that a repeated offer finds it. A sender confirms within milliseconds, so there are few and not for long.
//!
//! A tombstone goes when its sender confirms, when that relay is gone for good, or when the message would have expired there.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::config::Policy;
use crate::message::{DeliveryState, MessageId, Timestamp};
use crate::spool::{Fate, Settlement, Spool, SpoolError};

/// How long after its expiry a message may still be offered again: clocks differ.
const MARGIN: Duration = Duration::from_secs(24 * 3600);

/// The tombstones of one spool; clones share them. Rebuilt after a start as dispatch or the sender come across them.
#[derive(Clone, Debug, Default)]
pub struct Tombstones(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Tombstones and the ordinals of their senders.
    held: HashMap<MessageId, u32>,
    /// Messages whose senders have confirmed before they were done with.
    confirmed: HashSet<MessageId>,
}

impl Tombstones {
    /// How many of the spool's messages are tombstones.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.state().held.len() as u64
    }

    /// Notes a tombstone found in the spool.
    pub fn found(&self, id: MessageId, by: u32) {
        self.state().held.insert(id, by);
    }

    /// Settles as [`Spool::settle`], except that a message which ends and which the relay `by` may offer again leaves a
    /// tombstone. Durable when it returns; errors and cancellation are those of [`Spool::settle`].
    ///
    /// # Errors
    /// As [`Spool::settle`].
    pub async fn settle(
        &self,
        spool: &Spool,
        by: Option<u32>,
        mut settlement: Settlement,
    ) -> Result<(), SpoolError> {
        let id = settlement.id;
        let Some(by) = by.filter(|_| settlement.state.is_none()) else {
            return spool.settle(settlement).await;
        };
        if self.state().confirmed.remove(&id) {
            return spool.settle(settlement).await;
        }
        settlement.state = Some(DeliveryState::tombstone(by));
        spool.settle(settlement).await?;
        self.found(id, by);
        // A confirmation may have come in between and found no tombstone.
        if self.state().confirmed.contains(&id) { self.remove(spool, id).await } else { Ok(()) }
    }

    /// The sender of this message will not offer it again. Durable when it returns, once the message is done with.
    ///
    /// # Errors
    /// When the message cannot be read or its tombstone not be removed; the sender may confirm again.
    pub async fn confirm(&self, spool: &Spool, id: MessageId) -> Result<(), SpoolError> {
        // Noted first: whoever settles the message now sees either this note or leaves a tombstone for the look below.
        self.state().confirmed.insert(id);
        match spool.load(id).await {
            Ok(stored) if stored.state.is_tombstone() => self.remove(spool, id).await,
            Ok(_) => Ok(()),
            Err(error) => {
                self.state().confirmed.remove(&id);
                if matches!(error, SpoolError::Unknown(_)) { Ok(()) } else { Err(error) }
            }
        }
    }

    /// Removes the tombstones that no sender will ask for any more. What fails is tried again by the next call.
    pub async fn sweep(&self, spool: &Spool, policy: &Policy, now: Timestamp) {
        let Some(hand_over) = &policy.hand_over else { return };
        let over = |id: MessageId| now.since(id.accepted_at()) > policy.expire_after + MARGIN;
        let useless: Vec<MessageId> = {
            let state = self.state();
            let held = state.held.iter().filter(|&(id, by)| hand_over.is_gone(*by) || over(*id));
            held.map(|(id, _)| *id).collect()
        };
        for id in useless {
            if let Err(error) = self.remove(spool, id).await {
                return tracing::warn!(%id, %error, "what is left of a message that was handed over stays for now");
            }
        }
    }

    async fn remove(&self, spool: &Spool, id: MessageId) -> Result<(), SpoolError> {
        // Nobody of it is queued, so the account does not change.
        match spool.remove(id, Fate::HandedOver).await {
            Ok(()) | Err(SpoolError::Unknown(_)) => {}
            Err(error) => return Err(error),
        }
        let mut state = self.state();
        state.held.remove(&id);
        state.confirmed.remove(&id);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing that holds the tombstones panics")
    }
}
