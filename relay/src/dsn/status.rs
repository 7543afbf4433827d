//! The part of a notification that programs read: message/delivery-status (RFC 3464 §2), and its internationalised form
//! (RFC 6533 §3).

use smtp_protocol::{EnhancedStatusCode, EnvelopeId, OriginalRecipient, Reply};

use super::report::{Notice, Reason, Report};
use super::text::one_line;
use crate::submission::received::date;

/// RFC 3463 §3.5: delivery time expired.
const EXPIRED: (u8, u16, u16) = (5, 4, 7);
/// RFC 3463 §3.5: no answer from host, or what else keeps the message here; the text says more.
const DELAYED: (u8, u16, u16) = (4, 4, 1);

/// The groups of fields: one about the message, one for each recipient.
pub(super) fn status(report: &Report<'_>) -> String {
    let envelope = report.envelope;
    let mut text = String::new();
    let name = envelope.envelope_id.as_deref().and_then(|id| id.parse::<EnvelopeId>().ok());
    field(&mut text, "Original-Envelope-Id", name.as_ref().map(EnvelopeId::as_str));
    field(&mut text, "Reporting-MTA", Some(&format!("dns; {}", report.hostname)));
    field(&mut text, "X-Postroad-Queue-Id", Some(&envelope.id.to_string()));
    field(&mut text, "Arrival-Date", Some(&date(envelope.accepted_at.to_system_time())));
    for notice in report.notices {
        text.push_str("\r\n");
        recipient(&mut text, notice, report);
    }
    text
}

fn recipient(text: &mut String, notice: &Notice, report: &Report<'_>) {
    let original = notice.recipient.original.as_deref().and_then(|value| value.parse().ok());
    let original = original
        .map(|original: OriginalRecipient| format!("{}; {}", original.address_type(), original.address()));
    field(text, "Original-Recipient", original.as_deref());
    let kind = if notice.recipient.address.is_ascii() { "rfc822" } else { "utf-8" };
    field(text, "Final-Recipient", Some(&format!("{kind}; {}", notice.recipient.address)));
    field(text, "Action", Some(action(&notice.reason)));
    field(text, "Status", Some(&code(&notice.reason).to_string()));
    let diagnostic =
        diagnostic(&notice.reason).map(|reply| format!("smtp; {}", one_line(&reply.to_string())));
    field(text, "Diagnostic-Code", diagnostic.as_deref());
    field(text, "Last-Attempt-Date", Some(&date(report.now)));
    if let Reason::Delayed { until, .. } = &notice.reason {
        field(text, "Will-Retry-Until", Some(&date(until.to_system_time())));
    }
}

fn action(reason: &Reason) -> &'static str {
    match reason {
        Reason::Refused(_) | Reason::Unsupported(_) | Reason::Expired(_) => "failed",
        Reason::Relayed(_) => "relayed",
        Reason::Delayed { .. } => "delayed",
    }
}

/// The status of a recipient: the upstream's own where it has the class that the action needs (RFC 3464 §2.3.4).
pub(super) fn code(reason: &Reason) -> EnhancedStatusCode {
    let said = |reply: &Reply, class| {
        reply.enhanced.filter(|code| code.class == class).unwrap_or((class, 0, 0).into())
    };
    match reason {
        Reason::Refused(reply) => said(reply, 5),
        Reason::Unsupported(unmet) => unmet.status(),
        Reason::Expired(_) => EXPIRED.into(),
        Reason::Relayed(reply) => said(reply, 2),
        Reason::Delayed { .. } => DELAYED.into(),
    }
}

fn diagnostic(reason: &Reason) -> Option<&Reply> {
    match reason {
        Reason::Refused(reply) | Reason::Relayed(reply) => Some(reply),
        Reason::Unsupported(_) | Reason::Expired(_) | Reason::Delayed { .. } => None,
    }
}

fn field(text: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
}
