//! What a session knows about its peer and the mail transaction.

use crate::data::ChunkDecoder;

/// What has been said and done so far.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) tls: bool,
    pub(super) helo: Option<Helo>,
    pub(super) user: Option<String>,
    pub(super) transaction: Option<OpenTransaction>,
    /// Messages accepted.
    pub(super) messages: u32,
    /// No new transaction is to begin.
    pub(super) draining: bool,
}

/// How the client introduced itself.
#[derive(Debug)]
pub(super) struct Helo {
    pub(super) name: String,
    pub(super) esmtp: bool,
}

/// A transaction whose MAIL was accepted.
#[derive(Debug, Default)]
pub(super) struct OpenTransaction {
    /// MAIL came with SMTPUTF8.
    pub(super) smtputf8: bool,
    /// Recipients accepted.
    pub(super) recipients: usize,
    /// A RCPT was answered, whatever the answer.
    pub(super) recipient_tried: bool,
    /// A chunk was taken and more must follow.
    pub(super) chunks: Option<Box<ChunkDecoder>>,
}
