//! Hops 5 to 8 of a message: when it goes and on which session, and what its outcome means.
//!
//! [`core`] decides: it owns the queue, every upstream's lane and the messages in flight, hears [`event`]s and says what is to
//! be done. It is pure, so that a day of traffic can be simulated in virtual time. [`driver`] is one task that performs it:
//! deliveries, plans and settlements run beside it and report through channels. [`observer`] logs and counts. Only this
//! module calls [`delivery`](crate::delivery).
//!
//! A message due is planned into parts, one per route; each part is a job in the lane of an upstream of that route. A part's outcome is
//! settled in the spool at once; when no part is left the message is done or due again.

mod answer;
mod budgets;
mod core;
mod driver;
mod event;
mod in_flight;
mod lane;
mod lanes;
mod line;
mod news;
mod obey;
mod observer;
mod parts;
mod plan;
mod settle;
mod settlement;
mod shares;
#[cfg(test)]
mod simulation;
mod ways;

pub use driver::Dispatch;

use tokio::sync::mpsc;

use crate::order::Order;
use crate::spool::Recovered;
use crate::submission::Accepted;
use driver::Driver;

/// Delivers until the relay stops and `accepted` has ended; what is not delivered by then stays in the spool.
///
/// `recovered` brings what the spool held at its opening, a batch at a time, once that is read; `orders` what people want done.
/// *Cancellation*: a dropped future delivers nothing more; messages whose session was in the middle of a transaction are tried
/// again after the next start.
pub async fn run(
    dispatch: Dispatch,
    recovered: mpsc::Receiver<Vec<Recovered>>,
    accepted: mpsc::Receiver<Accepted>,
    orders: mpsc::Receiver<Order>,
) {
    let (driver, inbox) = Driver::new(dispatch, recovered, accepted, orders);
    driver.run(inbox).await;
}
