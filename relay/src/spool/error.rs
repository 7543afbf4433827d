//! What can go wrong in the spool, split where the caller does something different about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::message::MessageId;

/// A request that the spool did not carry out. The texts hold neither content nor mailboxes.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// An earlier write or sync failed, and nothing is kept until the process is started anew. Transient to a client
    /// (451); what is stored can still be read.
    #[error(
        "the spool keeps nothing more since a write failed: {0}; repair the volume, then restart the relay"
    )]
    Unhealthy(String),
    /// The budget [`Options::maximum_bytes`](super::Options::maximum_bytes) is used up. Transient to a client (452).
    #[error("the spool is full: {total} of at most {maximum} bytes are in use")]
    Full {
        /// Bytes in use, those not yet reclaimed included.
        total: u64,
        /// The budget.
        maximum: u64,
    },
    /// The file system has no more free than is kept for ending mail. Transient to a client (452).
    #[error(
        "the spool's volume is full: {free} bytes are free, of which {reserve} are kept to settle what is queued"
    )]
    DiskFull {
        /// Bytes free.
        free: u64,
        /// Bytes of them that no store may use.
        reserve: u64,
    },
    /// No message of this id is kept: never accepted, removed, or quarantined.
    #[error("message {0} is not in the spool")]
    Unknown(MessageId),
    /// A message of this id is kept already.
    #[error("message {0} is in the spool already")]
    Duplicate(MessageId),
    /// What the medium gives back of this message is not what was written. [`Spool::quarantine`](super::Spool::quarantine)
    /// ends it.
    #[error("message {id} is damaged on disk: {reason}")]
    Damaged {
        /// The message.
        id: MessageId,
        /// Which part, and where.
        reason: String,
    },
    /// The caller contradicts itself: a defect of the relay, not of the spool's data.
    #[error("the message was not stored: {0}")]
    Inconsistent(&'static str),
    /// The spool was closed.
    #[error("the spool is closed")]
    Closed,
    /// Another process, or another handle in this one, has the directory open.
    #[error("the spool {} is in use by another process; two relays must never share a spool", .0.display())]
    Locked(PathBuf),
    /// The directory was written by a later version.
    #[error("{} has format version {version}, which this version does not read; use the version that wrote it", path.display())]
    Version {
        /// The segment.
        path: PathBuf,
        /// Its format version.
        version: u32,
    },
    /// The operating system refused an operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Adds what was tried, and on what, to the system's answer.
pub(super) trait Context<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, SpoolError>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, SpoolError> {
        self.map_err(|source| SpoolError::Io { action, path: path.to_owned(), source })
    }
}
