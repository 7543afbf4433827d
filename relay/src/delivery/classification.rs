//! What a negative reply means: the upstream's rules first, then what RFC 5321 says. Pure.
//!
//! Rules are data: presets of providers and an Upstream's `spec.replies`, in one list that the operator has rendered.

use std::time::Duration;

use postroad_crds::reply_rule::{ReplyCommand, ReplyOutcome, ReplyRule};
use smtp_protocol::{Reply, SessionFailure, TransactionCommand};

/// What a negative reply means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The recipient is tried again after the queue's backoff.
    Retry,
    /// The recipient is returned to the sender.
    Refuse,
    /// It is about the upstream and not about the message.
    Hold(HoldKind),
}

/// Why an upstream is left alone, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldKind {
    /// It takes no more for this long: a rate or quota.
    Parked(Duration),
    /// It is unwell: one message at a time at growing intervals, until one is delivered.
    Tripped,
    /// It does not believe the credentials; otherwise as `Tripped`.
    CredentialsRejected,
}

/// An upstream that is left alone, with the reply that asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Why and for how long.
    pub kind: HoldKind,
    /// For people: what was answered to what.
    pub why: String,
}

/// RFC 5321 §4.5.3.1.10: to RCPT it says "too many recipients", which is transient.
const TOO_MUCH: u16 = 552;
/// Permanent replies to mail commands that are about the session's credentials, not about the message (RFC 4954 §6).
const ABOUT_CREDENTIALS: [u16; 4] = [530, 534, 535, 538];
/// "Temporary authentication failure" (RFC 4954 §6); to MAIL, where nothing is being authenticated, it is about the session.
const FAILED_FOR_NOW: (u16, (u8, u16, u16)) = (454, (4, 7, 0));

/// What this negative reply to a command of a mail transaction means.
#[must_use]
pub fn classify(rules: &[ReplyRule], command: TransactionCommand, reply: &Reply) -> Verdict {
    if let Some(rule) = matching(rules, spelled(command), reply) {
        return verdict(rule);
    }
    match reply.code.value() {
        TOO_MUCH if command == TransactionCommand::Recipient => Verdict::Retry,
        code if ABOUT_CREDENTIALS.contains(&code) => Verdict::Hold(HoldKind::CredentialsRejected),
        _ if reply.is_permanent() => Verdict::Refuse,
        _ => Verdict::Retry,
    }
}

/// Whether this negative reply says that the upstream does not believe the credentials of the session, whatever it thinks of the
/// message.
#[must_use]
pub fn disbelieves(rules: &[ReplyRule], command: TransactionCommand, reply: &Reply) -> bool {
    let for_now = command == TransactionCommand::Mail
        && reply.code.value() == FAILED_FOR_NOW.0
        && reply.enhanced == Some(FAILED_FOR_NOW.1.into());
    classify(rules, command, reply) == Verdict::Hold(HoldKind::CredentialsRejected)
        || (for_now && !is_ruled(rules, command, reply))
}

/// Whether a rule of the upstream itself speaks about this reply.
#[must_use]
pub fn is_ruled(rules: &[ReplyRule], command: TransactionCommand, reply: &Reply) -> bool {
    matching(rules, spelled(command), reply).is_some()
}

/// What it means that no session came about; `None` when the failure was no reply.
#[must_use]
pub fn classify_failure(rules: &[ReplyRule], failure: &SessionFailure) -> Option<HoldKind> {
    let command = match failure {
        SessionFailure::Greeting(_) => ReplyCommand::Greeting,
        SessionFailure::Ehlo(_) => ReplyCommand::Ehlo,
        SessionFailure::StartTls(_) => ReplyCommand::StartTls,
        SessionFailure::Authentication(_) => ReplyCommand::Auth,
        _ => return None,
    };
    let reply = failure.reply()?;
    match matching(rules, command, reply).map(verdict) {
        Some(Verdict::Hold(kind)) => Some(kind),
        _ if command == ReplyCommand::Auth && reply.is_permanent() => Some(HoldKind::CredentialsRejected),
        _ => Some(HoldKind::Tripped),
    }
}

fn matching<'a>(rules: &'a [ReplyRule], command: ReplyCommand, reply: &Reply) -> Option<&'a ReplyRule> {
    let text = reply.text().to_lowercase();
    rules.iter().find(|rule| {
        rule.command.is_none_or(|wanted| wanted == command)
            && rule.code.is_none_or(|code| code == i32::from(reply.code.value()))
            && rule
                .enhanced_code
                .as_ref()
                .is_none_or(|wanted| reply.enhanced.is_some_and(|enhanced| enhanced.to_string() == *wanted))
            && rule.text.as_ref().is_none_or(|wanted| text.contains(&wanted.to_lowercase()))
    })
}

fn verdict(rule: &ReplyRule) -> Verdict {
    let seconds = rule.after_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(1);
    match rule.outcome {
        ReplyOutcome::Retry => Verdict::Retry,
        ReplyOutcome::Refuse => Verdict::Refuse,
        ReplyOutcome::Park => Verdict::Hold(HoldKind::Parked(Duration::from_secs(seconds))),
        ReplyOutcome::TripBreaker => Verdict::Hold(HoldKind::Tripped),
        ReplyOutcome::CredentialsRejected => Verdict::Hold(HoldKind::CredentialsRejected),
    }
}

const fn spelled(command: TransactionCommand) -> ReplyCommand {
    match command {
        TransactionCommand::Mail => ReplyCommand::Mail,
        TransactionCommand::Recipient => ReplyCommand::Rcpt,
        TransactionCommand::Data => ReplyCommand::Data,
        TransactionCommand::Content => ReplyCommand::Content,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TransactionCommand::{Content, Data, Mail, Recipient};
    use postroad_crds::provider::Provider;

    fn parked(seconds: u64) -> Verdict {
        Verdict::Hold(HoldKind::Parked(Duration::from_secs(seconds)))
    }

    const REJECTED: Verdict = Verdict::Hold(HoldKind::CredentialsRejected);

    fn check(provider: Option<Provider>, command: TransactionCommand, line: &str, expected: Verdict) {
        let rules = provider.map(|provider| provider.preset().replies).unwrap_or_default();
        let (code, rest) = line.split_once(' ').unwrap();
        let (enhanced, text) = rest.split_once(' ').unwrap();
        let numbers: Vec<u16> = enhanced.split('.').map(|part| part.parse().unwrap()).collect();
        let enhanced = (u8::try_from(numbers[0]).unwrap(), numbers[1], numbers[2]);
        let reply = Reply::new(code.parse().unwrap(), enhanced, text);
        assert_eq!(classify(&rules, command, &reply), expected, "{provider:?} {command:?} {line}");
    }

    #[test]
    fn without_a_rule_a_reply_means_what_the_rfc_says() {
        check(None, Recipient, "550 5.1.1 unknown", Verdict::Refuse);
        check(None, Recipient, "450 4.2.1 busy", Verdict::Retry);
        check(None, Recipient, "552 5.5.3 too many recipients", Verdict::Retry);
        check(None, Content, "552 5.3.4 too large", Verdict::Refuse);
        check(None, Content, "454 4.7.0 not now", Verdict::Retry);
        check(None, Mail, "530 5.7.0 authenticate", REJECTED);
        check(None, Data, "535 5.7.8 rejected", REJECTED);
    }

    #[test]
    fn what_services_say_means_what_they_mean() {
        use Provider::{Gmail, GoogleWorkspaceRelay, Microsoft365, SES};
        check(Some(SES), Content, "454 4.3.0 Throttling failure: Maximum sending rate exceeded.", parked(1));
        check(Some(SES), Content, "454 4.3.0 Throttling failure: daily message quota exceeded.", parked(900));
        check(Some(SES), Content, "554 5.7.1 Message rejected: not verified", Verdict::Refuse);
        check(Some(Microsoft365), Content, "432 4.3.2 Concurrent connections limit exceeded", parked(10));
        let daily = "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException";
        check(Some(Microsoft365), Content, daily, parked(900));
        check(Some(Microsoft365), Mail, "550 5.7.30 Basic authentication is not supported", REJECTED);
        check(Some(Gmail), Content, "550 5.4.5 Daily user sending limit exceeded", parked(900));
        check(Some(Gmail), Recipient, "452 4.5.3 too many recipients", Verdict::Retry);
        check(Some(Gmail), Recipient, "550 5.1.1 no such account", Verdict::Refuse);
        check(
            Some(GoogleWorkspaceRelay),
            Mail,
            "550 5.7.1 Invalid credentials for relay [1.2.3.4]",
            REJECTED,
        );
        check(Some(GoogleWorkspaceRelay), Mail, "550 5.7.1 policy", Verdict::Refuse);
    }

    #[test]
    fn a_session_that_did_not_come_about_is_about_the_upstream_alone() {
        let rules = Provider::SES.preset().replies;
        let check = |failure: SessionFailure, expected: Option<HoldKind>| {
            assert_eq!(classify_failure(&rules, &failure), expected, "{failure}");
        };
        let reply = |code| Reply::bare(code, "text");
        let busy = Some(HoldKind::Parked(Duration::from_secs(10)));
        check(SessionFailure::Greeting(reply(421)), busy);
        check(SessionFailure::Greeting(reply(554)), Some(HoldKind::Tripped));
        check(SessionFailure::Authentication(reply(535)), Some(HoldKind::CredentialsRejected));
        check(SessionFailure::Authentication(reply(454)), Some(HoldKind::Tripped));
        check(SessionFailure::TlsNotOffered, None);
    }
}
