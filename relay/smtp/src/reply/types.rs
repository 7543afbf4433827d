//! The reply as a value.

use super::code::{EnhancedStatusCode, ReplyCode, Severity};
use super::encode;
use bytes::BytesMut;
use std::fmt;

/// A reply: what a server answers to a command (RFC 5321 §4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The three-digit code.
    pub code: ReplyCode,
    /// The enhanced status code (RFC 2034), if the reply has one.
    pub enhanced: Option<EnhancedStatusCode>,
    /// The text, one entry a line, without codes and line ends.
    pub lines: Vec<String>,
}

impl Reply {
    /// A reply with an enhanced status code. A code outside 200..=599 is a defect of the caller and becomes 451.
    pub fn new(code: u16, enhanced: (u8, u16, u16), text: impl Into<String>) -> Self {
        Self { enhanced: Some(enhanced.into()), ..Self::bare(code, text) }
    }

    /// A reply without an enhanced status code: greeting, EHLO reply, 334, 354 (RFC 2034 §3).
    /// A code outside 200..=599 is a defect of the caller and becomes 451.
    pub fn bare(code: u16, text: impl Into<String>) -> Self {
        Self::multiline(code, vec![text.into()])
    }

    /// A reply of several lines without an enhanced status code, such as the EHLO reply.
    pub fn multiline(code: u16, lines: Vec<String>) -> Self {
        debug_assert!((200..=599).contains(&code), "reply code {code} is out of range");
        let code = ReplyCode::new(code).or(ReplyCode::new(451)).expect("451 is a reply code");
        Self { code, enhanced: None, lines }
    }

    /// 2yz or 3yz.
    pub fn is_positive(&self) -> bool {
        matches!(self.code.severity(), Severity::PositiveCompletion | Severity::PositiveIntermediate)
    }

    /// 2yz.
    pub fn is_completion(&self) -> bool {
        self.code.severity() == Severity::PositiveCompletion
    }

    /// 3yz.
    pub fn is_intermediate(&self) -> bool {
        self.code.severity() == Severity::PositiveIntermediate
    }

    /// 4yz.
    pub fn is_transient(&self) -> bool {
        self.code.severity() == Severity::TransientNegative
    }

    /// 5yz.
    pub fn is_permanent(&self) -> bool {
        self.code.severity() == Severity::PermanentNegative
    }

    /// 421: the server closes the connection (RFC 5321 §3.8).
    pub fn closes_connection(&self) -> bool {
        self.code.value() == 421
    }

    /// The lines joined by a space.
    pub fn text(&self) -> String {
        self.lines.join(" ")
    }

    /// Appends the reply as it goes over the wire.
    ///
    /// No line is longer than 512 octets including CRLF (RFC 5321 §4.5.3.1.5): longer text is wrapped at spaces into a
    /// multi-line reply that repeats the enhanced status code on each line (RFC 2034 §4). Every character outside
    /// printable US-ASCII becomes `?`, so text that echoes a peer's input cannot inject a reply.
    pub fn encode(&self, out: &mut BytesMut) {
        encode::encode(self.code, self.enhanced, &self.lines, out);
    }
}

/// One line: `550 5.7.1 text`.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.code.fmt(f)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        for line in self.lines.iter().filter(|line| !line.is_empty()) {
            write!(f, " {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_one_line() {
        assert_eq!(Reply::new(550, (5, 7, 1), "refused").to_string(), "550 5.7.1 refused");
        assert_eq!(Reply::multiline(250, vec!["a".into(), String::new(), "b".into()]).to_string(), "250 a b");
    }

    #[test]
    fn predicates_follow_the_code() {
        let reply = |code| Reply::bare(code, "");
        assert!(reply(250).is_positive() && reply(354).is_positive());
        assert!(reply(250).is_completion() && !reply(354).is_completion());
        assert!(reply(450).is_transient() && reply(550).is_permanent());
        assert!(reply(421).closes_connection());
    }
}
