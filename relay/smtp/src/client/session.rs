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
/// [`ClientEvent::Undecided`], in the order of the starts.
///
/// # Several messages in flight
/// Where the server offers PIPELINING the next transaction may be started as soon as the content of the one before has been
/// put out to its end, while its reply is awaited (RFC 2920 §3.1); [`may_start`](Self::may_start) tells. With DATA its content
/// waits for the 354 and so for the reply to the one before; with CHUNKING it follows at once. RSET stands between: the one
/// before may fail in a way that leaves the server in it (RFC 3030 §2), and then the next envelope would be added to it.
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
    /// Oldest first, never empty. Only the newest has something left to send.
    Transactions(VecDeque<Running>),
    Reset,
    Quit,
    Closed,
}

impl ClientSession {
    /// Transactions on their way at once where contents go as chunks. Each may arrive twice when the session breaks, so they
    /// are few; more would not help, because a session's replies then come in a stream already.
    pub const MOST_IN_FLIGHT: usize = 4;

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

    /// Begins a mail transaction with at least one recipient. Only when [`may_start`](Self::may_start); otherwise the session
    /// fails.
    ///
    /// With PIPELINING all commands up to DATA go out in one piece (at most 128 unanswered), without it one by one.
    pub fn start(&mut self, transaction: Transaction) {
        if !self.may_start() || transaction.recipients.is_empty() {
            return self.fail_protocol("a transaction was started that cannot be".to_owned());
        }
        let behind = matches!(self.stage, Stage::Transactions(_));
        let mut running = Running::new(transaction, &self.extensions, behind);
        running.send(&mut self.output);
        if running.awaits_content() {
            self.events.push_back(ClientEvent::SendContent);
        }
        match &mut self.stage {
            Stage::Transactions(others) => others.push_back(running),
            stage => *stage = Stage::Transactions(VecDeque::from([running])),
        }
    }

    /// Whether [`start`](Self::start) may be called.
    pub fn may_start(&self) -> bool {
        match &self.stage {
            Stage::Ready => true,
            Stage::Transactions(running) => {
                running.len() < self.room() && running.back().is_some_and(Running::is_sent)
            }
            _ => false,
        }
    }

    /// How many transactions may be on their way at once.
    pub fn room(&self) -> usize {
        match &self.extensions {
            offered if !offered.pipelining => 1,
            offered if offered.chunking => Self::MOST_IN_FLIGHT,
            // The content of the second waits for the reply to the first.
            _ => 2,
        }
    }

    /// Takes a piece of the content; of any size, cut anywhere. After [`ClientEvent::SendContent`]; ignored when no content is
    /// awaited (any more). Write the output between pieces.
    pub fn content(&mut self, piece: &[u8]) {
        if let Stage::Transactions(running) = &mut self.stage
            && let Some(newest) = running.back_mut()
        {
            newest.content(piece, &mut self.output);
        }
    }

    /// Appends the end of the content: CRLF if it lacks one, dot, CRLF; or the whole of it as one chunk. From the moment this
    /// leaves until the reply the outcome is ambiguous. Ignored when no content is awaited (any more).
    pub fn end_of_content(&mut self) {
        if let Stage::Transactions(running) = &mut self.stage
            && let Some(newest) = running.back_mut()
        {
            newest.end_of_content(&mut self.output);
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
        let Stage::Transactions(running) = &self.stage else { return 5 * MINUTE };
        match running.front().and_then(Running::awaited) {
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
    /// transactions; a reply that did arrive counts. Ignored when the session is over already.
    ///
    /// `why` completes a sentence: `the server was silent for 5 minutes`.
    pub fn connection_lost(&mut self, why: impl Into<String>) {
        while !self.is_closed()
            && let Ok(Some(reply)) = self.replies.next()
        {
            self.take_reply(reply);
        }
        // Whatever else was to be done needs the connection.
        self.events.retain(|event| {
            !matches!(event, ClientEvent::StartTls | ClientEvent::Ready | ClientEvent::SendContent)
        });
        self.fail_without_quit(SessionFailure::Lost(why.into()));
    }

    /// Whether no transaction runs and one may be started.
    pub fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready)
    }

    /// Whether content is awaited from the driver.
    pub fn awaits_content(&self) -> bool {
        matches!(&self.stage, Stage::Transactions(running) if running.back().is_some_and(Running::awaits_content))
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
            Stage::Transactions(running) => {
                if let Some(oldest) = running.front_mut() {
                    let progress = oldest.receive(reply, &mut self.output);
                    self.follow(progress);
                }
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

    /// The oldest transaction has ended.
    fn conclude(&mut self, replies: TransactionReplies) {
        let Stage::Transactions(running) = &mut self.stage else { return };
        running.pop_front();
        let idle = running.is_empty();
        let clean = replies.recipients.iter().any(|recipient| recipient.is_delivered());
        let reusable = replies.reusable;
        self.events.push_back(ClientEvent::Done(replies));
        match (reusable, idle) {
            (false, _) => {
                self.abandon(false);
                self.close();
            }
            (true, false) => {}
            (true, true) if clean => self.ready(),
            (true, true) => {
                self.send_line("RSET");
                self.stage = Stage::Reset;
            }
        }
    }

    fn fail_injected(&mut self) {
        self.fail_without_quit(SessionFailure::Protocol(
            "the server sent more behind its reply to STARTTLS, in clear; somebody may be tampering with the connection"
                .to_owned(),
        ));
    }

    fn fail_protocol(&mut self, what: String) {
        self.fail_without_quit(SessionFailure::Protocol(what));
    }

    /// The server follows the protocol, so it is told goodbye (RFC 5321 §3.8); nobody waits for its answer.
    fn fail(&mut self, failure: SessionFailure) {
        if !failure.reply().is_some_and(Reply::closes_connection) {
            self.send_line("QUIT");
        }
        self.fail_without_quit(failure);
    }

    fn fail_without_quit(&mut self, failure: SessionFailure) {
        if !self.is_closed() {
            self.events.push_back(ClientEvent::Failed(failure));
            self.abandon(true);
            self.close();
        }
    }

    /// Says of every transaction that still runs what is known of it. `broken`: the session failed under the oldest.
    fn abandon(&mut self, broken: bool) {
        if let Stage::Transactions(running) = &mut self.stage {
            let ends =
                running.drain(..).enumerate().map(|(place, ended)| ended.abandon(broken && place == 0));
            self.events.extend(ends);
        }
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
