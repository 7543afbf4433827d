//! What a notification is about. Values only: dispatch decides them, the other files of this folder write them down.

use std::time::SystemTime;

use smtp_protocol::{Reply, Unmet};

use crate::message::{Envelope, MessageId, Recipient, Timestamp};

/// One recipient and what its sender is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The recipient, with what the sender asked to be told.
    pub recipient: Recipient,
    /// What happened.
    pub reason: Reason,
}

/// What happened to a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The upstream refused it with this reply.
    Refused(Reply),
    /// The upstream does not offer what the message needs; nothing was sent.
    Unsupported(Unmet),
    /// It was tried until the pool's expiry; the text is the last obstacle.
    Expired(String),
    /// The upstream took it with this reply, and will not say what becomes of it (RFC 3461 §5.2.2).
    Relayed(Reply),
    /// It is still being tried.
    Delayed {
        /// The last obstacle.
        obstacle: String,
        /// When it will be given up.
        until: Timestamp,
    },
}

impl Reason {
    /// Whether the recipient will not get the message.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Unsupported(_) | Self::Expired(_))
    }
}

impl Notice {
    /// Whether the sender wants to hear this (RFC 3461 §4.1): of failure unless it said otherwise, of the rest only if it
    /// said so.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        let asked = self.recipient.notify;
        match self.reason {
            Reason::Relayed(_) => asked.is_some_and(|notify| notify.success),
            Reason::Delayed { .. } => asked.is_some_and(|notify| notify.delay),
            _ => self.recipient.notify_of_failure(),
        }
    }
}

/// How much of the message goes back with the notification.
#[derive(Clone, Copy, Debug)]
pub enum Returned<'a> {
    /// The header section as it was accepted, whole or its beginning; what stands behind it is left out.
    Headers(&'a [u8]),
    /// All of it.
    Full(&'a [u8]),
}

/// A notification to be composed.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// The message it is about.
    pub envelope: &'a Envelope,
    /// What of the message goes back.
    pub returned: Returned<'a>,
    /// For whom; at least one.
    pub notices: &'a [Notice],
    /// The relay's name.
    pub hostname: &'a str,
    /// The notification's own identifier.
    pub id: MessageId,
    /// When.
    pub now: SystemTime,
}
