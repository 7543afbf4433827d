//! How a content leaves: behind DATA with its dots stuffed, or in one chunk of BDAT (RFC 3030 §2).
//!
//! A chunk saves the round trip that the 354 takes. It is sent before the recipients are known to be accepted, so only a
//! content that is cheap to send in vain goes that way. Called by [`super::transaction`].

use crate::data::ContentEncoder;
use bytes::{BufMut, BytesMut};
use std::fmt::Write;

/// The longest content that is sent as a chunk. Held in memory until its length is known.
const CHUNK_OCTETS: u64 = 256 * 1024;

/// Whether a content of this many octets may be sent as a chunk.
pub(super) fn fits_chunk(octets: u64) -> bool {
    octets <= CHUNK_OCTETS
}

/// A content on its way.
#[derive(Debug)]
pub(super) enum ContentWriter {
    Dotted(ContentEncoder),
    /// With the chunk as far as it is known.
    Chunk(ContentEncoder, BytesMut),
}

impl ContentWriter {
    pub(super) fn dotted() -> Self {
        Self::Dotted(ContentEncoder::new())
    }

    pub(super) fn chunk() -> Self {
        Self::Chunk(ContentEncoder::without_transparency(), BytesMut::new())
    }

    /// Takes the next piece.
    pub(super) fn write(&mut self, piece: &[u8], out: &mut BytesMut) {
        match self {
            Self::Dotted(encoder) => encoder.encode(piece, out),
            Self::Chunk(encoder, chunk) => encoder.encode(piece, chunk),
        }
    }

    /// Everything that is not out yet, up to the end.
    pub(super) fn finish(self, out: &mut BytesMut) {
        match self {
            Self::Dotted(encoder) => encoder.finish(out),
            Self::Chunk(encoder, mut chunk) => {
                encoder.end_last_line(&mut chunk);
                out.reserve(chunk.len() + 32);
                write!(out, "BDAT {} LAST\r\n", chunk.len())
                    .expect("writing to a buffer that grows cannot fail");
                out.put_slice(&chunk);
            }
        }
    }
}
