//! Content on its way through a session: from DATA or BDAT to the driver, and what it came to.

use super::event::Event;
use super::phase::{Phase, Question};
use super::reception::{Chunk, Outcome, Reception};
use super::session::ServerSession;
use crate::data::{ChunkDecoder, Decoded};
use crate::reply::Reply;

impl ServerSession {
    pub(super) fn take_content(&mut self) -> bool {
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

    pub(super) fn take_chunk(&mut self, chunk: Chunk) {
        match self.state.transaction.as_mut().and_then(|open| open.chunks.take()) {
            Some(decoder) => self.phase = Phase::Content(Reception::chunk(decoder, chunk)),
            None => self.ask(Question::FirstChunk(chunk), Event::Data),
        }
    }

    /// The driver has answered the first BDAT.
    pub(super) fn begin_chunks(&mut self, chunk: Chunk, reply: Reply) {
        let reception = if reply.is_intermediate() {
            let decoder = ChunkDecoder::new(self.config.content_limits(), self.config.bare_newline);
            Reception::chunk(Box::new(decoder), chunk)
        } else {
            return self.drop_chunk(chunk.octets, reply);
        };
        self.phase = Phase::Content(reception);
    }

    /// What is left of the chunk is read and dropped before its refusal is said, and the transaction has failed (RFC 3030
    /// §2).
    pub(super) fn drop_chunk(&mut self, octets: u64, reply: Reply) {
        self.abort();
        self.phase = Phase::Content(Reception::Dropped { remaining: octets, reply });
    }
}
