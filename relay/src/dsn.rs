//! Delivery status notifications: telling the sender that recipients will not get the message (RFC 3464, RFC 6522).
//!
//! Composed with lettre; goes into the spool as a message of its own with the null reverse-path, so that no notification is
//! ever sent about a notification (RFC 5321 §4.5.5).

use std::time::SystemTime;

use lettre::message::header::{
    ContentTransferEncoding, ContentType, Date, HeaderName, HeaderValue, MIME_VERSION_1_0,
};
use lettre::message::{Body, MultiPart, SinglePart};
use smtp_protocol::{EnhancedStatusCode, Reply, Unmet};

use crate::message::{Envelope, MessageId};

/// One recipient that will not get the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The mailbox.
    pub recipient: String,
    /// Why.
    pub reason: Reason,
}

/// Why a recipient will not get the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The upstream refused it with this reply.
    Refused(Reply),
    /// The upstream does not offer what the message needs; nothing was sent.
    Unsupported(Unmet),
    /// It was tried until the pool's expiry; the text is the last obstacle.
    Expired(String),
}

/// What a notification is about.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// The message that failed.
    pub envelope: &'a Envelope,
    /// Its header section as it was accepted, whole or its beginning.
    pub header_section: &'a [u8],
    /// For whom; at least one.
    pub failures: &'a [Failure],
    /// The relay's name.
    pub hostname: &'a str,
    /// The notification's own identifier.
    pub id: MessageId,
    /// When.
    pub now: SystemTime,
}

/// The notification's content, with CRLF line ends.
///
/// Addresses go into the header as they stood in the envelope: what SMTP has accepted is written back, whether or not a
/// stricter reading of addresses would like it.
#[must_use]
pub fn compose(report: &Report<'_>) -> Vec<u8> {
    let (hostname, id) = (report.hostname, report.id);
    let kind = format!("multipart/report; report-type=delivery-status; boundary=\"postroad-{id}\"");
    let mut message = MultiPart::builder()
        .header(content_type(&kind))
        .build()
        .singlepart(SinglePart::plain(explanation(report)))
        .singlepart(part("message/delivery-status", status(report)))
        .singlepart(part("text/rfc822-headers", headers(report.header_section)));
    let top = message.headers_mut();
    top.set(Date::from(report.now));
    top.set(MIME_VERSION_1_0);
    for (name, value) in [
        ("From", format!("Mail Delivery System <MAILER-DAEMON@{hostname}>")),
        ("To", format!("<{}>", report.envelope.reverse_path)),
        ("Subject", "Undelivered mail returned to sender".to_owned()),
        ("Message-ID", format!("<{id}@{hostname}>")),
        ("Auto-Submitted", "auto-replied".to_owned()),
    ] {
        top.insert_raw(HeaderValue::new(HeaderName::new_from_ascii_str(name), value));
    }
    message.formatted()
}

fn content_type(text: &str) -> ContentType {
    ContentType::parse(text).expect("the types written here are well-formed")
}

/// A part that is ASCII already and whose lines must not be re-encoded (RFC 3464 §2.1).
fn part(kind: &str, text: String) -> SinglePart {
    let body = Body::dangerous_pre_encoded(text.into_bytes(), ContentTransferEncoding::SevenBit);
    SinglePart::builder().content_type(content_type(kind)).body(body)
}

fn explanation(report: &Report<'_>) -> String {
    let mut text = format!(
        "This is the mail system at {}.\r\n\r\n\
         Your message could not be delivered to the recipients below.\r\n\
         It will not be tried again. Its queue id was {}.\r\n",
        report.hostname, report.envelope.id
    );
    for failure in report.failures {
        let why = match &failure.reason {
            Reason::Refused(reply) => format!("the next mail server refused it: {reply}"),
            Reason::Unsupported(unmet) => format!("the next mail server cannot take it: {unmet}"),
            Reason::Expired(obstacle) => {
                format!("it could not be delivered in time; last obstacle: {obstacle}")
            }
        };
        text.push_str(&format!("\r\n<{}>: {}\r\n", failure.recipient, why));
    }
    text
}

/// RFC 3464 §2.2 and §2.3.
fn status(report: &Report<'_>) -> String {
    let arrival = crate::submission::received::date(report.envelope.accepted_at.to_system_time());
    let mut text = format!(
        "Reporting-MTA: dns; {}\r\nX-Postroad-Queue-Id: {}\r\nArrival-Date: {arrival}\r\n",
        report.hostname, report.envelope.id
    );
    for failure in report.failures {
        let (status, diagnostic) = match &failure.reason {
            Reason::Refused(reply) => {
                let general = EnhancedStatusCode { class: 5, subject: 0, detail: 0 };
                let code = reply.enhanced.filter(|code| code.class == 5).unwrap_or(general);
                (code, format!("Diagnostic-Code: smtp; {}\r\n", ascii(&reply.to_string())))
            }
            Reason::Unsupported(unmet) => (unmet.status(), String::new()),
            // RFC 3463 §3.5: delivery time expired.
            Reason::Expired(_) => (EnhancedStatusCode { class: 5, subject: 4, detail: 7 }, String::new()),
        };
        text.push_str(&format!(
            "\r\nFinal-Recipient: rfc822; {}\r\nAction: failed\r\nStatus: {status}\r\n{diagnostic}",
            failure.recipient
        ));
    }
    text
}

/// The header section as 7-bit text, without what follows it.
fn headers(section: &[u8]) -> String {
    let end = section.windows(4).position(|window| window == b"\r\n\r\n").map_or(section.len(), |at| at + 2);
    let mut text: String =
        section[..end].iter().map(|&byte| if byte.is_ascii() { char::from(byte) } else { '?' }).collect();
    if !text.ends_with("\r\n") {
        text.push_str("\r\n");
    }
    text
}

/// A reply's text on one line.
fn ascii(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Timestamp;

    fn compose_for(failures: &[Failure]) -> String {
        compose_to("app@example.com", failures)
    }

    fn compose_to(reverse_path: &str, failures: &[Failure]) -> String {
        let id = MessageId::new(Timestamp(1_795_000_000_000), 1);
        let envelope = Envelope {
            id,
            reverse_path: reverse_path.into(),
            recipients: failures.iter().map(|failure| failure.recipient.as_str().into()).collect(),
            eight_bit: false,
            smtp_utf8: false,
            ret: None,
            envelope_id: None,
            size: 100,
            accepted_at: Timestamp(1_795_000_000_000),
            identity: None,
            user: None,
        };
        let content = compose(&Report {
            envelope: &envelope,
            header_section: b"Subject: caf\xc3\xa9\r\nTo: x@example.net\r\n\r\nthe secret body\r\n",
            failures,
            hostname: "main.mail.svc.cluster.local",
            id: MessageId::new(Timestamp(1_795_000_060_000), 2),
            now: Timestamp(1_795_000_060_000).to_system_time(),
        });
        String::from_utf8(content).unwrap()
    }

    #[test]
    fn a_refusal_is_reported_with_its_reply_and_the_headers_only() {
        let reply = Reply::new(550, (5, 1, 1), "no such user");
        let text =
            compose_for(&[Failure { recipient: "x@example.net".into(), reason: Reason::Refused(reply) }]);
        for expected in [
            "To: <app@example.com>\r\n",
            "Auto-Submitted: auto-replied\r\n",
            "multipart/report; report-type=delivery-status;",
            "Reporting-MTA: dns; main.mail.svc.cluster.local\r\n",
            "Final-Recipient: rfc822; x@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\n",
            "Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n",
            "Subject: caf??\r\n",
        ] {
            assert!(text.contains(expected), "{expected:?} not in\n{text}");
        }
        assert!(!text.contains("secret body"));
        assert!(text.is_ascii() && !text.replace("\r\n", "").contains(['\r', '\n']));
    }

    #[test]
    fn an_expiry_has_its_own_status() {
        let reason = Reason::Expired("connection refused".into());
        let text = compose_for(&[Failure { recipient: "x@example.net".into(), reason }]).replace("=\r\n", "");
        assert!(text.contains("Status: 5.4.7\r\n") && text.contains("connection refused"), "{text}");
    }

    #[test]
    fn every_sender_that_smtp_accepts_is_told() {
        let reason = Reason::Expired("connection refused".into());
        let failures = [Failure { recipient: "x@example.net".into(), reason }];
        for sender in [
            "root@localhost",
            "\"odd (name)@home\"@example.com",
            "app@[10.1.2.3]",
            "a_b=c@x-y.example",
            "o'b!#$%@example.com",
        ] {
            let _: smtp_protocol::Mailbox =
                sender.parse().unwrap_or_else(|error| panic!("{sender}: {error}"));
            let text = compose_to(sender, &failures);
            assert!(text.contains(&format!("To: <{sender}>\r\n")), "{sender} in\n{text}");
        }
    }
}
