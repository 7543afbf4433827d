//! Carries out what a person has ordered for a message that nothing else is being done about.

use std::time::SystemTime;

use crate::handover::Tombstones;
use crate::message::{DeliveryState, Timestamp};
use crate::order::{Act, MessageOrder, OrderRefused};
use crate::spool::{Fate, Fates, Settlement, Spool};

/// An order, and what has come of it.
#[derive(Debug)]
pub(super) struct Obeyed {
    pub(super) order: MessageOrder,
    pub(super) result: Result<(), OrderRefused>,
    /// When the message is due from now on; `None` when it is gone, or when nothing is known of it any more.
    pub(super) due_at: Option<Timestamp>,
    /// The mailboxes that were queued.
    pub(super) recipients: Vec<String>,
}

/// Obeys. Durable when it returns.
pub(super) async fn obey(spool: &Spool, tombstones: &Tombstones, order: MessageOrder) -> Obeyed {
    let stored = match spool.load(order.id).await {
        Ok(stored) => stored,
        Err(error) => {
            return Obeyed { order, result: Err(error.into()), due_at: None, recipients: Vec::new() };
        }
    };
    let envelope = &stored.envelope;
    let recipients: Vec<_> = stored
        .state
        .queued()
        .filter_map(|index| Some(envelope.recipients.get(index)?.address.clone()))
        .collect();
    let (due_at, handed_over_by) = (stored.state.next_due(), stored.state.handed_over_by);
    let next = match decide(&order, stored.state, SystemTime::now().into()) {
        Ok(next) => next,
        Err(refused) => return Obeyed { order, result: Err(refused), due_at: Some(due_at), recipients },
    };
    let due_at = next.as_ref().map(DeliveryState::next_due);
    let recorded = match next {
        Some(state) => spool.update(order.id, state).await,
        None => {
            let mut fates = Fates::default();
            fates.add(Fate::Dropped, recipients.len() as u64);
            let settlement =
                Settlement { id: order.id, state: None, fates, under_way: Vec::new(), accept: Vec::new() };
            tombstones.settle(spool, handed_over_by, settlement).await
        }
    };
    match recorded {
        Ok(()) => Obeyed { order, result: Ok(()), due_at, recipients },
        Err(error) => Obeyed { order, result: Err(error.into()), due_at: None, recipients },
    }
}

/// The message's state from now on; `None`: it goes. Pure.
fn decide(
    order: &MessageOrder,
    state: DeliveryState,
    now: Timestamp,
) -> Result<Option<DeliveryState>, OrderRefused> {
    let state = match order.act {
        Act::Retry if state.held => return Err(OrderRefused::Held(order.id)),
        Act::Release if !state.held => return Err(OrderRefused::NotHeld(order.id)),
        Act::Retry | Act::Release => DeliveryState { due_at: now, held: false, ..state },
        Act::Hold => DeliveryState { held: true, ..state },
        Act::Drop => return Ok(None),
    };
    Ok(Some(state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageId;

    const NOW: Timestamp = Timestamp(100);

    fn decided(act: Act, held: bool) -> Result<Option<DeliveryState>, OrderRefused> {
        let order = MessageOrder { id: MessageId(1), act, answer: tokio::sync::oneshot::channel().0 };
        decide(&order, DeliveryState { held, ..DeliveryState::new(1, Timestamp(500)) }, NOW)
    }

    #[test]
    fn a_held_message_is_never_due_until_it_is_released() {
        let held = decided(Act::Hold, false).unwrap().unwrap();
        assert!(held.held && held.next_due() > Timestamp(u64::MAX / 2));
        assert_eq!(held.due_at, Timestamp(500), "what was decided before is kept");
        assert!(matches!(decided(Act::Retry, true), Err(OrderRefused::Held(_))));
        assert!(matches!(decided(Act::Release, false), Err(OrderRefused::NotHeld(_))));
        assert_eq!(decided(Act::Release, true).unwrap().unwrap().next_due(), NOW);
    }

    #[test]
    fn a_retry_is_due_at_once_and_a_dropped_message_goes() {
        assert_eq!(decided(Act::Retry, false).unwrap().unwrap().next_due(), NOW);
        assert_eq!((decided(Act::Drop, false).unwrap(), decided(Act::Drop, true).unwrap()), (None, None));
    }
}
