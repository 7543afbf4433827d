//! One mail transaction on the client's side: replies in, commands and their outcome out (RFC 5321 §3.3, RFC 2920 §3.1,
//! RFC 3030 §2).
//!
//! Not here: the session around it. Called by [`super::session`].

use super::config::{Transaction, TransactionRecipient};
use super::content::{ContentWriter, fits_chunk};
use super::event::{ClientEvent, RecipientReply, TransactionCommand, TransactionReplies, Undecided};
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
    Reset,
    Mail,
    Recipient(usize),
    Data,
    /// The final dot, or BDAT with the content.
    Content,
}

/// The command to send next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nobody knows yet whether the server has left the transaction before this one.
    Reset,
    Mail,
    Recipient(usize),
    /// DATA, or the content at once in a chunk.
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
    /// Whether all recipients shall have the message or none.
    whole: bool,
    /// Whether the content goes by BDAT.
    chunked: bool,
    next: Next,
    outstanding: VecDeque<Sent>,
    /// Holds while content is awaited from the driver.
    content: Option<ContentWriter>,
    /// The content has been put out to its end.
    sent: bool,
    /// The reply that refused all recipients at once or decided those accepted, and its command.
    verdict: Option<(Reply, TransactionCommand)>,
    /// The reply to each RCPT.
    replies: Vec<Option<Reply>>,
    accepted: usize,
}

impl Running {
    /// `behind`: another transaction runs still, so this one begins with RSET.
    pub(super) fn new(transaction: Transaction, extensions: &Extensions, behind: bool) -> Self {
        Self {
            mail: mail_command(&transaction, extensions),
            replies: vec![None; transaction.recipients.len()],
            // With one recipient nothing can be had in part.
            whole: transaction.whole && transaction.recipients.len() > 1,
            recipients: transaction.recipients,
            dsn: extensions.dsn,
            window: if extensions.pipelining { WINDOW } else { 1 },
            chunked: extensions.chunking && fits_chunk(transaction.size),
            next: if behind { Next::Reset } else { Next::Mail },
            outstanding: VecDeque::new(),
            content: None,
            sent: false,
            verdict: None,
            accepted: 0,
        }
    }

    /// Writes the commands that may be sent now. The content is awaited from the driver where they end with its turn.
    pub(super) fn send(&mut self, out: &mut BytesMut) {
        while self.outstanding.len() < self.window {
            let sent = match self.next {
                Next::Reset => {
                    out.put_slice(b"RSET\r\n");
                    self.next = Next::Mail;
                    Sent::Reset
                }
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
                Next::Data if self.whole && !self.outstanding.is_empty() => return,
                Next::Data if self.outstanding.is_empty() && self.accepted < self.needed() => {
                    self.next = Next::Nothing;
                    return;
                }
                Next::Data if self.chunked => {
                    self.next = Next::Nothing;
                    self.content = Some(ContentWriter::chunk());
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
            Some(Sent::Reset) if reply.is_completion() => {}
            Some(Sent::Reset) => return Progress::Surprise(reply),
            Some(Sent::Mail | Sent::Recipient(_)) if reply.is_intermediate() => {
                return Progress::Surprise(reply);
            }
            Some(Sent::Mail) if reply.is_completion() => {}
            Some(Sent::Mail) => self.refuse_mail(reply),
            Some(Sent::Recipient(index)) => {
                self.accepted += usize::from(reply.is_completion());
                self.replies[index] = Some(reply);
            }
            Some(Sent::Data) => return self.receive_data(reply, out),
            // The message has no recipient; whatever the server says of it decides nothing.
            Some(Sent::Content) if self.refused() => return Progress::Over(self.outcome(true)),
            Some(Sent::Content) if reply.is_intermediate() => return self.surprise(Sent::Content, reply),
            Some(Sent::Content) => return Progress::Over(self.conclude(reply, answered, true)),
            // A chunk is given up by no reply but the one to it; behind DATA the server gives up before the content's end.
            None if self.chunked || reply.is_positive() => return Progress::Surprise(reply),
            None => return Progress::Over(self.conclude(reply, None, false)),
        }
        self.go_on(out)
    }

    /// Sends what follows; the transaction is over when no reply is awaited and no content is owed to anybody.
    fn go_on(&mut self, out: &mut BytesMut) -> Progress {
        let awaited = self.content.is_some();
        self.send(out);
        if !self.outstanding.is_empty() {
            return if awaited == self.content.is_some() {
                Progress::Continue
            } else {
                Progress::SendContent
            };
        }
        if self.content.is_none() || self.refused() {
            self.content = None;
            return Progress::Over(self.outcome(true));
        }
        if awaited { Progress::Continue } else { Progress::SendContent }
    }

    /// How many recipients have to be accepted for the content to be sent.
    fn needed(&self) -> usize {
        if self.whole { self.recipients.len() } else { 1 }
    }

    fn refuse_mail(&mut self, reply: Reply) {
        self.verdict = Some((reply, TransactionCommand::Mail));
        self.next = Next::Nothing;
        self.content = None;
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
        self.content = Some(ContentWriter::dotted());
        Progress::SendContent
    }

    /// What was answered stays unanswered, so that [`is_ambiguous`](Self::is_ambiguous) still tells the truth.
    fn surprise(&mut self, sent: Sent, reply: Reply) -> Progress {
        self.outstanding.push_front(sent);
        Progress::Surprise(reply)
    }

    /// Writes a piece of the content; nothing when none is awaited.
    pub(super) fn content(&mut self, piece: &[u8], out: &mut BytesMut) {
        if let Some(content) = &mut self.content {
            content.write(piece, out);
        }
    }

    /// Writes the end of the content; nothing when none is awaited.
    pub(super) fn end_of_content(&mut self, out: &mut BytesMut) {
        if let Some(content) = self.content.take() {
            content.finish(out);
            self.outstanding.push_back(Sent::Content);
            self.sent = true;
        }
    }

    /// Whether the next transaction may be announced behind this one: nothing more is to be sent for it.
    pub(super) fn is_sent(&self) -> bool {
        self.sent
    }

    /// Whether the message may have been taken though no reply says so.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.outstanding.contains(&Sent::Content) && !self.all_refused()
    }

    /// Whether the driver owes content.
    pub(super) fn awaits_content(&self) -> bool {
        self.content.is_some()
    }

    /// The command whose reply is awaited, `None` while content is sent.
    pub(super) fn awaited(&self) -> Option<TransactionCommand> {
        self.outstanding.front().map(|sent| command(*sent))
    }

    /// Whether no recipient is left to deliver to, every RCPT having been answered.
    fn refused(&self) -> bool {
        self.accepted == 0 || self.is_refused_at_mail()
    }

    fn is_refused_at_mail(&self) -> bool {
        matches!(self.verdict, Some((_, TransactionCommand::Mail)))
    }

    /// Whether each recipient has been refused, be there replies outstanding or not.
    fn all_refused(&self) -> bool {
        let refused = |reply: &Option<Reply>| reply.as_ref().is_some_and(|reply| !reply.is_completion());
        self.is_refused_at_mail() || self.replies.iter().all(refused)
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
            // Accepted, and left because another was not; a recipient without a reply of its own has had the verdict.
            (rcpt, None) => RecipientReply {
                reply: rcpt.unwrap_or_else(|| Reply::new(451, (4, 5, 0), "No reply")),
                command: TransactionCommand::Recipient,
            },
        };
        let recipients = self.replies.drain(..).map(decided).collect();
        TransactionReplies { recipients, reusable, notifies: self.dsn }
    }

    /// What is known of a transaction whose session ends before its replies are complete. The server had come to the
    /// `oldest`.
    pub(super) fn abandon(mut self, oldest: bool) -> ClientEvent {
        if self.all_refused() {
            return ClientEvent::Done(self.outcome(false));
        }
        ClientEvent::Undecided(match oldest {
            _ if self.is_ambiguous() => Undecided::Ambiguous,
            true => Undecided::Broken,
            false => Undecided::NotBegun,
        })
    }
}

fn command(sent: Sent) -> TransactionCommand {
    match sent {
        Sent::Reset | Sent::Mail => TransactionCommand::Mail,
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
