//! A message that passes through: announced to dispatch, and its client kept until the upstream has answered.

use std::sync::Arc;
use std::time::Duration;

use smtp_protocol::Reply;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::context::Accepted;
use crate::message::{Envelope, MessageId};
use crate::order::Order;
use crate::shutdown::{Phase, Shutdown};
use crate::transit::{Draft, PATIENCE, Transit};

/// How often a message is given up that an upstream may just have begun with, or that was just between two.
const GIVE_UP_EVERY: Duration = Duration::from_secs(5);

/// The way through.
#[derive(Debug)]
pub struct Passage {
    /// The messages on it.
    pub transit: Transit,
    /// Where a message is given up.
    pub orders: mpsc::Sender<Order>,
}

impl Passage {
    /// Gives the message to dispatch and waits for the reply to it: the upstream's own, or 451 that says why there is none. What no
    /// upstream has begun with within [`PATIENCE`], or when the relay stops, is given up.
    ///
    /// *Cancellation*: the message goes its way, and nobody hears how.
    pub(super) async fn send(
        &self,
        draft: Draft,
        envelope: Arc<Envelope>,
        accepted: &mpsc::Sender<Accepted>,
        shutdown: &mut Shutdown,
    ) -> Reply {
        let id = envelope.id;
        let reply = draft.send(envelope.clone());
        if accepted.send(Accepted::in_transit(envelope)).await.is_err() {
            drop(self.transit.take(id));
        }
        self.wait(id, reply, shutdown).await.unwrap_or_else(|_| stopping())
    }

    async fn wait(
        &self,
        id: MessageId,
        mut reply: oneshot::Receiver<Reply>,
        shutdown: &mut Shutdown,
    ) -> Result<Reply, oneshot::error::RecvError> {
        let mut give_up_at = Instant::now() + PATIENCE;
        let mut stopping = false;
        loop {
            tokio::select! {
                reply = &mut reply => return reply,
                () = sleep_until(give_up_at) => {}
                () = shutdown.reached(Phase::Stopping), if !stopping => stopping = true,
            }
            // Nobody takes it when dispatch has ended, with all that was in transit.
            let _ = self.orders.send(Order::GiveUp(id)).await;
            give_up_at = Instant::now() + GIVE_UP_EVERY;
        }
    }
}

fn stopping() -> Reply {
    Reply::new(451, (4, 3, 2), "the relay is stopping, try again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shutdown;
    use tokio::sync::watch;

    const ID: MessageId = MessageId(1);

    struct World {
        passage: Arc<Passage>,
        announced: mpsc::Receiver<Accepted>,
        orders: mpsc::Receiver<Order>,
        phase: watch::Sender<Phase>,
        began: Instant,
        client: tokio::task::JoinHandle<Reply>,
    }

    /// A client that waits for the reply to its message.
    fn world() -> World {
        let (orders_in, orders) = mpsc::channel(16);
        let (accepted, announced) = mpsc::channel(16);
        let (phase, mut shutdown) = shutdown::channel();
        let passage = Arc::new(Passage { transit: Transit::new(None), orders: orders_in });
        let way = passage.clone();
        let client = tokio::spawn(async move {
            let mut draft = way.transit.draft();
            draft.append(b"Subject: x\r\n\r\n").unwrap();
            let envelope = Arc::new(Envelope { id: ID, ..Envelope::example(1) });
            way.send(draft, envelope, &accepted, &mut shutdown).await
        });
        World { passage, announced, orders, phase, began: Instant::now(), client }
    }

    impl World {
        async fn given_up_after(&mut self, seconds: u64) {
            assert!(matches!(self.orders.recv().await, Some(Order::GiveUp(ID))));
            assert_eq!(self.began.elapsed().as_secs(), seconds);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_nobody_begins_with_is_given_up_after_a_minute_until_there_is_an_answer() {
        let mut world = world();
        assert!(world.announced.recv().await.is_some_and(|message| message.in_transit));
        for seconds in [60, 65, 70] {
            world.given_up_after(seconds).await;
        }
        world.passage.transit.take(ID).unwrap().answer(Reply::new(250, (2, 0, 0), "late"));
        assert_eq!(world.client.await.unwrap().to_string(), "250 2.0.0 late");
        assert!(world.orders.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_that_stops_gives_up_at_once() {
        let mut world = world();
        world.announced.recv().await.unwrap();
        world.phase.send_replace(Phase::Stopping);
        for seconds in [0, 5] {
            world.given_up_after(seconds).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_dispatch_that_has_ended() {
        let world = world();
        drop(world.announced);
        assert_eq!(world.client.await.unwrap().code.value(), 451);
        assert_eq!(world.passage.transit.count(), 0);
    }
}
