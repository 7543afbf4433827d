//! Delivery status notifications: telling the sender what became of recipients (RFC 3464, RFC 3461, RFC 6522; RFC 6533 for
//! internationalised mail).
//!
//! Composed with lettre; goes into the spool as a message of its own with the null reverse-path, so that no notification is
//! ever sent about a notification (RFC 5321 §4.5.5).
//!
//! ```text
//! report       what it is about         status        the part for programs
//! explanation  the part for people      text          texts of others, made fit
//! ```

mod explanation;
mod report;
mod status;
mod text;

use lettre::message::header::{
    ContentTransferEncoding, ContentType, Date, HeaderName, HeaderValue, MIME_VERSION_1_0,
};
use lettre::message::{Body, MultiPart, SinglePart};

pub use report::{Notice, Reason, Report, Returned};

/// A notification's content.
#[derive(Clone, Debug)]
pub struct Composed {
    /// The content, with CRLF line ends.
    pub content: Vec<u8>,
    /// Whether it needs SMTPUTF8: an address or the header section that is returned is internationalised.
    pub smtp_utf8: bool,
}

/// Composes a notification.
///
/// Addresses go into the header as they stood in the envelope: what SMTP has accepted is written back, whether or not a
/// stricter reading of addresses would like it.
#[must_use]
pub fn compose(report: &Report<'_>) -> Composed {
    let (hostname, id) = (report.hostname, report.id);
    let smtp_utf8 = is_international(report);
    let kind = format!("multipart/report; report-type=delivery-status; boundary=\"postroad-{id}\"");
    let status_kind = if smtp_utf8 { "message/global-delivery-status" } else { "message/delivery-status" };
    let mut message = MultiPart::builder()
        .header(content_type(&kind))
        .build()
        .singlepart(SinglePart::plain(explanation::explanation(report)))
        .singlepart(part(status_kind, status::status(report).into_bytes()))
        .singlepart(returned(report.returned, smtp_utf8));
    let top = message.headers_mut();
    top.set(Date::from(report.now));
    top.set(MIME_VERSION_1_0);
    for (name, value) in [
        ("From", format!("Mail Delivery System <MAILER-DAEMON@{hostname}>")),
        ("To", format!("<{}>", report.envelope.reverse_path)),
        ("Subject", explanation::subject(report.notices).to_owned()),
        ("Message-ID", format!("<{id}@{hostname}>")),
        ("Auto-Submitted", "auto-replied".to_owned()),
    ] {
        let name = HeaderName::new_from_ascii_str(name);
        // An address in UTF-8 stands as it is (RFC 6532 §3.2); it cannot hold a line end, for SMTP has accepted it.
        top.insert_raw(match value.is_ascii() {
            true => HeaderValue::new(name, value),
            false => HeaderValue::dangerous_new_pre_encoded(name, value.clone(), value),
        });
    }
    Composed { content: message.formatted(), smtp_utf8 }
}

/// Whether the report cannot be written in US-ASCII. Headers with raw octets of a message that did not declare SMTPUTF8 are
/// no reason: their sender may not take internationalised mail.
fn is_international(report: &Report<'_>) -> bool {
    let envelope = report.envelope;
    let headers = match report.returned {
        Returned::Headers(content) | Returned::Full(content) => text::header_section(content),
    };
    let addresses_are_ascii = envelope.reverse_path.is_ascii()
        && report.notices.iter().all(|notice| notice.recipient.address.is_ascii());
    envelope.smtp_utf8 && !(addresses_are_ascii && headers.is_ascii())
}

fn returned(returned: Returned<'_>, smtp_utf8: bool) -> SinglePart {
    match (returned, smtp_utf8) {
        (Returned::Headers(content), true) => part("message/global-headers", text::header_section(content)),
        (Returned::Headers(content), false) => {
            part("text/rfc822-headers", text::to_ascii(&text::header_section(content)))
        }
        (Returned::Full(content), true) => part("message/global", content.to_vec()),
        (Returned::Full(content), false) => part("message/rfc822", content.to_vec()),
    }
}

fn content_type(text: &str) -> ContentType {
    ContentType::parse(text).expect("the types written here are well-formed")
}

/// A part whose lines must not be re-encoded (RFC 3464 §2.1, RFC 2046 §5.2.1).
fn part(kind: &str, content: Vec<u8>) -> SinglePart {
    let encoding = match content.is_ascii() {
        true => ContentTransferEncoding::SevenBit,
        false => ContentTransferEncoding::EightBit,
    };
    let body = Body::dangerous_pre_encoded(content, encoding);
    SinglePart::builder().content_type(content_type(kind)).body(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Envelope, MessageId, Recipient, Timestamp};
    use smtp_protocol::{Notify, Return};
    use smtp_protocol::{Reply, Unmet};

    const CONTENT: &[u8] = b"Subject: caf\xc3\xa9\r\nTo: x@example.net\r\n\r\nthe secret body\r\n";

    fn notice(reason: Reason) -> Notice {
        Notice { recipient: "x@example.net".into(), reason }
    }

    fn envelope(reverse_path: &str) -> Envelope {
        Envelope {
            id: MessageId::new(Timestamp(1_795_000_000_000), 1),
            reverse_path: reverse_path.into(),
            recipients: vec!["x@example.net".into()],
            eight_bit: false,
            smtp_utf8: false,
            ret: None,
            envelope_id: None,
            size: 100,
            accepted_at: Timestamp(1_795_000_000_000),
            identity: None,
            user: None,
        }
    }

    fn compose_about(envelope: &Envelope, returned: Returned<'_>, notices: &[Notice]) -> (String, bool) {
        let composed = compose(&Report {
            envelope,
            returned,
            notices,
            hostname: "main.mail.svc.cluster.local",
            id: MessageId::new(Timestamp(1_795_000_060_000), 2),
            now: Timestamp(1_795_000_060_000).to_system_time(),
        });
        let text = String::from_utf8(composed.content).unwrap();
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
        (text, composed.smtp_utf8)
    }

    fn check(envelope: &Envelope, returned: Returned<'_>, notice: &Notice, expected: &[&str]) -> String {
        let (text, _) = compose_about(envelope, returned, std::slice::from_ref(notice));
        for expected in expected {
            assert!(text.contains(expected), "{expected:?} not in\n{text}");
        }
        text
    }

    #[test]
    fn a_refusal_is_reported_with_its_reply_and_the_headers_only() {
        let refused = notice(Reason::Refused(Reply::new(550, (5, 1, 1), "no such user")));
        let expected = [
            "To: <app@example.com>\r\n",
            "Auto-Submitted: auto-replied\r\n",
            "multipart/report; report-type=delivery-status;",
            "Reporting-MTA: dns; main.mail.svc.cluster.local\r\n",
            "Final-Recipient: rfc822; x@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\n",
            "Diagnostic-Code: smtp; 550 5.1.1 no such user\r\nLast-Attempt-Date: ",
            "Check the address for typing errors",
            "Subject: caf??\r\n",
        ];
        let text = check(&envelope("app@example.com"), Returned::Headers(CONTENT), &refused, &expected);
        assert!(text.is_ascii() && !text.contains("secret body"));
    }

    #[test]
    fn the_whole_message_goes_back_where_it_was_asked_for() {
        let refused = notice(Reason::Refused(Reply::new(550, (5, 1, 1), "no")));
        let expected = [
            "message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: caf\u{e9}",
            "the secret body",
        ];
        check(&envelope("app@example.com"), Returned::Full(CONTENT), &refused, &expected);
    }

    #[test]
    fn what_the_sender_named_is_named_again() {
        let recipient = Recipient {
            original: Some("rfc822;first+2Blast@example.org".into()),
            ..Recipient::new("x@example.net")
        };
        let refused = Notice { recipient, reason: Reason::Refused(Reply::bare(550, "no")) };
        let named = Envelope { envelope_id: Some("QQ+2B31".into()), ..envelope("app@example.com") };
        let expected = [
            "Original-Envelope-Id: QQ+31\r\n",
            "Original-Recipient: rfc822; first+last@example.org\r\nFinal-Recipient: rfc822; x@example.net\r\n",
            "Status: 5.0.0\r\n",
        ];
        check(&named, Returned::Headers(CONTENT), &refused, &expected);
    }

    #[test]
    fn each_event_has_its_own_action_and_status() {
        let until = Timestamp(1_795_000_000_000);
        for (reason, expected) in [
            (
                Reason::Expired("connection refused".into()),
                ["Action: failed\r\nStatus: 5.4.7\r\n", "Undelivered mail"],
            ),
            (
                Reason::Unsupported(Unmet::EightBitMime),
                ["Action: failed\r\nStatus: 5.6.3\r\n", "Undelivered mail"],
            ),
            (
                Reason::Relayed(Reply::new(250, (2, 0, 0), "ok")),
                ["Action: relayed\r\nStatus: 2.0.0\r\n", "Subject: Mail relayed"],
            ),
            (
                Reason::Delayed { obstacle: "busy".into(), until },
                ["Action: delayed\r\nStatus: 4.4.1\r\nLast-Attempt-Date: ", "Will-Retry-Until: "],
            ),
        ] {
            check(&envelope("app@example.com"), Returned::Headers(CONTENT), &notice(reason), &expected);
        }
    }

    #[test]
    fn internationalised_mail_is_reported_in_its_own_form() {
        let recipient = Recipient::new("j\u{fc}rgen@example.net");
        let refused = Notice { recipient, reason: Reason::Refused(Reply::bare(550, "no")) };
        let international =
            Envelope { smtp_utf8: true, ret: Some(Return::Headers), ..envelope("j\u{f6}rg@example.com") };
        let expected = [
            "To: <j\u{f6}rg@example.com>\r\n",
            "message/global-delivery-status",
            "Final-Recipient: utf-8; j\u{fc}rgen@example.net\r\n",
            "message/global-headers",
            "Subject: caf\u{e9}\r\n",
        ];
        check(&international, Returned::Headers(CONTENT), &refused, &expected);
        assert!(compose_about(&international, Returned::Headers(CONTENT), std::slice::from_ref(&refused)).1);
        let plain = [notice(refused.reason)];
        assert!(!compose_about(&envelope("a@example.com"), Returned::Headers(CONTENT), &plain).1);
    }

    #[test]
    fn only_what_the_sender_wants_to_hear_is_wanted() {
        let check = |notify: Option<Notify>, expected: [bool; 3]| {
            let reasons = [
                Reason::Expired("busy".into()),
                Reason::Relayed(Reply::bare(250, "ok")),
                Reason::Delayed { obstacle: "busy".into(), until: Timestamp(0) },
            ];
            let recipient = Recipient { notify, ..Recipient::new("x@example.net") };
            let wanted = reasons.map(|reason| Notice { recipient: recipient.clone(), reason }.is_wanted());
            assert_eq!(wanted, expected, "{notify:?}");
        };
        check(None, [true, false, false]);
        check(Some(Notify::NEVER), [false, false, false]);
        check(Some(Notify { success: true, ..Notify::NEVER }), [false, true, false]);
        check(Some(Notify { success: false, failure: true, delay: true }), [true, false, true]);
    }

    #[test]
    fn every_sender_that_smtp_accepts_is_told() {
        let reason = Reason::Expired("connection refused".into());
        let notices = [notice(reason)];
        for sender in [
            "root@localhost",
            "\"odd (name)@home\"@example.com",
            "app@[10.1.2.3]",
            "a_b=c@x-y.example",
            "o'b!#$%@example.com",
        ] {
            let _: smtp_protocol::Mailbox =
                sender.parse().unwrap_or_else(|error| panic!("{sender}: {error}"));
            let (text, _) = compose_about(&envelope(sender), Returned::Headers(CONTENT), &notices);
            assert!(text.contains(&format!("To: <{sender}>\r\n")), "{sender} in\n{text}");
        }
    }
}
