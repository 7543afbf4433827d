//! What the clients send. Every header field that a submission server may add is there, so that what arrives is compared
//! octet by octet; the empty message alone has none.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A message that is hard to carry in some respect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A few lines of text.
    Small,
    /// A header field and a body with characters outside ASCII, the body as octets above 127.
    EightBit,
    /// Small, from and to addresses with a local part outside ASCII, and a Subject like that (SMTPUTF8).
    Utf8Addresses,
    /// Lines that begin with dots, a lone dot among them (RFC 5321 §4.5.2).
    Dots,
    /// No octet at all.
    Empty,
    /// Small, to 500 recipients.
    Recipients,
    /// An attachment of 20 MB, 27 MB as base64.
    Attachment,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Small,
        Self::EightBit,
        Self::Utf8Addresses,
        Self::Dots,
        Self::Empty,
        Self::Recipients,
        Self::Attachment,
    ];

    /// What the reference calls it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::EightBit => "8-bit",
            Self::Utf8Addresses => "UTF-8 addresses",
            Self::Dots => "dot-lines",
            Self::Empty => "empty",
            Self::Recipients => "500 recipients",
            Self::Attachment => "20 MB",
        }
    }

    /// The reverse-path. `name` tells this message from all others of its upstream.
    pub fn reverse_path(self, name: &str) -> String {
        let accent = if self == Self::Utf8Addresses { "grün-" } else { "" };
        format!("{accent}{name}@sender.example")
    }

    /// The forward-paths.
    pub fn recipients(self, name: &str) -> Vec<String> {
        match self {
            Self::Utf8Addresses => vec![format!("größe-{name}@recipient.example")],
            Self::Recipients => (0..500).map(|number| format!("{name}-{number}@recipient.example")).collect(),
            _ => vec![format!("{name}@recipient.example")],
        }
    }

    /// The content, with CRLF line ends.
    pub fn content(self, name: &str) -> Vec<u8> {
        let subject = match self {
            Self::EightBit => "=?utf-8?q?Gr=C3=BC=C3=9Fe?=",
            Self::Utf8Addresses => "Grüße",
            _ => "Greetings",
        };
        let header = format!(
            "From: Sender <{name}@sender.example>\r\nTo: Recipient <{name}@recipient.example>\r\n\
             Subject: {subject}\r\nMessage-ID: <{name}@sender.example>\r\n\
             Date: Wed, 25 Nov 2026 12:00:00 +0000\r\nMIME-Version: 1.0\r\n"
        );
        let text = |transfer: &str, body: &str| {
            format!("{header}Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: {transfer}\r\n\r\n{body}")
                .into_bytes()
        };
        match self {
            Self::Small | Self::Utf8Addresses | Self::Recipients => {
                text("7bit", "Hello,\r\n\r\n  indented, with a\ttab\r\n\r\nthe end\r\n")
            }
            Self::EightBit => text("8bit", "Füße, naïve, Ελληνικά, 日本語, 🚀\r\n"),
            Self::Dots => text(
                "7bit",
                ".\r\n..\r\n...\r\n.dot\r\n..dots\r\nin . the .. middle.\r\n\r\n.\r\n.\r\nend\r\n",
            ),
            Self::Empty => Vec::new(),
            Self::Attachment => attachment(&header),
        }
    }
}

fn attachment(header: &str) -> Vec<u8> {
    let mut content = format!(
        "{header}Content-Type: application/octet-stream; name=large.bin\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment; filename=large.bin\r\n\r\n"
    )
    .into_bytes();
    let octets: Vec<u8> =
        (0..20_000_000u32).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    for line in octets.chunks(57) {
        content.extend_from_slice(STANDARD.encode(line).as_bytes());
        content.extend_from_slice(b"\r\n");
    }
    content
}
