//! The part of a notification that people read: what happened, why, and what to do.

use smtp_protocol::EnhancedStatusCode;

use super::report::{Notice, Reason, Report};
use super::status::code;
use crate::submission::received::date;

/// What the notification is called.
pub(super) fn subject(notices: &[Notice]) -> &'static str {
    let any = |wanted: fn(&Reason) -> bool| notices.iter().any(|notice| wanted(&notice.reason));
    if any(Reason::is_failure) {
        "Undelivered mail returned to sender"
    } else if any(|reason| matches!(reason, Reason::Delayed { .. })) {
        "Delayed mail (still being tried)"
    } else {
        "Mail relayed"
    }
}

/// The whole text, one paragraph a recipient.
pub(super) fn explanation(report: &Report<'_>) -> String {
    let mut text = format!(
        "This is the mail system at {}.\r\n\r\n\
         This is about the message with the queue id {}, accepted {}.\r\n",
        report.hostname,
        report.envelope.id,
        date(report.envelope.accepted_at.to_system_time())
    );
    for notice in report.notices {
        text.push_str(&format!("\r\n<{}>: {}\r\n", notice.recipient.address, paragraph(&notice.reason)));
    }
    text
}

fn paragraph(reason: &Reason) -> String {
    match reason {
        Reason::Refused(reply) => {
            format!(
                "not delivered, and not tried again. The next mail server refused it: {reply}\r\n{}",
                advice(code(reason))
            )
        }
        Reason::Unsupported(unmet) => {
            format!(
                "not delivered, and not tried again. The next mail server cannot take it: {unmet}.\r\n{}",
                advice(code(reason))
            )
        }
        Reason::Expired(obstacle) => format!(
            "not delivered in time, and not tried again. The last obstacle: {obstacle}\r\n{}",
            advice(code(reason))
        ),
        Reason::Relayed(_) => {
            "passed on to the next mail server, which does not say what becomes of it. You will hear \
                               from it only if delivery fails."
                .to_owned()
        }
        Reason::Delayed { obstacle, until } => format!(
            "not delivered yet. The last obstacle: {obstacle}\r\n\
             It is tried until {}. There is no need to send it again.",
            date(until.to_system_time())
        ),
    }
}

/// What the sender can do, by the subject of the status (RFC 3463 §3).
fn advice(status: EnhancedStatusCode) -> &'static str {
    match (status.subject, status.detail) {
        (1, _) => "Check the address for typing errors and send the message again.",
        (2, 2) => "The mailbox is full: send the message again later, or reach the recipient another way.",
        (2, 3) | (3, 4) => "Make the message smaller and send it again.",
        (4, 7) => "Send it again if it is still of use.",
        (6, 3) => "Send it again with its text encoded as quoted-printable or base64.",
        (6, 7) => "Send it again to an address, and from one, of plain ASCII letters.",
        (7, _) => {
            "It was refused by policy: ask the operator of that mail server, and your own, whether you may send this from \
             your address."
        }
        _ => {
            "If the reason does not tell you what to do, ask the operator of your mail system, and name the queue id."
        }
    }
}
