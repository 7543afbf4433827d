//! The server session as a state machine: octets in, events and octets out.

use super::config::{ServerConfig, TlsOffer};
use super::decide::{self, Decision};
use super::event::Event;
use super::state::{Helo, OpenTransaction, State};
use crate::auth::{Exchange, ExchangeError, Step};
use crate::command::Command;
use crate::data::{ContentDecoder, ContentFault, Decoded};
use crate::line::{Line, LineReader};
use crate::reply::Reply;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Octets of unread input above which [`ServerSession::wants_input`] says no.
const INPUT_OCTETS: usize = 64 * 1024;

/// One SMTP session, seen from the server.
///
/// # How a driver uses it
/// 1. [`poll`](Self::poll) until `None`, performing each event; those that await an answer get it by
///    [`respond`](Self::respond), at once or later, and nothing else happens in between.
/// 2. Write [`take_output`](Self::take_output): the replies of a pipelined group leave in one piece (RFC 2920 §3.2).
/// 3. After [`Event::Closed`] close the connection. Else read while [`wants_input`](Self::wants_input), for at most
///    [`read_timeout`](Self::read_timeout), and hand the octets to [`receive`](Self::receive); or call
///    [`timed_out`](Self::timed_out).
///
/// # Line discipline
/// Only CRLF ends a line and only CRLF.CRLF ends content. Content with a bare CR, a bare LF or a NUL is swallowed up
/// to its true end and refused, and the session goes on. A command line with a bare CR is refused, and the session
/// goes on: nobody takes a CR for a line end. A command line with a bare LF is refused and the session ends, because
/// the peer may see other commands in what follows than we would.
///
/// # Memory
/// Besides what one `receive` brings: one command line (12,288 octets). Content is never held.
pub struct ServerSession {
    config: Arc<ServerConfig>,
    state: State,
    phase: Phase,
    input: BytesMut,
    lines: LineReader,
    output: BytesMut,
    events: VecDeque<Event>,
    errors: u32,
}

/// What the next octets are, or whose turn it is.
#[derive(Debug)]
enum Phase {
    /// A command line.
    Command,
    /// A SASL response.
    Exchange(Exchange),
    /// The driver's answer is awaited.
    Question(Question),
    /// The driver's TLS handshake is awaited.
    Handshake,
    /// Content, and what is wrong with it.
    Content(ContentDecoder, Option<ContentFault>),
    /// Nothing any more.
    Closed,
}

/// What the driver was asked.
#[derive(Debug)]
enum Question {
    Authenticate { username: String },
    Mail,
    Recipient,
    Data,
    EndOfContent,
}

impl ServerSession {
    /// A session whose greeting (220) is in the output.
    pub fn new(config: Arc<ServerConfig>) -> Self {
        let greeting = Reply::bare(220, format!("{} {}", config.hostname, config.banner_text));
        Self::greeting(config, &greeting)
    }

    /// A session that greets with `reply` (421, 554) instead of 220 and is over: too many connections, an unwanted
    /// peer (RFC 5321 §3.1). Its only event is [`Event::Closed`].
    pub fn refuse(config: Arc<ServerConfig>, reply: Reply) -> Self {
        let mut session = Self::greeting(config, &reply);
        session.end();
        session
    }

    fn greeting(config: Arc<ServerConfig>, greeting: &Reply) -> Self {
        let state = State { tls: config.tls == TlsOffer::Established, ..State::default() };
        let mut output = BytesMut::new();
        greeting.encode(&mut output);
        Self {
            config,
            state,
            phase: Phase::Command,
            input: BytesMut::new(),
            lines: LineReader::new(),
            output,
            events: VecDeque::new(),
            errors: 0,
        }
    }

    /// Takes octets from the peer. Respect [`wants_input`](Self::wants_input): whatever is handed in is held.
    ///
    /// Octets handed in between [`Event::StartTls`] and [`tls_established`](Self::tls_established) were sent in clear
    /// behind STARTTLS; they end the session.
    pub fn receive(&mut self, input: &[u8]) {
        match self.phase {
            Phase::Closed => {}
            Phase::Handshake if input.is_empty() => {}
            Phase::Handshake => self.end(),
            _ => self.input.extend_from_slice(input),
        }
    }

    /// Whether to read from the peer: not while an event awaits its answer, not while 64 KiB are unread, not after the
    /// end.
    pub fn wants_input(&self) -> bool {
        let listening = matches!(self.phase, Phase::Command | Phase::Exchange(_) | Phase::Content(..));
        listening && self.input.len() < INPUT_OCTETS
    }

    /// The next thing to do. `None`: an answer or more input is needed, or the session is over.
    pub fn poll(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if !self.advance() {
                return None;
            }
        }
    }

    /// Octets to write to the peer, possibly none.
    pub fn take_output(&mut self) -> Bytes {
        self.output.split().freeze()
    }

    /// Answers the event that awaits an answer. A positive reply moves the session on: 2yz for MAIL, RCPT, AUTH and the
    /// end of content, 3yz for DATA. 421 ends the session. Ignored when no answer is awaited (any more).
    pub fn respond(&mut self, reply: Reply) {
        let question = match std::mem::replace(&mut self.phase, Phase::Command) {
            Phase::Question(question) => question,
            // A late answer, after `timed_out` say, has nothing left to move and must not revive the session.
            phase => {
                self.phase = phase;
                return;
            }
        };
        reply.encode(&mut self.output);
        self.settle_question(question, &reply);
        if reply.closes_connection() {
            return self.end();
        }
        if reply.is_permanent() {
            self.count_error();
        }
        self.end_if_drained();
    }

    /// The TLS handshake asked for by [`Event::StartTls`] succeeded. All that was known about the peer is forgotten
    /// (RFC 3207 §4.2).
    pub fn tls_established(&mut self) {
        if matches!(self.phase, Phase::Handshake) {
            self.state = State { tls: true, draining: self.state.draining, ..State::default() };
            self.phase = Phase::Command;
            self.end_if_drained();
        }
    }

    /// The peer was silent for [`read_timeout`](Self::read_timeout): queues 421 4.4.2 and ends the session.
    pub fn timed_out(&mut self) {
        self.end_with((4, 4, 2), "Timeout waiting for the client, closing connection");
    }

    /// Ends the session gracefully with 421 4.3.2: at once when no mail transaction is open, otherwise when the running
    /// one is over.
    pub fn shut_down(&mut self) {
        self.state.draining = true;
        self.end_if_drained();
    }

    /// How long to wait for the peer's next octets in the present state (RFC 5321 §4.5.3.2.7).
    pub fn read_timeout(&self) -> Duration {
        match self.phase {
            Phase::Content(..) => self.config.timeouts.content,
            _ => self.config.timeouts.command,
        }
    }

    /// Whether a MAIL was accepted whose transaction is not over.
    pub fn in_transaction(&self) -> bool {
        self.state.transaction.is_some()
    }

    /// Whether the session is under TLS.
    pub fn is_tls(&self) -> bool {
        self.state.tls
    }

    /// The name the client gave in EHLO or HELO: a claim, of characters that are safe in trace information.
    pub fn helo_name(&self) -> Option<&str> {
        self.state.helo.as_ref().map(|helo| helo.name.as_str())
    }

    /// Whether the client said EHLO.
    pub fn is_esmtp(&self) -> bool {
        self.state.helo.as_ref().is_some_and(|helo| helo.esmtp)
    }

    /// The user whose credentials the driver accepted.
    pub fn authenticated_user(&self) -> Option<&str> {
        self.state.user.as_deref()
    }

    /// Whether the session is over. [`Event::Closed`] says so once.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Octets held: unread input and unwritten output.
    pub fn buffered(&self) -> usize {
        self.input.len() + self.output.len()
    }

    /// Takes one step on the input; false when there is none to take.
    fn advance(&mut self) -> bool {
        match &self.phase {
            Phase::Command | Phase::Exchange(_) => match self.lines.take(&mut self.input) {
                Some(line) => self.take_line(line),
                None => return false,
            },
            Phase::Content(..) => return self.take_content(),
            Phase::Question(_) | Phase::Handshake | Phase::Closed => return false,
        }
        true
    }

    fn take_line(&mut self, line: Line) {
        let phase = std::mem::replace(&mut self.phase, Phase::Command);
        match (line, phase) {
            (Line::BareLineFeed, _) => self.end_unsynchronised(),
            (Line::Complete(line), Phase::Exchange(exchange)) => {
                self.continue_exchange(exchange.respond(&line))
            }
            (Line::TooLong, Phase::Exchange(_)) => {
                self.refuse_command(&Reply::new(500, (5, 5, 6), "Authentication exchange line is too long"));
            }
            (Line::BareCarriageReturn, Phase::Exchange(_)) => {
                self.continue_exchange(Step::Failed(ExchangeError::Base64));
            }
            (Line::Complete(line), _) => match Command::parse(&line) {
                Ok(command) => self.perform(decide::decide(command, &self.state, &self.config)),
                Err(error) => self.refuse_command(&error.reply()),
            },
            (Line::TooLong, _) => self.refuse_command(&Reply::new(500, (5, 5, 2), "Line too long")),
            (Line::BareCarriageReturn, _) => {
                self.refuse_command(&Reply::new(
                    500,
                    (5, 5, 2),
                    "Bare CR in a command line; lines end with CRLF",
                ));
            }
        }
    }

    fn perform(&mut self, decision: Decision) {
        match decision {
            Decision::Answer(reply) => reply.encode(&mut self.output),
            Decision::Refuse(reply) => self.refuse_command(&reply),
            Decision::Greet(helo) => self.greet(helo),
            Decision::Reset => {
                self.abort();
                self.answer(250, (2, 0, 0), "OK");
                self.end_if_drained();
            }
            Decision::Quit => {
                self.answer(221, (2, 0, 0), &format!("{} closing connection", self.config.hostname));
                self.end();
            }
            Decision::StartTls => self.start_tls(),
            Decision::Authenticate(step) => self.continue_exchange(step),
            Decision::Mail { reverse_path, size, body } => {
                self.ask(Question::Mail, Event::Mail { reverse_path, size, body });
            }
            Decision::Recipient { forward_path } => {
                self.ask(Question::Recipient, Event::Recipient { forward_path })
            }
            Decision::Data => self.ask(Question::Data, Event::Data),
        }
    }

    fn ask(&mut self, question: Question, event: Event) {
        self.phase = Phase::Question(question);
        self.events.push_back(event);
    }

    /// EHLO and HELO end a running transaction like RSET (RFC 5321 §4.1.4).
    fn greet(&mut self, helo: Helo) {
        self.abort();
        let mut lines = vec![format!("{} greets {}", self.config.hostname, helo.name)];
        if helo.esmtp {
            lines.extend(decide::extensions(&self.state, &self.config));
        }
        Reply::multiline(250, lines).encode(&mut self.output);
        self.state.helo = Some(helo);
        self.end_if_drained();
    }

    fn start_tls(&mut self) {
        if !self.input.is_empty() {
            // Commands injected in clear must never be read as if they had come under TLS (CVE-2011-0411).
            self.answer(554, (5, 5, 1), "Nothing may be pipelined behind STARTTLS, closing connection");
            return self.end();
        }
        self.abort();
        self.answer(220, (2, 0, 0), "Ready to start TLS");
        self.phase = Phase::Handshake;
        self.events.push_back(Event::StartTls);
    }

    fn continue_exchange(&mut self, step: Step) {
        match step {
            Step::Challenge(exchange, text) => {
                Reply::bare(334, text).encode(&mut self.output);
                self.phase = Phase::Exchange(exchange);
            }
            Step::Complete(credentials) => {
                let username = credentials.username().to_owned();
                self.ask(Question::Authenticate { username }, Event::Authenticate(credentials));
            }
            Step::Failed(error) => self.refuse_command(&error.reply()),
        }
    }

    fn settle_question(&mut self, question: Question, reply: &Reply) {
        match question {
            Question::Authenticate { username } if reply.is_completion() => self.state.user = Some(username),
            Question::Authenticate { .. } => {}
            Question::Mail if reply.is_completion() => {
                self.state.transaction = Some(OpenTransaction::default())
            }
            Question::Mail => {}
            Question::Recipient => {
                if let Some(open) = &mut self.state.transaction {
                    open.recipient_tried = true;
                    open.recipients += usize::from(reply.is_completion());
                }
            }
            Question::Data if reply.is_intermediate() => {
                self.phase = Phase::Content(ContentDecoder::new(self.config.message_bytes), None);
            }
            Question::Data => {}
            Question::EndOfContent if reply.is_completion() => {
                self.state.transaction = None;
                self.errors = 0;
            }
            Question::EndOfContent => self.abort(),
        }
    }

    fn take_content(&mut self) -> bool {
        let Phase::Content(decoder, fault) = &mut self.phase else { return false };
        let Some(decoded) = decoder.decode(&mut self.input) else { return false };
        match decoded {
            Decoded::Slice(slice) => self.events.push_back(Event::Content(slice)),
            Decoded::Fault(found) => {
                *fault = Some(found);
                self.abort();
            }
            Decoded::End => match fault.take() {
                None => self.ask(Question::EndOfContent, Event::EndOfContent),
                Some(fault) => {
                    self.phase = Phase::Command;
                    self.refuse_command(&fault.reply());
                    self.end_if_drained();
                }
            },
        }
        true
    }

    fn answer(&mut self, code: u16, enhanced: (u8, u16, u16), text: &str) {
        Reply::new(code, enhanced, text).encode(&mut self.output);
    }

    fn refuse_command(&mut self, reply: &Reply) {
        reply.encode(&mut self.output);
        self.count_error();
    }

    fn count_error(&mut self) {
        self.errors += 1;
        if self.errors >= self.config.errors.max(1) {
            self.end_with((4, 7, 0), "Too many errors, closing connection");
        }
    }

    fn end_unsynchronised(&mut self) {
        self.answer(500, (5, 5, 2), "Bare LF in a command line; lines end with CRLF");
        self.end_with((4, 7, 0), "Cannot tell where the next command begins, closing connection");
    }

    fn end_if_drained(&mut self) {
        let idle =
            matches!(self.phase, Phase::Command | Phase::Exchange(_)) && self.state.transaction.is_none();
        if self.state.draining && idle {
            self.end_with((4, 3, 2), "Service shutting down, closing connection");
        }
    }

    /// 421 names the server (RFC 5321 §4.2.3).
    fn end_with(&mut self, enhanced: (u8, u16, u16), text: &str) {
        if !self.is_closed() {
            self.answer(421, enhanced, &format!("{} {text}", self.config.hostname));
            self.end();
        }
    }

    fn end(&mut self) {
        if !self.is_closed() {
            self.abort();
            self.phase = Phase::Closed;
            self.input = BytesMut::new();
            self.events.push_back(Event::Closed);
        }
    }

    fn abort(&mut self) {
        if self.state.transaction.take().is_some() {
            self.events.push_back(Event::Abort);
        }
    }
}

/// Without content, passwords or the peer's octets.
impl fmt::Debug for ServerSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSession")
            .field("state", &self.state)
            .field("phase", &self.phase)
            .field("errors", &self.errors)
            .finish_non_exhaustive()
    }
}
