//! An upstream's reply to one recipient, turned into that recipient's fate. Pure.

use postroad_crds::reply_rule::ReplyRule;
use smtp_protocol::{RecipientReply, Reply, TransactionCommand, TransactionReplies, Unmet};

use super::classification::{Hold, Verdict, classify, disbelieves, is_ruled};

/// What became of one recipient in one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The upstream took responsibility (RFC 5321 §4.2.5) with this reply.
    Delivered(Reply),
    /// The same, and the sender wants to hear of success, of which this upstream was not told because it does not offer DSN:
    /// it is for us to say that the message was relayed (RFC 3461 §5.2.2).
    Relayed(Reply),
    /// Not now.
    Deferred(Obstacle),
    /// It may have arrived: the session broke behind the content, before the reply. The text says how.
    Ambiguous(String),
    /// Never; the reply says why.
    Refused(Reply),
    /// Never; nothing was sent, because the upstream does not offer what the message needs.
    Unsupported(Unmet),
    /// The upstream takes nothing now, which is no judgement of the message and no attempt.
    Held(Hold),
}

impl Fate {
    /// The upstream's reply, or why there is none, for people.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Delivered(reply) | Self::Relayed(reply) | Self::Refused(reply) => reply.to_string(),
            Self::Deferred(Obstacle { why, .. }) | Self::Ambiguous(why) | Self::Held(Hold { why, .. }) => {
                why.clone()
            }
            Self::Unsupported(unmet) => unmet.to_string(),
        }
    }
}

/// What stands in the way of a recipient for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// For people.
    pub why: String,
    /// The upstream's reply, if that is it.
    pub reply: Option<Box<Reply>>,
}

impl From<String> for Obstacle {
    fn from(why: String) -> Self {
        Self { why, reply: None }
    }
}

impl From<&str> for Obstacle {
    fn from(why: &str) -> Self {
        why.to_owned().into()
    }
}

/// How the transaction as a whole is to be taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// One fate per recipient.
    Decided(Vec<Fate>),
    /// The upstream closed the session instead of deciding: the message itself was not judged.
    SessionClosed(Reply),
}

/// Service not available, closing transmission channel (RFC 5321 §4.2.3).
const CLOSING: u16 = 421;

/// Judges the replies of one transaction by the upstream's rules.
#[must_use]
pub fn judge(replies: &TransactionReplies, rules: &[ReplyRule]) -> Outcome {
    let closing = |recipient: &RecipientReply| {
        recipient.reply.code.value() == CLOSING && !is_ruled(rules, recipient.command, &recipient.reply)
    };
    let closed = replies.recipients.iter().find(|recipient| closing(recipient));
    match closed {
        Some(first) if replies.recipients.iter().all(closing) => Outcome::SessionClosed(first.reply.clone()),
        _ => Outcome::Decided(replies.recipients.iter().map(|recipient| fate(recipient, rules)).collect()),
    }
}

/// The reply by which the upstream refuses all recipients because it does not believe the session's credentials: behind messages
/// that it took on the same session it says that they have expired.
#[must_use]
pub fn disbelief<'a>(replies: &'a TransactionReplies, rules: &[ReplyRule]) -> Option<&'a Reply> {
    let disbelieved = |recipient: &RecipientReply| disbelieves(rules, recipient.command, &recipient.reply);
    replies
        .recipients
        .iter()
        .all(disbelieved)
        .then(|| replies.recipients.first().map(|first| &first.reply))?
}

fn fate(recipient: &RecipientReply, rules: &[ReplyRule]) -> Fate {
    if recipient.is_delivered() {
        return Fate::Delivered(recipient.reply.clone());
    }
    let why = || format!("the upstream answered {:?}: {}", recipient.command, recipient.reply);
    let deferred = |why| Fate::Deferred(Obstacle { why, reply: Some(Box::new(recipient.reply.clone())) });
    if recipient.reply.is_completion() && recipient.command == TransactionCommand::Recipient {
        return deferred(
            "it goes with the other recipients or not at all, and one of them was not accepted".to_owned(),
        );
    }
    if recipient.reply.is_positive() {
        return deferred(why());
    }
    match classify(rules, recipient.command, &recipient.reply) {
        Verdict::Refuse => Fate::Refused(recipient.reply.clone()),
        Verdict::Retry => deferred(why()),
        Verdict::Hold(kind) => Fate::Held(Hold { kind, why: why() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smtp_protocol::TransactionCommand::{Content, Mail, Recipient};

    fn reply(code: u16, command: TransactionCommand) -> RecipientReply {
        RecipientReply { reply: Reply::bare(code, "text"), command }
    }

    fn check(replies: Vec<RecipientReply>, expected: &str) {
        let replies = TransactionReplies { recipients: replies, reusable: true, notifies: true };
        let outcome = match judge(&replies, &[]) {
            Outcome::SessionClosed(_) => "closed".to_owned(),
            Outcome::Decided(fates) => fates
                .iter()
                .map(|fate| match fate {
                    Fate::Delivered(_) => 'd',
                    Fate::Deferred(_) => 'l',
                    Fate::Refused(_) => 'r',
                    Fate::Relayed(_) | Fate::Unsupported(_) | Fate::Ambiguous(_) => '?',
                    Fate::Held(_) => 'h',
                })
                .collect(),
        };
        assert_eq!(outcome, expected);
    }

    #[test]
    fn each_recipient_has_its_own_fate() {
        check(vec![reply(250, Content), reply(550, Recipient), reply(451, Recipient)], "drl");
        check(vec![reply(554, Content), reply(552, Content)], "rr");
    }

    #[test]
    fn a_session_that_is_closed_judges_no_message() {
        check(vec![reply(421, Mail), reply(421, Mail)], "closed");
        check(vec![reply(550, Recipient), reply(421, Content)], "rl");
    }

    #[test]
    fn a_reply_about_credentials_bounces_nothing() {
        check(vec![reply(530, Mail)], "h");
        check(vec![reply(535, Mail)], "h");
        check(vec![reply(454, Content)], "l");
    }

    #[test]
    fn a_session_is_disbelieved_when_every_recipient_is_refused_for_its_credentials() {
        let expired = Reply::new(454, (4, 7, 0), "expired");
        let temporary = |command| RecipientReply { reply: expired.clone(), command };
        let check = |recipients: Vec<RecipientReply>, expected: Option<u16>| {
            let replies = TransactionReplies { recipients, reusable: true, notifies: true };
            assert_eq!(disbelief(&replies, &[]).map(|reply| reply.code.value()), expected);
        };
        check(vec![reply(530, Mail), reply(530, Mail)], Some(530));
        check(vec![reply(535, Content)], Some(535));
        check(vec![temporary(Mail)], Some(454));
        check(vec![temporary(Content)], None);
        check(vec![reply(454, Mail)], None);
        check(vec![reply(550, Mail)], None);
        check(vec![reply(250, Content), reply(530, Recipient)], None);
    }

    #[test]
    fn a_positive_reply_to_rcpt_alone_is_no_delivery() {
        check(vec![reply(250, Recipient)], "l");
    }
}
