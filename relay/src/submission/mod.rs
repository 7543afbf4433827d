//! Hops 1 to 4 of a message: listen, accept, permit, store.
//!
//! [`Listeners`] binds the policy's ports and follows its changes. Each [`connection`] carries octets between a socket and the SMTP
//! protocol, whose events its [`session`] answers: [`authentication`] and [`authorize`] decide, and a [`transaction`] adds the
//! [`received`] trace, mends the header section and stores the message. Only a stored message is answered 250 and
//! announced to dispatch; one that is to pass through is announced and answered by what an upstream says, which its [`passage`] waits
//! for.

mod authentication;
pub mod authorize;
mod connection;
mod context;
mod header_section;
mod listeners;
mod passage;
mod proxy_protocol;
pub mod received;
pub mod refusal;
mod session;
mod stream;
mod transaction;

pub use context::{Accepted, Context};
pub use listeners::{BindError, Bound, Listeners};
pub use passage::Passage;

#[cfg(test)]
mod tests;
