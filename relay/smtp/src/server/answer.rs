//! The driver's answers, and what they change in the session.

use super::phase::{Phase, Question};
use super::reception::Reception;
use super::session::ServerSession;
use super::state::OpenTransaction;
use crate::auth;
use crate::data::ContentDecoder;
use crate::reply::Reply;
use crate::scram::ScramKeys;

impl ServerSession {
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
        let reply = question.permitted(reply);
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
}
