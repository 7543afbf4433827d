//! One mail transaction on the client's side: replies in, commands and their outcome out (RFC 5321 §3.3, RFC 2920 §3.1).
//!
//! Not here: the session around it. Called by [`super::session`].

use super::config::{Transaction, TransactionRecipient};
use super::event::{RecipientReply, TransactionCommand, TransactionReplies};
use crate::data::ContentEncoder;
use crate::extension::Extensions;
use crate::parameter::Body;
use crate::reply::Reply;
use bytes::{BufMut, BytesMut};
use std::collections::VecDeque;
use std::fmt::{Display, Write};

/// Commands outstanding at once. Bounds what both sides must buffer, so that neither waits for the other to read
/// (RFC 2920 §3.1); a message to 100 recipients (RFC 5321 §4.5.3.1.8) still goes out in one piece.
const WINDOW: usize = 128;

/// What a reply led to.
#[derive(Debug)]
pub(super) enum Progress {
    /// More replies are awaited.
    Continue,
    /// The server awaits the content.
    SendContent,
    /// The transaction is over.
    Over(TransactionReplies),
    /// The server answered what nobody asked.
    Surprise(Reply),
}

/// A command whose reply is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Mail,
    Recipient(usize),
    Data,
    /// The final dot.
    Content,
}

/// The command to send next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Mail,
    Recipient(usize),
    Data,
    Nothing,
}

/// A transaction under way.
#[derive(Debug)]
pub(super) struct Running {
    mail: String,
    recipients: Vec<TransactionRecipient>,
    dsn: bool,
    window: usize,
    next: Next,
    outstanding: VecDeque<Sent>,
    /// Holds while content is awaited from the driver.
    encoder: Option<ContentEncoder>,
    /// The reply that refused all recipients at once or decided those accepted, and its command.
    verdict: Option<(Reply, TransactionCommand)>,
    /// The reply to each RCPT.
    replies: Vec<Option<Reply>>,
    accepted: usize,
}

impl Running {
    pub(super) fn new(transaction: Transaction, extensions: &Extensions) -> Self {
        Self {
            mail: mail_command(&transaction, extensions),
            replies: vec![None; transaction.recipients.len()],
            recipients: transaction.recipients,
            dsn: extensions.dsn,
            window: if extensions.pipelining { WINDOW } else { 1 },
            next: Next::Mail,
            outstanding: VecDeque::new(),
            encoder: None,
            verdict: None,
            accepted: 0,
        }
    }

    /// Writes the commands that may be sent now.
    pub(super) fn send(&mut self, out: &mut BytesMut) {
        while self.outstanding.len() < self.window {
            let sent = match self.next {
                Next::Mail => {
                    out.put_slice(self.mail.as_bytes());
                    self.next = Next::Recipient(0);
                    Sent::Mail
                }
                Next::Recipient(index) => match self.recipients.get(index) {
                    Some(recipient) => {
                        out.put_slice(rcpt_command(recipient, self.dsn).as_bytes());
                        self.next = Next::Recipient(index + 1);
                        Sent::Recipient(index)
                    }
                    None => {
                        self.next = Next::Data;
                        continue;
                    }
                },
                Next::Data if self.outstanding.is_empty() && self.accepted == 0 => {
                    self.next = Next::Nothing;
                    return;
                }
                Next::Data => {
                    out.put_slice(b"DATA\r\n");
                    self.next = Next::Nothing;
                    Sent::Data
                }
                Next::Nothing => return,
            };
            self.outstanding.push_back(sent);
        }
    }

    /// Takes the reply to the oldest outstanding command and writes what may be sent next.
    pub(super) fn receive(&mut self, reply: Reply, out: &mut BytesMut) -> Progress {
        let answered = self.outstanding.pop_front();
        if reply.closes_connection() {
            return Progress::Over(self.conclude(reply, answered, false));
        }
        match answered {
            Some(Sent::Mail | Sent::Recipient(_)) if reply.is_intermediate() => {
                return Progress::Surprise(reply);
            }
            Some(Sent::Mail) if reply.is_completion() => {}
            Some(Sent::Mail) => {
                self.verdict = Some((reply, TransactionCommand::Mail));
                self.next = Next::Nothing;
            }
            Some(Sent::Recipient(index)) => {
                self.accepted += usize::from(reply.is_completion());
                self.replies[index] = Some(reply);
            }
            Some(Sent::Data) => return self.receive_data(reply, out),
            // The empty message behind a lone dot has no recipient; whatever the server says of it decides nothing.
            Some(Sent::Content) if self.refused() => return Progress::Over(self.outcome(true)),
            Some(Sent::Content) if reply.is_intermediate() => return self.surprise(Sent::Content, reply),
            Some(Sent::Content) => return Progress::Over(self.conclude(reply, answered, true)),
            // The server gives up before the content is complete.
            None if reply.is_positive() => return Progress::Surprise(reply),
            None => return Progress::Over(self.conclude(reply, None, false)),
        }
        self.send(out);
        if self.outstanding.is_empty() { Progress::Over(self.outcome(true)) } else { Progress::Continue }
    }

    fn receive_data(&mut self, reply: Reply, out: &mut BytesMut) -> Progress {
        if reply.is_completion() {
            return Progress::Surprise(reply);
        }
        if !reply.is_intermediate() {
            if !self.refused() {
                self.verdict = Some((reply, TransactionCommand::Data));
            }
            return Progress::Over(self.outcome(true));
        }
        if self.refused() {
            // DATA was pipelined and is accepted though no recipient is (RFC 2920 §3.1): end the content at once.
            out.put_slice(b".\r\n");
            self.outstanding.push_back(Sent::Content);
            return Progress::Continue;
        }
        self.encoder = Some(ContentEncoder::new());
        Progress::SendContent
    }

    /// What was answered stays unanswered, so that [`is_ambiguous`](Self::is_ambiguous) still tells the truth.
    fn surprise(&mut self, sent: Sent, reply: Reply) -> Progress {
        self.outstanding.push_front(sent);
        Progress::Surprise(reply)
    }

    /// Writes a piece of the content; nothing when none is awaited.
    pub(super) fn content(&mut self, chunk: &[u8], out: &mut BytesMut) {
        if let Some(encoder) = &mut self.encoder {
            encoder.encode(chunk, out);
        }
    }

    /// Writes the end of the content; nothing when none is awaited.
    pub(super) fn end_of_content(&mut self, out: &mut BytesMut) {
        if let Some(encoder) = self.encoder.take() {
            encoder.finish(out);
            self.outstanding.push_back(Sent::Content);
        }
    }

    /// Whether the message may have been taken though no reply says so.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.outstanding.front() == Some(&Sent::Content) && !self.refused()
    }

    /// Whether the driver owes content.
    pub(super) fn awaits_content(&self) -> bool {
        self.encoder.is_some()
    }

    /// The command whose reply is awaited, `None` while content is sent.
    pub(super) fn awaited(&self) -> Option<TransactionCommand> {
        self.outstanding.front().map(|sent| command(*sent))
    }

    /// Whether no recipient is left to deliver to.
    fn refused(&self) -> bool {
        self.accepted == 0 || matches!(self.verdict, Some((_, TransactionCommand::Mail)))
    }

    /// `reply` decides every recipient that no earlier reply has refused.
    fn conclude(&mut self, reply: Reply, answered: Option<Sent>, reusable: bool) -> TransactionReplies {
        if self.verdict.is_none() {
            self.verdict = Some((reply, answered.map_or(TransactionCommand::Content, command)));
        }
        self.outcome(reusable)
    }

    fn outcome(&mut self, reusable: bool) -> TransactionReplies {
        let verdict = self.verdict.take();
        let refused_at_mail = matches!(verdict, Some((_, TransactionCommand::Mail)));
        let decided = |rcpt: Option<Reply>| match (rcpt, &verdict) {
            (Some(reply), _) if !reply.is_completion() && !refused_at_mail => {
                RecipientReply { reply, command: TransactionCommand::Recipient }
            }
            (_, Some((reply, command))) => RecipientReply { reply: reply.clone(), command: *command },
            // Not reached: without a verdict every recipient was refused one by one.
            (rcpt, None) => RecipientReply {
                reply: rcpt.unwrap_or_else(|| Reply::new(451, (4, 5, 0), "No reply")),
                command: TransactionCommand::Recipient,
            },
        };
        let recipients = self.replies.drain(..).map(decided).collect();
        TransactionReplies { recipients, reusable, notifies: self.dsn }
    }

    /// The outcome where no recipient's fate hangs on a further reply, because MAIL or every RCPT was refused; for a
    /// session that ends before the replies are complete.
    pub(super) fn decided(&mut self) -> Option<TransactionReplies> {
        let refused = |reply: &Option<Reply>| reply.as_ref().is_some_and(|reply| !reply.is_completion());
        let at_mail = matches!(self.verdict, Some((_, TransactionCommand::Mail)));
        (at_mail || self.replies.iter().all(refused)).then(|| self.outcome(false))
    }
}

fn command(sent: Sent) -> TransactionCommand {
    match sent {
        Sent::Mail => TransactionCommand::Mail,
        Sent::Recipient(_) => TransactionCommand::Recipient,
        Sent::Data => TransactionCommand::Data,
        Sent::Content => TransactionCommand::Content,
    }
}

fn mail_command(transaction: &Transaction, extensions: &Extensions) -> String {
    let mut line = format!("MAIL FROM:{}", transaction.reverse_path);
    if extensions.size.is_some() {
        write!(line, " SIZE={}", transaction.size).expect("writing to a String cannot fail");
    }
    if extensions.eight_bit_mime && transaction.body == Body::EightBitMime {
        line.push_str(" BODY=8BITMIME");
    }
    if extensions.smtputf8 && transaction.smtputf8 {
        line.push_str(" SMTPUTF8");
    }
    if extensions.dsn {
        parameter(&mut line, "RET", transaction.ret);
        parameter(&mut line, "ENVID", transaction.envelope_id.as_ref());
    }
    line.push_str("\r\n");
    line
}

fn rcpt_command(recipient: &TransactionRecipient, dsn: bool) -> String {
    let mut line = format!("RCPT TO:{}", recipient.path);
    if dsn {
        parameter(&mut line, "NOTIFY", recipient.notify);
        parameter(&mut line, "ORCPT", recipient.original.as_ref());
    }
    line.push_str("\r\n");
    line
}

fn parameter(line: &mut String, keyword: &str, value: Option<impl Display>) {
    if let Some(value) = value {
        write!(line, " {keyword}={value}").expect("writing to a String cannot fail");
    }
}
