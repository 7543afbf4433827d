//! The receiving side of SMTP: [`ServerSession`] (RFC 5321 §3 and §4, RFC 1870, 2034, 2920, 3030, 3207, 3461,
//! 4954, 6152, 6531).
//!
//! | file | subject |
//! |---|---|
//! | `config` | what a session is made with |
//! | `event` | what the driver is asked to do |
//! | `state` | what is known about the peer and its mail transaction |
//! | `decide` | command + state → what follows (pure) |
//! | `reception` | a message's octets → what they came to |
//! | `session` | octets in, events and octets out |
//! | `line` | the peer's lines, and what was decided on them |
//! | `answer` | the driver's answers |
//! | `content` | content and chunks on their way to the driver |
//! | `phase` | whose turn it is |
//!
//! Not here: who may send what to whom (the driver answers the events), time (the driver measures
//! [`ServerSession::read_timeout`]), the TLS handshake.

mod answer;
mod config;
mod content;
mod decide;
mod event;
mod line;
mod phase;
mod reception;
mod session;
mod state;

pub use config::{AuthOffer, ServerConfig, ServerTimeouts, TlsOffer};
pub use event::Event;
pub use session::ServerSession;
