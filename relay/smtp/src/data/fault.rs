//! Why content is refused, and the reply that says so.

use crate::reply::Reply;

/// Why content is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ContentFault {
    /// A CR that no LF follows.
    #[error("bare CR at line {line} of the message; lines must end with CRLF")]
    BareCarriageReturn {
        /// Line of the message, from 1.
        line: u64,
    },
    /// An LF without a CR before it.
    #[error("bare LF at line {line} of the message; lines must end with CRLF")]
    BareLineFeed {
        /// Line of the message, from 1.
        line: u64,
    },
    /// A NUL octet (RFC 5322 §4 and RFC 6152 §3 forbid it).
    #[error("NUL octet at line {line} of the message")]
    Nul {
        /// Line of the message, from 1.
        line: u64,
    },
    /// More octets than the limit.
    #[error("Message is larger than the limit of {limit} octets")]
    TooLarge {
        /// The limit in octets.
        limit: u64,
    },
    /// A header section of more octets than the limit.
    #[error("Header section is larger than the limit of {limit} octets")]
    HeaderTooLarge {
        /// The limit in octets.
        limit: u64,
    },
    /// More header fields than the limit.
    #[error("Header section has more than the limit of {limit} fields")]
    TooManyFields {
        /// The limit.
        limit: u32,
    },
}

impl ContentFault {
    /// The reply at the end of such content.
    pub fn reply(&self) -> Reply {
        match self {
            Self::TooLarge { .. } | Self::HeaderTooLarge { .. } => {
                Reply::new(552, (5, 3, 4), self.to_string())
            }
            Self::TooManyFields { .. } => Reply::new(554, (5, 6, 0), self.to_string()),
            _ => Reply::new(550, (5, 6, 0), format!("Message refused: {self}")),
        }
    }
}
