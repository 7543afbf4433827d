//! The server session as a state machine: octets in, events and octets out.

use super::config::{ServerConfig, TlsOffer};
use super::event::Event;
use super::phase::{Phase, Question};
use super::state::State;
use crate::line::LineReader;
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
/// A BDAT whose size cannot be read ends the session for the same reason. The octets of a refused BDAT are read and dropped
/// before the refusal is said (RFC 3030 §2), unless they are more than [`ServerConfig::refused_chunk_bytes`]: then the refusal
/// is said at once and the session ends.
///
/// # Memory
/// Besides what one `receive` brings: one command line (12,288 octets). Content is never held. A session that waits for a
/// command holds no buffer at all.
pub struct ServerSession {
    pub(super) config: Arc<ServerConfig>,
    pub(super) state: State,
    pub(super) phase: Phase,
    pub(super) input: BytesMut,
    lines: LineReader,
    pub(super) output: BytesMut,
    pub(super) events: VecDeque<Event>,
    pub(super) errors: u32,
    pub(super) idle_commands: u32,
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

    /// Whether content is being received, of a message or of a chunk, be it to be dropped.
    pub fn is_receiving(&self) -> bool {
        matches!(self.phase, Phase::Content(_))
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

    pub(super) fn ask(&mut self, question: Question, event: Event) {
        self.phase = Phase::Question(question);
        self.events.push_back(event);
    }

    pub(super) fn answer(&mut self, code: u16, enhanced: (u8, u16, u16), text: &str) {
        Reply::new(code, enhanced, text).encode(&mut self.output);
    }

    /// Refuses, and ends the session because what follows cannot be read as commands.
    pub(super) fn refuse_and_end(&mut self, reply: &Reply, why: &str) {
        reply.encode(&mut self.output);
        self.end_with((4, 7, 0), why);
    }

    pub(super) fn refuse_command(&mut self, reply: &Reply) {
        reply.encode(&mut self.output);
        self.count_error();
    }

    pub(super) fn count_error(&mut self) {
        self.errors += 1;
        if self.errors >= self.config.errors.max(1) {
            self.end_with((4, 7, 0), "Too many errors, closing connection");
        }
    }

    pub(super) fn count_idle_command(&mut self) {
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

    pub(super) fn end_if_drained(&mut self) {
        let idle =
            matches!(self.phase, Phase::Command | Phase::Exchange(_)) && self.state.transaction.is_none();
        if self.state.draining && idle {
            self.end_with((4, 3, 2), "Service shutting down, closing connection");
        }
    }

    /// 421 names the server (RFC 5321 §4.2.3).
    pub(super) fn end_with(&mut self, enhanced: (u8, u16, u16), text: &str) {
        if !self.is_closed() {
            self.answer(421, enhanced, &format!("{} {text}", self.config.hostname));
            self.end();
        }
    }

    pub(super) fn end(&mut self) {
        if !self.is_closed() {
            self.abort();
            self.phase = Phase::Closed;
            self.input = BytesMut::new();
            self.events.push_back(Event::Closed);
        }
    }

    pub(super) fn abort(&mut self) {
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
