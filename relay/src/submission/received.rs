//! The trace line that acceptance adds (RFC 5321 §4.4): who handed the message in, to whom, how, when.

use std::net::IpAddr;
use std::time::SystemTime;

use lettre::message::header::{Date, Headers};

use crate::message::MessageId;

/// What the line says.
#[derive(Clone, Debug)]
pub struct Trace<'a> {
    /// The name the client gave in EHLO or HELO.
    pub helo_name: &'a str,
    /// Where its connection came from.
    pub client: IpAddr,
    /// The relay's own name.
    pub hostname: &'a str,
    /// The message.
    pub id: MessageId,
    /// Whether EHLO was used.
    pub esmtp: bool,
    /// Whether the session is under TLS.
    pub tls: bool,
    /// Whether the client authenticated.
    pub authenticated: bool,
    /// When.
    pub now: SystemTime,
}

/// The header field with its final CRLF, folded so that no line exceeds 78 octets unless a single name does.
#[must_use]
pub fn header(trace: &Trace<'_>) -> String {
    format!(
        "Received: from {helo} ({address})\r\n\tby {hostname} (Postroad) with {protocol}\r\n\tid {id};\r\n\t{date}\r\n",
        helo = printable(trace.helo_name),
        address = literal(trace.client),
        hostname = trace.hostname,
        protocol = protocol(trace),
        id = trace.id,
        date = date(trace.now),
    )
}

/// The words of RFC 3848 §1.
fn protocol(trace: &Trace<'_>) -> &'static str {
    match (trace.esmtp, trace.tls, trace.authenticated) {
        (false, ..) => "SMTP",
        (true, false, _) => "ESMTP",
        (true, true, false) => "ESMTPS",
        (true, true, true) => "ESMTPSA",
    }
}

/// RFC 5321 §4.1.3.
fn literal(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
    }
}

/// RFC 5322 §3.3, in UTC.
#[must_use]
pub fn date(now: SystemTime) -> String {
    let mut headers = Headers::new();
    headers.set(Date::from(now));
    headers.get_raw("Date").unwrap_or_default().to_owned()
}

/// A name that came from the client, so that it can neither end the line nor open a comment.
fn printable(name: &str) -> String {
    let safe = |c: char| c.is_ascii_graphic() && !matches!(c, '(' | ')' | '\\' | ';' | '"');
    name.chars().take(255).map(|c| if safe(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Timestamp;

    fn trace(helo_name: &str) -> Trace<'_> {
        Trace {
            helo_name,
            client: "10.1.2.3".parse().unwrap(),
            hostname: "main.mail.svc.cluster.local",
            id: MessageId::new(Timestamp(0), 7),
            esmtp: true,
            tls: true,
            authenticated: true,
            now: Timestamp(1_795_000_000_000).to_system_time(),
        }
    }

    #[test]
    fn the_line_says_who_how_and_when() {
        assert_eq!(
            header(&trace("app.example")),
            "Received: from app.example ([10.1.2.3])\r\n\tby main.mail.svc.cluster.local (Postroad) with ESMTPSA\r\n\
             \tid 00000000000000000000000007;\r\n\tWed, 18 Nov 2026 11:06:40 +0000\r\n"
        );
    }

    #[test]
    fn a_client_name_cannot_break_out_of_the_line() {
        let line = header(&trace("a)\r\nBcc: victim@example.com; (\u{e9}"));
        assert_eq!(line.matches("\r\n").count(), 4);
        assert!(line.starts_with("Received: from a???Bcc:?victim@example.com????"), "{line}");
    }
}
