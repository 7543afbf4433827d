//! The fake upstream's end of a connection: buffers, lines, and the upgrade to TLS. No SMTP beyond line ends.
//!
//! Replies gather in the output until the input holds no further complete line, so that the answers to a pipelined group
//! leave in one piece (RFC 2920 §3.2) and a client has to take them apart.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::smtp_server::content::{ContentReader, ReadContent};
use crate::smtp_server::settings::Pace;
use crate::stream::BoxedStream;

/// No command line comes near this; a client that sends more without a line end is cut off.
const LONGEST_LINE: usize = 64 * 1024;
const READ_AT_ONCE: usize = 64 * 1024;

/// A line as it came.
pub(crate) struct Line {
    /// Without its line end; octets that are not UTF-8 replaced.
    pub(crate) text: String,
    /// Length in octets, line end included.
    pub(crate) octets: usize,
    /// Whether it ended in LF alone.
    pub(crate) bare_line_feed: bool,
}

/// What TLS negotiated.
pub(crate) struct TlsFacts {
    pub(crate) version: String,
    pub(crate) server_name: Option<String>,
}

/// A buffered connection.
pub(crate) struct Wire {
    stream: BoxedStream,
    input: BytesMut,
    output: BytesMut,
}

impl Wire {
    pub(crate) fn new(stream: BoxedStream) -> Self {
        Self { stream, input: BytesMut::new(), output: BytesMut::new() }
    }

    /// Octets that came and were not taken yet.
    pub(crate) fn pending_input(&self) -> usize {
        self.input.len()
    }

    pub(crate) fn queue(&mut self, octets: &[u8]) {
        self.output.extend_from_slice(octets);
    }

    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            let output = self.output.split();
            self.stream.write_all(&output).await?;
        }
        self.stream.flush().await
    }

    /// The next line; `None` when the client closed. Writes what is queued before it waits.
    pub(crate) async fn line(&mut self, pace: impl Fn() -> Option<Pace>) -> io::Result<Option<Line>> {
        loop {
            if let Some(end) = self.input.iter().position(|octet| *octet == b'\n') {
                let line = self.input.split_to(end + 1);
                let bare_line_feed = !line.ends_with(b"\r\n");
                let text = &line[..line.len() - if bare_line_feed { 1 } else { 2 }];
                let text = String::from_utf8_lossy(text).into_owned();
                return Ok(Some(Line { text, octets: line.len(), bare_line_feed }));
            }
            if self.input.len() > LONGEST_LINE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line without end"));
            }
            self.flush().await?;
            if !self.fill(pace()).await? {
                return Ok(None);
            }
        }
    }

    /// The content up to its end; `None` when the client closed first.
    pub(crate) async fn content(
        &mut self,
        pace: impl Fn() -> Option<Pace>,
    ) -> io::Result<Option<ReadContent>> {
        let mut reader = ContentReader::default();
        loop {
            if let Some(content) = reader.read(&mut self.input) {
                return Ok(Some(content));
            }
            if !self.fill(pace()).await? {
                return Ok(None);
            }
        }
    }

    /// Exactly so many octets; `None` when the client closed first.
    pub(crate) async fn octets(
        &mut self,
        count: usize,
        pace: impl Fn() -> Option<Pace>,
    ) -> io::Result<Option<Bytes>> {
        while self.input.len() < count {
            if !self.fill(pace()).await? {
                return Ok(None);
            }
        }
        Ok(Some(self.input.split_to(count).freeze()))
    }

    /// Waits until at least one octet is there; false when the client closed.
    pub(crate) async fn some_input(&mut self, pace: Option<Pace>) -> io::Result<bool> {
        Ok(!self.input.is_empty() || self.fill(pace).await?)
    }

    /// Reads and forgets until the client closes.
    pub(crate) async fn drain(&mut self) -> io::Result<()> {
        loop {
            self.input.clear();
            if !self.fill(None).await? {
                return Ok(());
            }
        }
    }

    /// Performs the server's side of the TLS handshake. What was read before it is lost, as it must be (RFC 3207 §6).
    pub(crate) async fn encrypt(self, acceptor: &TlsAcceptor) -> io::Result<(Self, TlsFacts)> {
        let stream = acceptor.accept(self.stream).await?;
        let (_, session) = stream.get_ref();
        let version = session.protocol_version().map_or_else(String::new, |version| format!("{version:?}"));
        let server_name = session.server_name().map(str::to_owned);
        Ok((Self::new(Box::new(stream)), TlsFacts { version, server_name }))
    }

    /// Writes what is queued and says goodbye in the transport's way (TLS close_notify, FIN).
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.stream.shutdown().await
    }

    async fn fill(&mut self, pace: Option<Pace>) -> io::Result<bool> {
        let octets = pace.map_or(READ_AT_ONCE, |pace| pace.octets.max(1));
        let read = (&mut self.stream).take(octets as u64).read_buf(&mut self.input).await?;
        if let Some(pace) = pace {
            tokio::time::sleep(pace.rest).await;
        }
        Ok(read > 0)
    }
}
