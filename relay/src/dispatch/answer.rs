//! What a client is told that waits for its message's fate: the upstream's own reply, where there is one that concerns the message.
//! Pure. All recipients share one fate, as one of them that is not accepted keeps the message from the others.

use smtp_protocol::Reply;

use super::line;
use super::settle::{Settled, Unsettled};
use crate::delivery::Fate;
use crate::message::{Envelope, RecipientState};
use crate::spool::Fates;

/// What has become of the message, for the account and the log: it is done with in any case.
pub(super) fn settled(envelope: &Envelope, unsettled: Unsettled) -> Settled {
    let Unsettled { id, fates, attempts, last } = unsettled;
    let results: Vec<_> = fates.iter().map(|(index, fate)| (*index, state(fate))).collect();
    let recipients = line::lines(envelope, &fates, &attempts, &results, None);
    // Nothing of it was ever in the account.
    let ended = Fates::default();
    Settled { id, last, wait: None, notification: None, ended, held: false, recipients }
}

/// Where the log says that a recipient stands: one that is left to the client to try again is deferred.
fn state(fate: &Fate) -> RecipientState {
    match fate {
        Fate::Delivered(_) | Fate::Relayed(_) => RecipientState::Delivered,
        Fate::Refused(_) | Fate::Unsupported(_) => RecipientState::Failed,
        Fate::Deferred(_) | Fate::Ambiguous(_) | Fate::Held(_) => RecipientState::Queued,
    }
}

/// The reply to the client's content. Of several recipients that of the one that decides, which it names.
pub(super) fn reply(envelope: &Envelope, fates: &[(usize, Fate)]) -> Reply {
    let Some((index, fate)) = fates.iter().max_by_key(|(_, fate)| weight(fate)) else {
        return Reply::new(451, (4, 3, 0), "the message went no way, try again later");
    };
    let mut reply = said(fate);
    if envelope.recipients.len() > 1
        && !reply.is_positive()
        && let (Some(recipient), Some(line)) = (envelope.recipients.get(*index), reply.lines.first_mut())
    {
        *line = format!("<{}>: {line}", recipient.address);
    }
    reply
}

/// The fate that decides weighs most: a permanent failure, then what keeps the message back, then that it was kept back with others.
fn weight(fate: &Fate) -> u8 {
    match fate {
        Fate::Refused(_) | Fate::Unsupported(_) => 3,
        Fate::Deferred(obstacle) if obstacle.reply.as_ref().is_some_and(|reply| reply.is_positive()) => 1,
        Fate::Deferred(_) | Fate::Ambiguous(_) | Fate::Held(_) => 2,
        Fate::Delivered(_) | Fate::Relayed(_) => 0,
    }
}

fn said(fate: &Fate) -> Reply {
    match fate {
        Fate::Delivered(reply) | Fate::Relayed(reply) => reply.clone(),
        // 421 would be about this session.
        Fate::Refused(reply) if !reply.closes_connection() => reply.clone(),
        Fate::Refused(reply) => Reply::new(451, (4, 3, 0), reply.to_string()),
        Fate::Deferred(obstacle) => match &obstacle.reply {
            Some(reply) if reply.is_transient() && !reply.closes_connection() => (**reply).clone(),
            _ => Reply::new(451, (4, 4, 1), obstacle.why.as_str()),
        },
        // It is about the relay's own session, not about the client's message.
        Fate::Held(hold) => {
            Reply::new(451, (4, 3, 2), format!("the upstream takes no mail now: {}", hold.why))
        }
        Fate::Ambiguous(why) => {
            Reply::new(451, (4, 4, 2), format!("the message may have arrived, its outcome is unknown: {why}"))
        }
        Fate::Unsupported(unmet) => {
            let status = unmet.status();
            Reply {
                enhanced: Some(status),
                ..Reply::bare(554, format!("the upstream cannot take the message: {unmet}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{Hold, HoldKind, Obstacle};
    use smtp_protocol::Unmet;

    fn deferred(code: u16, text: &str) -> Fate {
        let reply = Some(Box::new(Reply::bare(code, text)));
        Fate::Deferred(Obstacle { why: format!("the upstream answered Recipient: {code} {text}"), reply })
    }

    #[track_caller]
    fn check(fates: impl IntoIterator<Item = Fate>, expected: &str) {
        let fates: Vec<_> = fates.into_iter().enumerate().collect();
        assert_eq!(reply(&Envelope::example(fates.len()), &fates).to_string(), expected);
    }

    #[test]
    fn the_upstreams_reply_is_passed_on_word_for_word() {
        check([Fate::Delivered(Reply::new(250, (2, 0, 0), "Ok 0100018f"))], "250 2.0.0 Ok 0100018f");
        check([Fate::Refused(Reply::new(550, (5, 1, 1), "no such user"))], "550 5.1.1 no such user");
        check([deferred(450, "greylisted")], "450 greylisted");
        let lines = Reply::multiline(550, vec!["first".into(), "second".into()]);
        assert_eq!(reply(&Envelope::example(1), &[(0, Fate::Refused(lines.clone()))]), lines);
    }

    #[test]
    fn what_is_about_the_relays_session_is_a_temporary_failure_of_this_one() {
        check([deferred(421, "closing")], "451 4.4.1 the upstream answered Recipient: 421 closing");
        check([Fate::Deferred("connection refused".into())], "451 4.4.1 connection refused");
        let rejected = Hold { kind: HoldKind::CredentialsRejected, why: "535 no".into() };
        check([Fate::Held(rejected)], "451 4.3.2 the upstream takes no mail now: 535 no");
        let lost = "451 4.4.2 the message may have arrived, its outcome is unknown: lost";
        check([Fate::Ambiguous("lost".into())], lost);
        let unmet = reply(&Envelope::example(1), &[(0, Fate::Unsupported(Unmet::EightBitMime))]);
        assert!(unmet.is_permanent() && unmet.enhanced == Some(Unmet::EightBitMime.status()), "{unmet}");
    }

    #[test]
    fn of_several_recipients_the_one_that_decides_is_named() {
        let left = || deferred(250, "recipient ok");
        check([left(), Fate::Refused(Reply::bare(550, "gone")), left()], "550 <r1@example.net>: gone");
        check([left(), deferred(450, "busy")], "450 <r1@example.net>: busy");
        let both = [deferred(450, "busy"), Fate::Refused(Reply::bare(550, "gone"))];
        check(both, "550 <r1@example.net>: gone");
        let kept = || Fate::Delivered(Reply::bare(250, "kept"));
        check([kept(), kept()], "250 kept");
    }
}
