//! A content to be sent, with its first chunk at hand: what cannot be read is known before its transaction begins, unless it is
//! large.

use bytes::Bytes;

use crate::messages::ContentReader;
use crate::spool::SpoolError;

/// A content, read piece by piece.
pub(super) struct Content {
    first: Option<Bytes>,
    rest: ContentReader,
}

impl Content {
    /// Reads the first chunk.
    ///
    /// # Errors
    /// As [`ContentReader::next`].
    pub(super) async fn open(mut reader: ContentReader) -> Result<Self, SpoolError> {
        Ok(Self { first: reader.next().await?, rest: reader })
    }

    /// The next chunk; `None` behind the last.
    ///
    /// # Errors
    /// As [`ContentReader::next`].
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, SpoolError> {
        match self.first.take() {
            Some(chunk) => Ok(Some(chunk)),
            None => self.rest.next().await,
        }
    }

    /// Whether everything has been taken.
    pub(super) fn is_at_end(&self) -> bool {
        self.first.is_none() && self.rest.is_at_end()
    }
}
