//! The client session as a state machine: octets in, events and octets out.

use super::authentication::{self, Exchange, Next};
use super::config::{ClientConfig, ClientTls, Transaction};
use super::event::{ClientEvent, SessionFailure, TransactionCommand, TransactionReplies};
use super::transaction::{Progress, Running};
use crate::extension::Extensions;
use crate::reply::{Reply, ReplyReader};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// One SMTP session, seen from the client.
///
/// # How a driver uses it
/// 1. [`poll`](Self::poll) until `None`, performing each event.
/// 2. Write [`take_output`](Self::take_output).
/// 3. After [`ClientEvent::Closed`] close the connection. Else read for at most [`read_timeout`](Self::read_timeout)
///    and hand the octets to [`receive`](Self::receive); when that fails or takes too long, call
///    [`connection_lost`](Self::connection_lost) and poll again.
///
/// A driver that sends a large content also reads meanwhile: a server may refuse it before its end, and then
/// [`awaits_content`](Self::awaits_content) turns false.
///
/// The session opens with greeting, EHLO (HELO after a 5yz), STARTTLS, EHLO, AUTH as the configuration asks and then says
/// [`ClientEvent::Ready`]. Every [`start`](Self::start) ends in exactly one [`ClientEvent::Done`] or
/// [`ClientEvent::Failed`].
pub struct ClientSession {
    config: ClientConfig,
    stage: Stage,
    tls: bool,
    extensions: Extensions,
    replies: ReplyReader,
    output: BytesMut,
    events: VecDeque<ClientEvent>,
}

/// Which reply is awaited.
#[derive(Debug)]
enum Stage {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Handshake,
    Authentication(Exchange),
    /// None: the session is idle.
    Ready,
    Transaction(Box<Running>),
    Reset,
    Quit,
    Closed,
}

impl ClientSession {
    /// A session that awaits the greeting. With [`ClientTls::Implicit`] the TLS handshake is done already.
    pub fn new(config: ClientConfig) -> Self {
        Self {
            tls: config.tls == ClientTls::Implicit,
            config,
            stage: Stage::Greeting,
            extensions: Extensions::default(),
            replies: ReplyReader::new(),
            output: BytesMut::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes octets from the server.
    ///
    /// Octets handed in between [`ClientEvent::StartTls`] and [`tls_established`](Self::tls_established) were sent in
    /// clear behind the 220; they end the session.
    pub fn receive(&mut self, input: &[u8]) {
        match self.stage {
            Stage::Closed => {}
            Stage::Handshake if input.is_empty() => {}
            Stage::Handshake => self.fail_injected(),
            _ => self.replies.push(input),
        }
    }

    /// Octets to write to the server, possibly none.
    pub fn take_output(&mut self) -> Bytes {
        self.output.split().freeze()
    }

    /// The next thing to know or do. `None`: more input is needed, or it is the driver's turn.
    pub fn poll(&mut self) -> Option<ClientEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if matches!(self.stage, Stage::Closed) {
                return None;
            }
            match self.replies.next() {
                Ok(Some(reply)) => self.take_reply(reply),
                Ok(None) => return None,
                Err(error) => self.fail_protocol(error.to_string()),
            }
        }
    }

    /// The TLS handshake asked for by [`ClientEvent::StartTls`] succeeded. What the server offered before is forgotten
    /// (RFC 3207 §4.2).
    pub fn tls_established(&mut self) {
        if matches!(self.stage, Stage::Handshake) {
            self.tls = true;
            self.extensions = Extensions::default();
            self.send_ehlo();
        }
    }

    /// Begins a mail transaction. Only when [`is_ready`](Self::is_ready); otherwise the session fails.
    ///
    /// With PIPELINING all commands up to DATA go out in one piece (at most 128 unanswered), without it one by one.
    /// No recipients: done at once, nothing is sent.
    pub fn start(&mut self, transaction: Transaction) {
        if !self.is_ready() {
            return self.fail_protocol("a transaction was started on a session that is not ready".to_owned());
        }
        if transaction.recipients.is_empty() {
            let nothing =
                TransactionReplies { recipients: Vec::new(), reusable: true, notifies: self.extensions.dsn };
            self.events.extend([ClientEvent::Done(nothing), ClientEvent::Ready]);
            return;
        }
        let mut running = Box::new(Running::new(transaction, &self.extensions));
        running.send(&mut self.output);
        self.stage = Stage::Transaction(running);
    }

    /// Appends a piece of the content to the output, dots stuffed; of any size, cut anywhere. After
    /// [`ClientEvent::SendContent`]; ignored when no content is awaited (any more). Write the output between pieces.
    pub fn content(&mut self, chunk: &[u8]) {
        if let Stage::Transaction(running) = &mut self.stage {
            running.content(chunk, &mut self.output);
        }
    }

    /// Appends the end of the content: CRLF if it lacks one, dot, CRLF. From the moment this leaves until the reply the
    /// outcome is ambiguous. Ignored when no content is awaited (any more).
    pub fn end_of_content(&mut self) {
        if let Stage::Transaction(running) = &mut self.stage {
            running.end_of_content(&mut self.output);
        }
    }

    /// Ends the session: QUIT when it is ready, and [`ClientEvent::Closed`] when that is answered; otherwise `Closed` at
    /// once, which is for a session that will not come up.
    pub fn quit(&mut self) {
        match self.stage {
            Stage::Ready => {
                self.output.put_slice(b"QUIT\r\n");
                self.stage = Stage::Quit;
            }
            Stage::Quit | Stage::Closed => {}
            _ => self.close(),
        }
    }

    /// How long to wait for the server in the present stage (RFC 5321 §4.5.3.2). While content is sent it is the limit
    /// for writing one piece (§4.5.3.2.5).
    pub fn read_timeout(&self) -> Duration {
        let Stage::Transaction(running) = &self.stage else { return 5 * MINUTE };
        match running.awaited() {
            Some(TransactionCommand::Mail | TransactionCommand::Recipient) => 5 * MINUTE,
            Some(TransactionCommand::Data) => 2 * MINUTE,
            Some(TransactionCommand::Content) => 10 * MINUTE,
            None => 3 * MINUTE,
        }
    }

    /// What the server offers: empty before its EHLO reply and after a fall-back to HELO.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// The connection broke or was silent for too long: ends the session. [`poll`](Self::poll) says what became of the
    /// running transaction; a reply that did arrive counts. Ignored when the session is over already.
    ///
    /// `why` completes a sentence: `the server was silent for 5 minutes`.
    pub fn connection_lost(&mut self, why: impl Into<String>) {
        while !self.is_closed()
            && let Ok(Some(reply)) = self.replies.next()
        {
            self.take_reply(reply);
        }
        // Whatever else was to be done needs the connection.
        let last = |event: &ClientEvent| {
            matches!(event, ClientEvent::Done(_) | ClientEvent::Failed(_) | ClientEvent::Closed)
        };
        self.events.retain(last);
        let ambiguous = self.is_ambiguous();
        self.fail_without_quit(SessionFailure::Lost { ambiguous, why: why.into() });
    }

    /// Whether [`start`](Self::start) may be called.
    pub fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready)
    }

    /// Whether content is awaited from the driver.
    pub fn awaits_content(&self) -> bool {
        matches!(&self.stage, Stage::Transaction(running) if running.awaits_content())
    }

    /// Whether the final dot has been put out for at least one recipient and no reply has arrived.
    pub fn is_ambiguous(&self) -> bool {
        matches!(&self.stage, Stage::Transaction(running) if running.is_ambiguous())
    }

    /// Whether the session is under TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        matches!(self.stage, Stage::Closed)
    }

    /// Octets held: unread input and unwritten output.
    pub fn buffered(&self) -> usize {
        self.replies.buffered() + self.output.len()
    }

    fn take_reply(&mut self, reply: Reply) {
        match &mut self.stage {
            Stage::Greeting if reply.is_completion() => self.send_ehlo(),
            Stage::Greeting => self.fail(SessionFailure::Greeting(reply)),
            Stage::Ehlo | Stage::Helo => self.greeted(reply),
            Stage::StartTls => self.starttls_answered(reply),
            Stage::Authentication(exchange) => {
                let exchange = std::mem::replace(exchange, Exchange::Complete);
                self.continue_authentication(exchange, reply);
            }
            Stage::Transaction(running) => {
                let progress = running.receive(reply, &mut self.output);
                self.follow(progress);
            }
            Stage::Reset if reply.is_completion() => self.ready(),
            Stage::Reset if reply.closes_connection() => self.fail(SessionFailure::Unexpected421(reply)),
            Stage::Reset => self.fail_protocol(format!("the server refused RSET: {reply}")),
            Stage::Ready if reply.closes_connection() => self.fail(SessionFailure::Unexpected421(reply)),
            Stage::Ready => self.fail_protocol(format!("the server sent a reply to no command: {reply}")),
            Stage::Quit => self.close(),
            // Neither takes input.
            Stage::Handshake | Stage::Closed => {}
        }
    }

    fn send_ehlo(&mut self) {
        self.send_line(&format!("EHLO {}", self.config.ehlo_name));
        self.stage = Stage::Ehlo;
    }

    fn greeted(&mut self, reply: Reply) {
        match self.stage {
            Stage::Ehlo if reply.is_permanent() => {
                self.send_line(&format!("HELO {}", self.config.ehlo_name));
                self.stage = Stage::Helo;
                return;
            }
            Stage::Ehlo => self.extensions = Extensions::from_ehlo(&reply),
            _ => {}
        }
        if !reply.is_completion() {
            return self.fail(SessionFailure::Ehlo(reply));
        }
        if self.config.tls == ClientTls::StartTls && !self.tls {
            return self.start_tls();
        }
        self.authenticate();
    }

    fn start_tls(&mut self) {
        if !self.extensions.starttls {
            return self.fail(SessionFailure::TlsNotOffered);
        }
        self.send_line("STARTTLS");
        self.stage = Stage::StartTls;
    }

    fn starttls_answered(&mut self, reply: Reply) {
        if !reply.is_completion() {
            return self.fail(SessionFailure::StartTls(reply));
        }
        if self.replies.buffered() > 0 {
            return self.fail_injected();
        }
        self.stage = Stage::Handshake;
        self.events.push_back(ClientEvent::StartTls);
    }

    /// Credentials leave under TLS, or in clear where the configuration says [`ClientTls::None`].
    fn authenticate(&mut self) {
        let Some(credentials) = &self.config.credentials else { return self.ready() };
        match authentication::begin(credentials, &self.config.nonce, &self.extensions) {
            Some((exchange, line)) => {
                self.send_line(&line);
                self.stage = Stage::Authentication(exchange);
            }
            None => self.fail(SessionFailure::NoCommonMechanism(self.extensions.auth.clone())),
        }
    }

    fn continue_authentication(&mut self, exchange: Exchange, reply: Reply) {
        let Some(credentials) = &self.config.credentials else { return self.ready() };
        match exchange.answer(reply, credentials) {
            Next::Send(exchange, line) => {
                self.send_line(&line);
                self.stage = Stage::Authentication(exchange);
            }
            Next::Authenticated => self.ready(),
            Next::Refused(reply) => self.fail(SessionFailure::Authentication(reply)),
            Next::Surprise(what) => self.fail_protocol(what),
        }
    }

    fn ready(&mut self) {
        self.stage = Stage::Ready;
        self.events.push_back(ClientEvent::Ready);
    }

    fn follow(&mut self, progress: Progress) {
        match progress {
            Progress::Continue => {}
            Progress::SendContent => self.events.push_back(ClientEvent::SendContent),
            Progress::Over(replies) => self.conclude(replies),
            Progress::Surprise(reply) => {
                self.fail_protocol(format!("the server sent an unexpected reply: {reply}"))
            }
        }
    }

    fn conclude(&mut self, replies: TransactionReplies) {
        let reusable = replies.reusable;
        let clean = replies.recipients.iter().any(|recipient| recipient.is_delivered());
        self.events.push_back(ClientEvent::Done(replies));
        if !reusable {
            self.close();
        } else if clean {
            self.ready();
        } else {
            self.send_line("RSET");
            self.stage = Stage::Reset;
        }
    }

    fn fail_injected(&mut self) {
        self.fail_without_quit(SessionFailure::Protocol(
            "the server sent more behind its reply to STARTTLS, in clear; somebody may be tampering with the connection"
                .to_owned(),
        ));
    }

    fn fail_protocol(&mut self, what: String) {
        let ambiguous = self.is_ambiguous();
        self.fail_without_quit(if ambiguous {
            SessionFailure::Lost { ambiguous, why: what }
        } else {
            SessionFailure::Protocol(what)
        });
    }

    /// The server follows the protocol, so it is told goodbye (RFC 5321 §3.8); nobody waits for its answer.
    fn fail(&mut self, failure: SessionFailure) {
        if !failure.reply().is_some_and(Reply::closes_connection) {
            self.send_line("QUIT");
        }
        self.fail_without_quit(failure);
    }

    /// A transaction whose recipients had all been refused by then has its outcome.
    fn fail_without_quit(&mut self, failure: SessionFailure) {
        if self.is_closed() {
            return;
        }
        let decided = match &mut self.stage {
            Stage::Transaction(running) => running.decided(),
            _ => None,
        };
        self.events.push_back(decided.map_or(ClientEvent::Failed(failure), ClientEvent::Done));
        self.close();
    }

    fn close(&mut self) {
        if !self.is_closed() {
            self.stage = Stage::Closed;
            self.replies = ReplyReader::new();
            self.events.push_back(ClientEvent::Closed);
        }
    }

    fn send_line(&mut self, line: &str) {
        self.output.put_slice(line.as_bytes());
        self.output.put_slice(b"\r\n");
    }
}

/// Without credentials, content or the server's octets.
impl fmt::Debug for ClientSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSession")
            .field("stage", &self.stage)
            .field("tls", &self.tls)
            .field("extensions", &self.extensions)
            .finish_non_exhaustive()
    }
}
