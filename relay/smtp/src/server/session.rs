//! The server session as a state machine: octets in, events and octets out.

use super::config::{ServerConfig, TlsOffer};
use super::decide::{self, Decision};
use super::event::Event;
use super::reception::{Chunk, Outcome, Reception};
use super::state::{Helo, OpenTransaction, State};
use crate::auth::{self, Exchange, ExchangeError, Step};
use crate::command::{Command, CommandError};
use crate::data::{ChunkDecoder, ContentDecoder, Decoded};
use crate::line::{Line, LineReader};
use crate::reply::Reply;
use crate::scram::{ClientFirst, ScramKeys};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Octets of unread input above which [`ServerSession::wants_input`] says no.
const INPUT_OCTETS: usize = 64 * 1024;

/// Why a session is ended whose next command could be anywhere.
const LOST_PLACE: &str = "Cannot tell where the next command begins, closing connection";

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
/// A BDAT whose size cannot be read ends the session for the same reason.
///
/// # Memory
/// Besides what one `receive` brings: one command line (12,288 octets). Content is never held. A session that waits for a
/// command holds no buffer at all.
pub struct ServerSession {
    config: Arc<ServerConfig>,
    state: State,
    phase: Phase,
    input: BytesMut,
    lines: LineReader,
    output: BytesMut,
    events: VecDeque<Event>,
    errors: u32,
    idle_commands: u32,
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
    /// Content, of a message or of a chunk.
    Content(Reception),
    /// Nothing any more.
    Closed,
}

/// What the driver was asked.
#[derive(Debug)]
enum Question {
    Authenticate {
        username: String,
    },
    Keys(Box<ClientFirst>),
    Proof {
        username: String,
        proven: bool,
    },
    Mail {
        smtputf8: bool,
    },
    Recipient,
    Data,
    /// The same, behind the first BDAT.
    FirstChunk(Chunk),
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
            idle_commands: 0,
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

    /// The same for a buffer of the driver's, which is taken over without a copy when nothing is unread.
    pub fn receive_buffer(&mut self, input: BytesMut) {
        let listening = !matches!(self.phase, Phase::Closed | Phase::Handshake);
        if listening && self.input.is_empty() {
            self.input = input;
        } else {
            self.receive(&input);
        }
    }

    /// Whether to read from the peer: not while an event awaits its answer, not while 64 KiB are unread, not after the
    /// end.
    pub fn wants_input(&self) -> bool {
        let listening = !matches!(self.phase, Phase::Question(_) | Phase::Handshake | Phase::Closed);
        listening && self.input.len() < INPUT_OCTETS
    }

    /// The next thing to do. `None`: an answer or more input is needed, or the session is over.
    pub fn poll(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if !self.advance() {
                self.give_back();
                return None;
            }
        }
    }

    /// Octets to write to the peer, possibly none.
    pub fn take_output(&mut self) -> Bytes {
        std::mem::take(&mut self.output).freeze()
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
        let reply = permitted(&question, reply);
        // A chunk is on its way behind BDAT: its reply waits until it has been read, and there is no 354.
        if let Question::FirstChunk(chunk) = question
            && !reply.closes_connection()
        {
            return self.begin_chunks(chunk, reply);
        }
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

    /// Answers [`Event::LookUpKeys`] with the keys of the user and a nonce: fresh, printable US-ASCII without a comma, at
    /// least 18 random octets in base64 say. Ignored when no keys are awaited (any more).
    pub fn provide_keys(&mut self, keys: ScramKeys, nonce: &str) {
        match std::mem::replace(&mut self.phase, Phase::Command) {
            Phase::Question(Question::Keys(first)) => {
                self.continue_exchange(auth::scram_challenge(*first, keys, nonce));
            }
            phase => self.phase = phase,
        }
    }

    /// The TLS handshake asked for by [`Event::StartTls`] succeeded. All that was known about the peer is forgotten
    /// (RFC 3207 §4.2).
    pub fn tls_established(&mut self) {
        if matches!(self.phase, Phase::Handshake) {
            let State { draining, messages, .. } = self.state;
            self.state = State { tls: true, draining, messages, ..State::default() };
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
            Phase::Content(_) => self.config.timeouts.content,
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

    /// Octets of the buffers held, whether they are full or not. 0 while the session waits for a command.
    pub fn capacity(&self) -> usize {
        self.input.capacity() + self.output.capacity()
    }

    /// Takes one step on the input; false when there is none to take.
    fn advance(&mut self) -> bool {
        match &self.phase {
            Phase::Command | Phase::Exchange(_) => match self.lines.take(&mut self.input) {
                Some(line) => self.take_line(line),
                None => return false,
            },
            Phase::Content(_) => return self.take_content(),
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
                Err(error @ CommandError::Chunk) => {
                    error.reply().encode(&mut self.output);
                    self.end_with((4, 7, 0), LOST_PLACE);
                }
                // What follows was composed by somebody else than the client that sends it.
                Err(error @ CommandError::Http) => self.end_with((4, 7, 0), &error.to_string()),
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
            Decision::Idle(reply) => {
                reply.encode(&mut self.output);
                self.count_idle_command();
            }
            Decision::Refuse(reply) => self.refuse_command(&reply),
            Decision::Greet(helo) => self.greet(helo),
            Decision::Reset => {
                self.abort();
                self.answer(250, (2, 0, 0), "OK");
                self.count_idle_command();
                self.end_if_drained();
            }
            Decision::Quit => {
                self.answer(221, (2, 0, 0), &format!("{} closing connection", self.config.hostname));
                self.end();
            }
            Decision::StartTls => self.start_tls(),
            Decision::Authenticate(step) => self.continue_exchange(step),
            Decision::Mail(event) => {
                let smtputf8 = matches!(event, Event::Mail { smtputf8: true, .. });
                self.ask(Question::Mail { smtputf8 }, event);
            }
            Decision::Recipient(event) => self.ask(Question::Recipient, event),
            Decision::Data => self.ask(Question::Data, Event::Data),
            Decision::Chunk { octets, last } => self.take_chunk_command(Chunk { octets, last }),
            Decision::DropChunk { octets, reply } => {
                self.phase = Phase::Content(Reception::Dropped { remaining: octets, reply });
            }
            Decision::End(why) => self.end_with((4, 7, 0), why),
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
        self.count_idle_command();
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
                // Base64 of any length is one line: wrapped it would be another text (RFC 4954 §4).
                auth::encode_challenge(&text, &mut self.output);
                self.phase = Phase::Exchange(exchange);
            }
            Step::Complete(credentials) => {
                let username = credentials.username().to_owned();
                self.ask(Question::Authenticate { username }, Event::Authenticate(credentials));
            }
            Step::Keys(first) => {
                let username = first.username.clone();
                self.ask(Question::Keys(first), Event::LookUpKeys { username });
            }
            Step::Proof { username, proven } => {
                let question = Question::Proof { username: username.clone(), proven };
                self.ask(question, Event::Proof { username, proven });
            }
            Step::Failed(error) => self.refuse_command(&error.reply()),
        }
    }

    fn settle_question(&mut self, question: Question, reply: &Reply) {
        match question {
            Question::Authenticate { username } | Question::Proof { username, .. }
                if reply.is_completion() =>
            {
                self.state.user = Some(username);
            }
            Question::Authenticate { .. } | Question::Keys(_) | Question::Proof { .. } => {}
            Question::Mail { smtputf8 } if reply.is_completion() => {
                self.state.transaction = Some(OpenTransaction { smtputf8, ..OpenTransaction::default() });
            }
            Question::Mail { .. } => {}
            Question::Recipient => {
                if let Some(open) = &mut self.state.transaction {
                    open.recipient_tried = true;
                    open.recipients += usize::from(reply.is_completion());
                }
            }
            Question::Data if reply.is_intermediate() => {
                let decoder = ContentDecoder::new(self.config.content_limits(), self.config.bare_newline);
                self.phase = Phase::Content(Reception::data(decoder));
            }
            Question::Data | Question::FirstChunk(_) => {}
            Question::EndOfContent if reply.is_completion() => {
                self.state.transaction = None;
                self.state.messages = self.state.messages.saturating_add(1);
                (self.errors, self.idle_commands) = (0, 0);
            }
            Question::EndOfContent => self.abort(),
        }
    }

    fn take_content(&mut self) -> bool {
        let Phase::Content(reception) = &mut self.phase else { return false };
        match reception.decode(&mut self.input) {
            None => return false,
            Some(Decoded::Slice(slice)) => self.events.push_back(Event::Content(slice)),
            Some(Decoded::Fault(_)) => self.abort(),
            Some(Decoded::End) => self.end_content(),
        }
        true
    }

    fn end_content(&mut self) {
        let Phase::Content(reception) = std::mem::replace(&mut self.phase, Phase::Command) else { return };
        match reception.end() {
            Outcome::Message(rest) => {
                self.events.extend(rest.map(Event::Content));
                self.ask(Question::EndOfContent, Event::EndOfContent);
            }
            Outcome::Chunk(decoder, octets) => {
                self.answer(250, (2, 0, 0), &format!("{octets} octets received"));
                if let Some(open) = &mut self.state.transaction {
                    open.chunks = Some(decoder);
                }
            }
            Outcome::Refused(fault) => {
                self.abort();
                self.refuse_command(&fault.reply());
                self.end_if_drained();
            }
            Outcome::Dropped(reply) => {
                reply.encode(&mut self.output);
                if reply.is_permanent() {
                    self.count_error();
                }
                self.end_if_drained();
            }
        }
    }

    fn take_chunk_command(&mut self, chunk: Chunk) {
        match self.state.transaction.as_mut().and_then(|open| open.chunks.take()) {
            Some(decoder) => self.phase = Phase::Content(Reception::chunk(decoder, chunk)),
            None => self.ask(Question::FirstChunk(chunk), Event::Data),
        }
    }

    /// The driver has answered the first BDAT.
    fn begin_chunks(&mut self, chunk: Chunk, reply: Reply) {
        let reception = if reply.is_intermediate() {
            let decoder = ChunkDecoder::new(self.config.content_limits(), self.config.bare_newline);
            Reception::chunk(Box::new(decoder), chunk)
        } else {
            self.abort();
            Reception::Dropped { remaining: chunk.octets, reply }
        };
        self.phase = Phase::Content(reception);
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

    fn count_idle_command(&mut self) {
        self.idle_commands += 1;
        if self.idle_commands > self.config.idle_commands {
            self.end_with((4, 7, 0), "Too many commands without a message, closing connection");
        }
    }

    /// An idle session keeps no buffers.
    fn give_back(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        self.events.shrink_to_fit();
    }

    fn end_unsynchronised(&mut self) {
        self.answer(500, (5, 5, 2), "Bare LF in a command line; lines end with CRLF");
        self.end_with((4, 7, 0), LOST_PLACE);
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

/// A positive answer cannot stand for a proof that failed, nor for keys that were asked for.
fn permitted(question: &Question, reply: Reply) -> Reply {
    match question {
        Question::Keys(_) | Question::Proof { proven: false, .. } if reply.is_positive() => {
            auth::authentication_failed()
        }
        _ => reply,
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
