//! The trace line that acceptance adds (RFC 5321 §4.4): who handed the message in, to whom, how, when.

use std::net::IpAddr;
use std::time::SystemTime;

use lettre::message::header::{Date, Headers};
use rustls::{CipherSuite, ProtocolVersion};

use crate::client_certificate::ClientCertificate;
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
    /// Whether the client declared SMTPUTF8.
    pub smtp_utf8: bool,
    /// The session's TLS, when it is under TLS.
    pub tls: Option<TlsFacts>,
    /// The certificate that the client has shown.
    pub certificate: Option<&'a ClientCertificate>,
    /// Whether the client authenticated.
    pub authenticated: bool,
    /// When.
    pub now: SystemTime,
}

/// What was agreed on in the TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// The protocol's version.
    pub version: ProtocolVersion,
    /// The cipher suite.
    pub cipher: CipherSuite,
}

/// The header field with its final CRLF, folded so that no line exceeds 78 octets unless a single name does.
#[must_use]
pub fn header(trace: &Trace<'_>) -> String {
    format!(
        "Received: from {helo} ({address})\r\n\tby {hostname} (Postroad) with {protocol}\r\n\tid {id}{tls}{certificate};\r\n\t{date}\r\n",
        helo = printable(trace.helo_name),
        address = literal(trace.client),
        hostname = trace.hostname,
        protocol = protocol(trace),
        id = trace.id,
        tls = trace.tls.map(tls_clause).unwrap_or_default(),
        certificate = trace.certificate.map(certificate_comment).unwrap_or_default(),
        date = date(trace.now),
    )
}

/// The words of RFC 3848 §1 and RFC 6531 §4.3.
fn protocol(trace: &Trace<'_>) -> &'static str {
    match (trace.esmtp, trace.smtp_utf8, trace.tls.is_some(), trace.authenticated) {
        (false, ..) => "SMTP",
        (true, false, false, false) => "ESMTP",
        (true, false, false, true) => "ESMTPA",
        (true, false, true, false) => "ESMTPS",
        (true, false, true, true) => "ESMTPSA",
        (true, true, false, false) => "UTF8SMTP",
        (true, true, false, true) => "UTF8SMTPA",
        (true, true, true, false) => "UTF8SMTPS",
        (true, true, true, true) => "UTF8SMTPSA",
    }
}

/// The registered clause of RFC 8314 §4.3, with IANA's name of the cipher suite, and the version as a comment.
fn tls_clause(facts: TlsFacts) -> String {
    let cipher =
        facts.cipher.as_str().map_or("unknown".to_owned(), |name| name.replacen("TLS13_", "TLS_", 1));
    let version = match facts.version {
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => "TLSv1.2",
    };
    format!("\r\n\ttls {cipher} ({version})")
}

/// A comment: there is no registered clause. Displayed names can neither end it nor the line.
fn certificate_comment(certificate: &ClientCertificate) -> String {
    format!("\r\n\t(client certificate {certificate})")
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
            smtp_utf8: false,
            tls: Some(TlsFacts {
                version: ProtocolVersion::TLSv1_3,
                cipher: CipherSuite::TLS13_AES_128_GCM_SHA256,
            }),
            certificate: None,
            authenticated: true,
            now: Timestamp(1_795_000_000_000).to_system_time(),
        }
    }

    #[test]
    fn the_line_says_who_how_and_when() {
        assert_eq!(
            header(&trace("app.example")),
            "Received: from app.example ([10.1.2.3])\r\n\tby main.mail.svc.cluster.local (Postroad) with ESMTPSA\r\n\
             \tid 00000000000000000000000007\r\n\ttls TLS_AES_128_GCM_SHA256 (TLSv1.3);\r\n\tWed, 18 Nov 2026 11:06:40 +0000\r\n"
        );
    }

    #[test]
    fn the_protocol_word_says_what_the_session_was() {
        let check = |esmtp, smtp_utf8, tls, authenticated, word: &str| {
            let given = trace("a");
            let tls = given.tls.filter(|_| tls);
            let line = header(&Trace { esmtp, smtp_utf8, tls, authenticated, ..given });
            assert!(line.contains(&format!(" with {word}\r\n")), "{word} not in {line}");
            assert_eq!(line.contains("\ttls "), tls.is_some(), "{line}");
        };
        check(false, false, false, false, "SMTP");
        check(true, false, false, false, "ESMTP");
        check(true, false, false, true, "ESMTPA");
        check(true, false, true, false, "ESMTPS");
        check(true, false, true, true, "ESMTPSA");
        check(true, true, false, false, "UTF8SMTP");
        check(true, true, true, true, "UTF8SMTPSA");
    }

    #[test]
    fn a_client_name_cannot_break_out_of_the_line() {
        let line = header(&trace("a)\r\nBcc: victim@example.com; (\u{e9}"));
        assert_eq!(line.matches("\r\n").count(), 5);
        assert!(line.starts_with("Received: from a???Bcc:?victim@example.com????"), "{line}");
    }
}
