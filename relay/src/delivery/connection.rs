//! One connection to an upstream: bytes between the socket and the protocol's state machine, `smtp_protocol::ClientSession`.
//!
//! It knows nothing of ports, jobs or queues. A method that returns a [`SessionFailure`] has made the connection useless.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rustls::pki_types::ServerName;
use smtp_protocol::{
    ClientConfig, ClientEvent, ClientSession, Extensions, SessionFailure, Transaction, TransactionReplies,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use crate::spool::{ContentReader, SpoolError};

/// Any byte stream to an upstream: TCP, TLS over it, or a pipe to the sandbox.
pub(super) type BoxedStream = Box<dyn Stream>;

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

const READ_OCTETS: usize = 8 * 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// RFC 5321 §4.5.3.2.5: for one block of content to be taken.
const DATA_BLOCK_TIMEOUT: Duration = Duration::from_secs(180);
/// How long the reply of an upstream that has closed the connection may still be under way.
const LAST_REPLY_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSED: &str = "the upstream closed the connection";
/// A server that does not answer QUIT is left.
const QUIT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a TLS handshake with this upstream needs.
pub(super) struct Tls {
    pub(super) connector: TlsConnector,
    pub(super) name: ServerName<'static>,
}

impl Tls {
    pub(super) async fn handshake(&self, stream: BoxedStream) -> io::Result<BoxedStream> {
        match timeout(HANDSHAKE_TIMEOUT, self.connector.connect(self.name.clone(), stream)).await {
            Ok(result) => {
                Ok(Box::new(result.map_err(|error| io::Error::new(error.kind(), format!("TLS: {error}")))?))
            }
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long")),
        }
    }
}

/// How one transaction went.
pub(super) enum Transacted {
    /// The upstream decided about each recipient.
    Replies(TransactionReplies),
    /// The session failed.
    Failed(SessionFailure),
    /// The content could not be read to its end; the final dot was not sent, and the connection must be dropped.
    Unreadable(SpoolError),
}

/// A session in progress.
pub(super) struct Connection {
    stream: BoxedStream,
    session: ClientSession,
    buffer: BytesMut,
    /// What the upstream said while content was still being written.
    decided: Option<ClientEvent>,
    /// The other end, where that is an address.
    peer: Option<SocketAddr>,
}

impl Connection {
    /// Greeting, EHLO, STARTTLS where configured, AUTH; returns when the first transaction may start.
    pub(super) async fn establish(
        stream: BoxedStream,
        config: ClientConfig,
        tls: Option<Tls>,
    ) -> Result<Self, SessionFailure> {
        let session = ClientSession::new(config);
        let mut connection =
            Self { stream, session, buffer: BytesMut::with_capacity(READ_OCTETS), decided: None, peer: None };
        loop {
            match connection.event().await {
                ClientEvent::StartTls => connection = connection.start_tls(tls.as_ref()).await?,
                ClientEvent::Ready => return Ok(connection),
                ClientEvent::Failed(failure) => {
                    // The QUIT that may stand in the output is a courtesy; its loss changes nothing.
                    connection.flush().await;
                    return Err(failure);
                }
                other => {
                    return Err(SessionFailure::Protocol(format!("{other:?} before the session was ready")));
                }
            }
        }
    }

    async fn start_tls(mut self, tls: Option<&Tls>) -> Result<Self, SessionFailure> {
        let Some(tls) = tls else { return Err(SessionFailure::TlsNotOffered) };
        match tls.handshake(self.stream).await {
            Ok(stream) => {
                self.session.tls_established();
                Ok(Self { stream, ..self })
            }
            Err(error) => Err(SessionFailure::Lost { ambiguous: false, why: error.to_string() }),
        }
    }

    /// Performs one mail transaction and, where it failed, the RSET behind it.
    pub(super) async fn transact(
        &mut self,
        transaction: Transaction,
        mut content: ContentReader,
    ) -> Transacted {
        self.session.start(transaction);
        let mut replies = None;
        loop {
            match self.event().await {
                ClientEvent::SendContent => match self.send_content(&mut content).await {
                    Ok(()) => {}
                    Err(error) => return Transacted::Unreadable(error),
                },
                ClientEvent::Done(done) => {
                    if !done.reusable {
                        return Transacted::Replies(done);
                    }
                    replies = Some(done);
                }
                ClientEvent::Ready => {
                    if let Some(replies) = replies.take() {
                        return Transacted::Replies(replies);
                    }
                }
                // A failure in the RSET behind a decided transaction does not undo the decision.
                ClientEvent::Failed(failure) => {
                    return match replies {
                        Some(done) => Transacted::Replies(TransactionReplies { reusable: false, ..done }),
                        None => Transacted::Failed(failure),
                    };
                }
                ClientEvent::Closed | ClientEvent::StartTls => {
                    let failure = SessionFailure::Protocol("the session ended without an outcome".to_owned());
                    return Transacted::Failed(failure);
                }
            }
        }
    }

    /// The same connection, which leads to `peer`.
    pub(super) fn with_peer(self, peer: Option<SocketAddr>) -> Self {
        Self { peer, ..self }
    }

    /// Where it leads, if that is an address.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// What the upstream offers.
    pub(super) fn extensions(&self) -> &Extensions {
        self.session.extensions()
    }

    /// Waits, while no transaction runs, for the upstream to end the session. Cancellation loses nothing.
    pub(super) async fn unsolicited(&mut self) -> SessionFailure {
        loop {
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => self.session.connection_lost("the upstream closed the idle connection"),
                Ok(_) => {
                    self.session.receive(&self.buffer);
                    self.buffer.clear();
                }
                Err(error) => self.session.connection_lost(error.to_string()),
            }
            if let Some(ClientEvent::Failed(failure)) = self.session.poll() {
                return failure;
            }
        }
    }

    /// Says QUIT and waits a moment for the answer.
    pub(super) async fn quit(mut self) {
        self.session.quit();
        let _ = timeout(QUIT_TIMEOUT, async {
            while !matches!(self.event().await, ClientEvent::Closed | ClientEvent::Failed(_)) {}
            self.stream.shutdown().await
        })
        .await;
    }

    /// Sends the content to its end, or until the session needs no more of it; what became of it is the next event.
    async fn send_content(&mut self, content: &mut ContentReader) -> Result<(), SpoolError> {
        while let Some(chunk) = content.next().await? {
            self.session.content(&chunk);
            self.write_content().await;
            if !self.session.awaits_content() {
                return Ok(());
            }
        }
        self.session.end_of_content();
        self.write_content().await;
        Ok(())
    }

    /// Writes while listening: an upstream may refuse a large content before its end and close, and its reply would be
    /// lost if only writing could notice.
    async fn write_content(&mut self) {
        let mut output = self.session.take_output();
        let deadline = Instant::now() + DATA_BLOCK_TIMEOUT;
        while !output.is_empty() {
            let (mut reading, mut writing) = tokio::io::split(&mut self.stream);
            let broken = tokio::select! {
                read = reading.read_buf(&mut self.buffer) => match read {
                    Ok(0) => CLOSED.to_owned(),
                    Ok(_) => {
                        if self.hear() { continue } else { return }
                    }
                    Err(error) => error.to_string(),
                },
                written = writing.write(&output) => match written {
                    Ok(octets) => {
                        output.advance(octets);
                        continue;
                    }
                    Err(error) => {
                        self.hear_the_rest().await;
                        error.to_string()
                    }
                },
                () = sleep_until(deadline) => "the upstream takes no more octets".to_owned(),
            };
            return self.session.connection_lost(broken);
        }
        let flushed = timeout(DATA_BLOCK_TIMEOUT, self.stream.flush()).await;
        self.written(flushed).await;
    }

    /// Hands what was read to the session. Returns whether it has nothing to say to that.
    fn hear(&mut self) -> bool {
        self.session.receive(&self.buffer);
        self.buffer.clear();
        if self.decided.is_none() {
            self.decided = self.session.poll();
        }
        self.decided.is_none()
    }

    /// An upstream that refuses a content closes behind its reply, and writing may notice the one before reading the other.
    async fn hear_the_rest(&mut self) {
        let rest = async {
            while matches!(self.stream.read_buf(&mut self.buffer).await, Ok(octets) if octets > 0) {}
        };
        let _ = timeout(LAST_REPLY_TIMEOUT, rest).await;
        self.session.receive(&self.buffer);
        self.buffer.clear();
    }

    /// The protocol's next event, with whatever writing and reading it takes.
    async fn event(&mut self) -> ClientEvent {
        loop {
            if let Some(event) = self.decided.take().or_else(|| self.session.poll()) {
                return event;
            }
            if self.session.is_closed() {
                return ClientEvent::Closed;
            }
            self.flush().await;
            if self.session.is_closed() {
                continue;
            }
            let limit = self.session.read_timeout();
            match timeout(limit, self.stream.read_buf(&mut self.buffer)).await {
                Ok(Ok(0)) => self.session.connection_lost(CLOSED),
                Ok(Ok(_)) => {
                    self.session.receive(&self.buffer);
                    self.buffer.clear();
                }
                Ok(Err(error)) => self.session.connection_lost(error.to_string()),
                Err(_) => self.session.connection_lost(format!("no answer within {limit:?}")),
            }
        }
    }

    /// Writes what the session has to say; what breaks then is the session's next event.
    async fn flush(&mut self) {
        let output = self.session.take_output();
        if !output.is_empty() {
            let write = async {
                self.stream.write_all(&output).await?;
                self.stream.flush().await
            };
            let result = timeout(DATA_BLOCK_TIMEOUT, write).await;
            self.written(result).await;
        }
    }

    async fn written(&mut self, result: Result<io::Result<()>, Elapsed>) {
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.hear_the_rest().await;
                self.session.connection_lost(error.to_string());
            }
            Err(_) => self.session.connection_lost("the upstream takes no more octets"),
        }
    }
}
