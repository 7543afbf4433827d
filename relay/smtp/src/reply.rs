//! Replies: reply code, enhanced status code, text (RFC 5321 §4.2, RFC 2034, RFC 3463), their encoding and reading.
//!
//! Not here: which reply a command gets (that is [`crate::server`]) and what a reply means for a message (that is the
//! relay's). Used by both sessions and by the relay's authorisation and delivery.

mod code;
mod encode;
mod reader;
mod types;

pub use code::{EnhancedStatusCode, ParseEnhancedStatusCodeError, ReplyCode, Severity};
pub use reader::{ReplyError, ReplyReader};
pub use types::Reply;
