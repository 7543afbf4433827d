//! A message's content on its way in, behind DATA or in chunks: octets in, and at the end what they came to. Knows neither
//! the session nor its driver.

use crate::data::{ChunkDecoder, ContentDecoder, ContentFault, Decoded};
use crate::reply::Reply;
use bytes::{Buf, Bytes, BytesMut};

/// What a BDAT announced.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    pub(super) octets: u64,
    pub(super) last: bool,
}

/// What is being received.
#[derive(Debug)]
pub(super) enum Reception {
    /// Content up to CRLF.CRLF, and what is wrong with it.
    Data(Box<ContentDecoder>, Option<ContentFault>),
    /// The octets of a chunk, and what is wrong with them.
    Chunk(Box<ChunkDecoder>, Chunk, Option<ContentFault>),
    /// The octets of a chunk that is refused with this.
    Dropped { remaining: u64, reply: Reply },
}

/// What it came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The message is whole once this is added.
    Message(Option<Bytes>),
    /// The message is refused.
    Refused(ContentFault),
    /// So many octets were taken; more chunks follow.
    Chunk(Box<ChunkDecoder>, u64),
    /// The chunk has been read and is answered with this.
    Dropped(Reply),
}

impl Reception {
    pub(super) fn data(decoder: ContentDecoder) -> Self {
        Self::Data(Box::new(decoder), None)
    }

    pub(super) fn chunk(mut decoder: Box<ChunkDecoder>, chunk: Chunk) -> Self {
        decoder.begin(chunk.octets);
        Self::Chunk(decoder, chunk, None)
    }

    /// Takes one step on the input; `None` when more is needed. Behind [`Decoded::End`] comes [`end`](Self::end).
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Option<Decoded> {
        let (decoded, fault) = match self {
            Self::Data(decoder, fault) => (decoder.decode(input)?, fault),
            Self::Chunk(decoder, _, fault) => (decoder.decode(input)?, fault),
            Self::Dropped { remaining, .. } => {
                let here = usize::try_from(*remaining).unwrap_or(usize::MAX).min(input.len());
                input.advance(here);
                *remaining -= here as u64;
                return (*remaining == 0).then_some(Decoded::End);
            }
        };
        if let Decoded::Fault(found) = &decoded {
            *fault = Some(*found);
        }
        Some(decoded)
    }

    /// What has been received.
    pub(super) fn end(self) -> Outcome {
        match self {
            Self::Data(_, Some(fault)) | Self::Chunk(_, _, Some(fault)) => Outcome::Refused(fault),
            Self::Data(_, None) => Outcome::Message(None),
            Self::Chunk(decoder, Chunk { last: false, octets }, None) => Outcome::Chunk(decoder, octets),
            Self::Chunk(decoder, Chunk { last: true, .. }, None) => {
                decoder.finish().map_or_else(Outcome::Refused, Outcome::Message)
            }
            Self::Dropped { reply, .. } => Outcome::Dropped(reply),
        }
    }
}
