//! Lines of the peer, commands and SASL responses, and the performance of what was decided on them.

use super::decide::{self, Decision};
use super::event::Event;
use super::phase::{Phase, Question};
use super::reception::Chunk;
use super::session::ServerSession;
use super::state::Helo;
use crate::auth::{self, ExchangeError, Step};
use crate::command::{Command, CommandError};
use crate::line::Line;
use crate::reply::Reply;

/// Why a session is ended whose next command could be anywhere.
const LOST_PLACE: &str = "Cannot tell where the next command begins, closing connection";
/// Why a session is ended whose next command is behind more than anybody will read.
const UNREAD_CHUNK: &str = "Will not read a chunk of that size, closing connection";

impl ServerSession {
    pub(super) fn take_line(&mut self, line: Line) {
        let phase = std::mem::replace(&mut self.phase, Phase::Command);
        match (line, phase) {
            (Line::BareLineFeed, _) => {
                let reply = Reply::new(500, (5, 5, 2), "Bare LF in a command line; lines end with CRLF");
                self.refuse_and_end(&reply, LOST_PLACE);
            }
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
                Err(error @ CommandError::Chunk) => self.refuse_and_end(&error.reply(), LOST_PLACE),
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
            Decision::Chunk { octets, last } => self.take_chunk(Chunk { octets, last }),
            Decision::DropChunk { octets, reply } => self.drop_chunk(octets, reply),
            Decision::LeaveChunk(reply) => self.refuse_and_end(&reply, UNREAD_CHUNK),
            Decision::End(why) => self.end_with((4, 7, 0), why),
        }
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

    pub(super) fn continue_exchange(&mut self, step: Step) {
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
}
