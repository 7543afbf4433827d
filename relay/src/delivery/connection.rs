//! One connection to an upstream: bytes between the socket and the protocol's state machine, `smtp_protocol::ClientSession`.
//!
//! It knows nothing of ports, jobs or queues. After [`ClientEvent::Closed`] it is useless.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustls::pki_types::ServerName;
use smtp_protocol::{ClientConfig, ClientEvent, ClientSession, Extensions, SessionFailure, Transaction};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_util::io::poll_read_buf;

use super::content::Content;
use crate::spool::SpoolError;

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
/// A server that does not answer QUIT is left.
const QUIT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a TLS handshake with this upstream needs.
pub(super) struct Tls {
    pub(super) connector: TlsConnector,
    pub(super) name: ServerName<'static>,
    /// The longest that the handshake may take.
    pub(super) patience: Duration,
}

impl Tls {
    pub(super) async fn handshake(&self, stream: BoxedStream) -> io::Result<BoxedStream> {
        match timeout(HANDSHAKE_TIMEOUT.min(self.patience), self.connector.connect(self.name.clone(), stream))
            .await
        {
            Ok(result) => {
                Ok(Box::new(result.map_err(|error| io::Error::new(error.kind(), format!("TLS: {error}")))?))
            }
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long")),
        }
    }
}

/// A session in progress.
pub(super) struct Connection {
    stream: BoxedStream,
    session: ClientSession,
    input: BytesMut,
    /// What the session has said and the stream has not taken yet.
    output: Bytes,
    /// Whether the stream may still hold back what it has taken.
    unflushed: bool,
    /// The longest that anything is awaited.
    patience: Duration,
    /// When the upstream last took or said something that was waited for.
    progress: Instant,
    /// What the session told while a content was written.
    events: VecDeque<ClientEvent>,
    /// The other end, where that is an address.
    peer: Option<SocketAddr>,
}

/// What the stream did.
enum Moved {
    Written(usize),
    Flushed,
    Read(usize),
}

impl Connection {
    /// Greeting, EHLO, STARTTLS where configured, AUTH; returns when the first transaction may start. Nothing is awaited longer than
    /// `patience`, nor longer than RFC 5321 §4.5.3.2 says.
    pub(super) async fn establish(
        stream: BoxedStream,
        config: ClientConfig,
        tls: Option<Tls>,
        patience: Duration,
    ) -> Result<Self, SessionFailure> {
        let mut connection = Self {
            stream,
            session: ClientSession::new(config),
            input: BytesMut::with_capacity(READ_OCTETS),
            output: Bytes::new(),
            unflushed: false,
            patience,
            progress: Instant::now(),
            events: VecDeque::new(),
            peer: None,
        };
        loop {
            match connection.event().await {
                ClientEvent::StartTls => connection = connection.start_tls(tls.as_ref()).await?,
                ClientEvent::Ready => return Ok(connection),
                ClientEvent::Failed(failure) => {
                    // The QUIT that may stand in the output is a courtesy; its loss changes nothing.
                    connection.take_output();
                    let _ = timeout(QUIT_TIMEOUT, connection.stream.write_all(&connection.output)).await;
                    let _ = timeout(QUIT_TIMEOUT, connection.stream.flush()).await;
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
            Err(error) => Err(SessionFailure::Lost(error.to_string())),
        }
    }

    /// Begins a mail transaction. Only when [`may_start`](Self::may_start).
    pub(super) fn start(&mut self, transaction: Transaction) {
        self.session.start(transaction);
    }

    /// Whether a transaction may be started, behind others or not.
    pub(super) fn may_start(&self) -> bool {
        self.session.may_start()
    }

    /// How many transactions may be on their way at once.
    pub(super) fn room(&self) -> usize {
        self.session.room()
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

    /// The protocol's next event, with whatever writing and reading it takes. While no transaction runs it waits for the
    /// upstream to end the session. *Cancellation*: a dropped future loses nothing.
    pub(super) async fn event(&mut self) -> ClientEvent {
        loop {
            if let Some(event) = self.events.pop_front().or_else(|| self.session.poll()) {
                return event;
            }
            if self.session.is_closed() {
                return ClientEvent::Closed;
            }
            self.take_output();
            self.advance().await;
        }
    }

    /// Sends the content to its end, or until the session needs no more of it. What is written last waits for
    /// [`event`](Self::event), so that the next transaction may go with it.
    ///
    /// # Errors
    /// When it cannot be read; its end was not sent, and the connection must be [given up](Self::give_up).
    pub(super) async fn send_content(&mut self, content: &mut Content) -> Result<(), SpoolError> {
        while let Some(piece) = content.next().await? {
            self.session.content(&piece);
            if content.is_at_end() {
                break;
            }
            self.write_all().await;
            if !self.session.awaits_content() {
                return Ok(());
            }
        }
        self.session.end_of_content();
        Ok(())
    }

    /// Ends the session without a further word; what becomes of its transactions are the next events.
    pub(super) fn give_up(&mut self, why: &str) {
        self.session.connection_lost(why);
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

    /// Writes amid a content. An upstream may refuse a large one before its end: then the rest is not written.
    async fn write_all(&mut self) {
        self.take_output();
        while !self.output.is_empty() && self.session.awaits_content() {
            self.advance().await;
            while let Some(event) = self.session.poll() {
                self.events.push_back(event);
            }
        }
    }

    fn take_output(&mut self) {
        if self.output.is_empty() {
            self.output = self.session.take_output();
            if !self.output.is_empty() {
                self.unflushed = true;
                self.progress = Instant::now();
            }
        }
    }

    /// Writes or reads once, or loses the connection. Reads while it cannot write, because an upstream that waits for its
    /// replies to be read takes nothing more (RFC 2920 §3.1).
    async fn advance(&mut self) {
        let limit = if self.output.is_empty() { self.session.read_timeout() } else { DATA_BLOCK_TIMEOUT };
        let limit = limit.min(self.patience);
        let idle = self.session.is_ready() && self.output.is_empty();
        let deadline = self.progress + limit;
        let moved = poll_fn(|context| self.poll_move(context));
        let moved = if idle { Ok(moved.await) } else { timeout_at(deadline, moved).await };
        match moved {
            Ok(Ok(Moved::Written(octets))) => {
                self.output.advance(octets);
                self.progress = Instant::now();
            }
            Ok(Ok(Moved::Flushed)) => self.unflushed = false,
            Ok(Ok(Moved::Read(0))) => self.session.connection_lost("the upstream closed the connection"),
            Ok(Ok(Moved::Read(_))) => {
                self.progress = Instant::now();
                self.hear();
            }
            Ok(Err(error)) => {
                self.hear_the_rest().await;
                self.session.connection_lost(error.to_string());
            }
            Err(_) if self.output.is_empty() => {
                self.session.connection_lost(format!("no answer within {limit:?}"));
            }
            Err(_) => self.session.connection_lost("the upstream takes no more octets"),
        }
    }

    fn poll_move(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Moved>> {
        let mut stream = Pin::new(&mut self.stream);
        if !self.output.is_empty() {
            if let Poll::Ready(written) = stream.as_mut().poll_write(context, &self.output) {
                return Poll::Ready(written.and_then(|octets| match octets {
                    0 => Err(io::ErrorKind::WriteZero.into()),
                    octets => Ok(Moved::Written(octets)),
                }));
            }
        } else if self.unflushed
            && let Poll::Ready(flushed) = stream.as_mut().poll_flush(context)
        {
            return Poll::Ready(flushed.map(|()| Moved::Flushed));
        }
        poll_read_buf(stream, context, &mut self.input).map_ok(Moved::Read)
    }

    fn hear(&mut self) {
        self.session.receive(&self.input);
        self.input.clear();
    }

    /// An upstream that refuses a content closes behind its reply, and writing may notice the one before reading the other.
    async fn hear_the_rest(&mut self) {
        let rest = async {
            while matches!(self.stream.read_buf(&mut self.input).await, Ok(octets) if octets > 0) {}
        };
        let _ = timeout(LAST_REPLY_TIMEOUT, rest).await;
        self.hear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smtp_protocol::{Body, ClientTls, ForwardPath, Mailbox, ReversePath, Undecided};
    use tokio::io::{AsyncBufReadExt, BufReader, DuplexStream, duplex};

    /// Says each line in answer to a line, the first unasked, and then nothing more; nor does it read on.
    async fn answer(stream: DuplexStream, replies: &[&str]) {
        let mut stream = BufReader::new(stream);
        for (number, reply) in replies.iter().enumerate() {
            if number > 0 {
                stream.read_line(&mut String::new()).await.unwrap();
            }
            stream.write_all(format!("{reply}\r\n").as_bytes()).await.unwrap();
        }
        std::future::pending().await
    }

    fn transaction() -> Transaction {
        Transaction {
            reverse_path: ReversePath::Null,
            recipients: vec![ForwardPath::from("c@d.example".parse::<Mailbox>().unwrap()).into()],
            whole: false,
            size: 3,
            body: Body::SevenBit,
            smtputf8: false,
            ret: None,
            envelope_id: None,
        }
    }

    /// Carries one message to an upstream that falls silent behind these replies, or takes no more of its content.
    async fn carry(stream: DuplexStream, patience: Duration, content: &[u8]) -> (String, Option<Undecided>) {
        let config = ClientConfig {
            ehlo_name: "a.example".into(),
            tls: ClientTls::None,
            credentials: None,
            nonce: String::new(),
        };
        let mut connection = match Connection::establish(Box::new(stream), config, None, patience).await {
            Ok(connection) => connection,
            Err(failure) => return (failure.to_string(), None),
        };
        connection.start(transaction());
        let mut why = String::new();
        loop {
            match connection.event().await {
                ClientEvent::SendContent => {
                    connection.session.content(content);
                    connection.write_all().await;
                    connection.session.end_of_content();
                }
                ClientEvent::Failed(failure) => why = failure.to_string(),
                ClientEvent::Undecided(state) => return (why, Some(state)),
                other => panic!("{other:?}"),
            }
        }
    }

    /// `replies`: what the upstream says before it is silent. Expects that it is left after so many seconds.
    async fn check(replies: &[&str], content: &[u8], patience: Duration, expected: (u64, Option<Undecided>)) {
        let (ours, theirs) = duplex(256);
        let begin = Instant::now();
        let found = tokio::select! {
            found = carry(ours, patience, content) => found,
            () = answer(theirs, replies) => panic!("the upstream stays"),
        };
        assert_eq!((begin.elapsed().as_secs(), found.1), expected, "behind {replies:?}: {}", found.0);
    }

    const REPLIES: [&str; 5] = ["220 hello", "250 hello", "250 sender", "250 recipient", "354 go"];

    #[tokio::test(start_paused = true)]
    async fn a_silent_upstream_is_waited_for_as_long_as_rfc_5321_says() {
        let broken = Some(Undecided::Broken);
        for (said, expected) in [
            (0, (300, None)),
            (1, (300, None)),
            (2, (300, broken)),
            (3, (300, broken)),
            (4, (120, broken)),
            (5, (600, Some(Undecided::Ambiguous))),
        ] {
            check(&REPLIES[..said], b"x\r\n", Duration::MAX, expected).await;
        }
        check(&REPLIES, &[b'x'; 1000], Duration::MAX, (180, broken)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_patience_bounds_every_wait() {
        for said in 0..=5 {
            let state =
                [None, None, Some(Undecided::Broken), Some(Undecided::Broken), Some(Undecided::Broken)];
            let state = state.get(said).copied().unwrap_or(Some(Undecided::Ambiguous));
            check(&REPLIES[..said], b"x\r\n", Duration::from_secs(7), (7, state)).await;
        }
        check(&REPLIES, &[b'x'; 1000], Duration::from_secs(7), (7, Some(Undecided::Broken))).await;
    }
}
