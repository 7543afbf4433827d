//! Mail changes hands between the relays of a pool: a relay that leaves for good gives what it holds to those that stay
//! (promise P8). That it leaves is told by the configuration, never guessed from a signal; where the storage goes with the pod
//! (`ephemeral`) a relay that stops leaves.
//!
//! # Contract
//!
//! - **Nothing is lost.** The [`receiver`] says `Kept` only when the spool has returned from storing; the [`sender`] removes a
//!   message only after that word.
//! - **Nothing is doubled.** The sender marks a message with the one relay it is given to before the content goes
//!   ([`DeliveryState::handing_over_to`](crate::message::DeliveryState::handing_over_to)), on stable storage: whatever happens
//!   then, it is offered to that relay alone until the answer is known, and not delivered. The receiver keeps what it was
//!   given, when it is delivered as a [tombstone](tombstone), until the sender has confirmed that its own is gone. So an offer
//!   that is repeated, by either side's death, is answered `Kept` and stored once.
//! - **The state goes along**: envelope, attempts, due time, every recipient's state and DSN parameters; expiry counts from the
//!   first acceptance.
//! - **Who takes part** is who shows a certificate of the pool's own authority (TLS 1.3, both ways).
//!
//! A relay leaves towards lower ordinals or is taken away only after all above it, so the relay that a message was given to
//! outlives the one that gives it. What is on the wire: [`protocol`]. Why not SMTP: docs/adr/0005-hand-over.md.

mod departure;
pub mod protocol;
pub mod receiver;
pub mod sender;
mod standings;
pub mod tombstone;

#[cfg(test)]
mod tests;

pub use departure::Departure;
pub use receiver::Receiver;
pub use sender::Sender;
pub use tombstone::Tombstones;
