//! What two relays of a pool say to each other: frames of a length (32 bits, big endian) and so many octets, under TLS.
//!
//! A [`Request`] and a [`Reply`] is a frame of JSON; content follows `Reply::Send` in frames of raw octets, as many as make up
//! the envelope's size. One request at a time. The version is in the TLS handshake
//! ([`HAND_OVER_PROTOCOL`](postroad_crds::relay_config::HAND_OVER_PROTOCOL)).

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::message::{DeliveryState, Envelope, MessageId};

/// The largest frame: an envelope of very many recipients.
const FRAME_OCTETS: usize = 16 << 20;
/// How long the other side may take for one frame, a sync of its disk included.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the relay that gives says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Take this message. Answered by `Send`, `Kept` or `Refused`; after the content by `Kept` or `Refused`.
    Offer {
        /// The ordinal of the relay that gives.
        by: u32,
        /// The envelope as it was accepted.
        envelope: Box<Envelope>,
        /// How its delivery stands.
        state: DeliveryState,
    },
    /// The message that you keep is gone here and is never offered again. Answered by `Confirmed`.
    Confirm {
        /// The message.
        id: MessageId,
    },
}

/// What the relay that takes answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The content, please.
    Send,
    /// The message is on stable storage here, or was and is done with.
    Kept,
    /// The message is not here and is not taken; why, for people. Another relay may be asked.
    Refused(String),
    /// The confirmation is understood.
    Confirmed,
}

/// One end of a connection.
pub struct Channel<S>(Framed<S, LengthDelimitedCodec>);

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    /// Frames over `stream`, whose handshake is done.
    pub fn new(stream: S) -> Self {
        Self(LengthDelimitedCodec::builder().max_frame_length(FRAME_OCTETS).new_framed(stream))
    }

    /// Sends one frame of JSON.
    ///
    /// # Errors
    /// When the connection fails or the other side does not read in time.
    pub async fn say(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.send(serde_json::to_vec(value)?.into()).await
    }

    /// Sends one frame of content.
    ///
    /// # Errors
    /// As [`Self::say`].
    pub async fn send(&mut self, octets: Bytes) -> io::Result<()> {
        timeout(PATIENCE, self.0.send(octets)).await.map_err(|_| too_late())?
    }

    /// The next frame as JSON.
    ///
    /// # Errors
    /// When the connection fails or ends, nothing comes in time, or the frame is not what is expected.
    pub async fn hear<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let frame = self.receive().await?;
        serde_json::from_slice(&frame)
            .map_err(|_| io::Error::other("the peer sent what this release does not know"))
    }

    /// The next frame as octets.
    ///
    /// # Errors
    /// When the connection fails or ends, or nothing comes in time.
    pub async fn receive(&mut self) -> io::Result<BytesMut> {
        match timeout(PATIENCE, self.0.next()).await {
            Ok(Some(frame)) => frame,
            Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(_) => Err(too_late()),
        }
    }

    /// Waits, however long, for the next request; `None` at the end of the connection.
    ///
    /// # Errors
    /// When the connection fails or the frame is not what is expected.
    pub async fn next_request(&mut self) -> io::Result<Option<Request>> {
        let Some(frame) = self.0.next().await.transpose()? else { return Ok(None) };
        let request = serde_json::from_slice(&frame);
        request.map(Some).map_err(|_| io::Error::other("the peer asked what this release does not know"))
    }
}

fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the peer did not answer in time")
}
