//! The two numbers of a reply: the reply code (RFC 5321 §4.2.1) and the enhanced status code (RFC 3463).

use std::fmt;
use std::str::FromStr;

/// A three-digit reply code from 200 to 599 (RFC 5321 §4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplyCode(u16);

/// What the first digit of a reply code says (RFC 5321 §4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// 2yz: done.
    PositiveCompletion,
    /// 3yz: go on.
    PositiveIntermediate,
    /// 4yz: not now; the same command may succeed later.
    TransientNegative,
    /// 5yz: not like this; the same command will fail again.
    PermanentNegative,
}

impl ReplyCode {
    /// The code, or `None` outside 200..=599.
    pub fn new(value: u16) -> Option<Self> {
        (200..=599).contains(&value).then_some(Self(value))
    }

    /// The number itself.
    pub fn value(self) -> u16 {
        self.0
    }

    /// What the first digit says.
    pub fn severity(self) -> Severity {
        match self.0 / 100 {
            2 => Severity::PositiveCompletion,
            3 => Severity::PositiveIntermediate,
            4 => Severity::TransientNegative,
            _ => Severity::PermanentNegative,
        }
    }
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An enhanced status code such as `5.7.1` (RFC 3463 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EnhancedStatusCode {
    /// 2 success, 4 persistent transient failure, 5 permanent failure.
    pub class: u8,
    /// The area: 1 addressing, 2 mailbox, 3 mail system, 4 network, 5 protocol, 6 content, 7 security or policy.
    pub subject: u16,
    /// The condition within the subject.
    pub detail: u16,
}

impl fmt::Display for EnhancedStatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl From<(u8, u16, u16)> for EnhancedStatusCode {
    fn from((class, subject, detail): (u8, u16, u16)) -> Self {
        Self { class, subject, detail }
    }
}

/// The text is no enhanced status code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an enhanced status code: expected class.subject.detail with class 2, 4 or 5, such as 5.7.1")]
pub struct ParseEnhancedStatusCodeError;

impl FromStr for EnhancedStatusCode {
    type Err = ParseEnhancedStatusCodeError;

    /// Parses `class.subject.detail`; class is 2, 4 or 5, the others one to three digits without a leading zero.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('.');
        let mut part = || parts.next().ok_or(ParseEnhancedStatusCodeError);
        let (class, subject, detail) = (part()?, number(part()?)?, number(part()?)?);
        let class = match class {
            "2" => 2,
            "4" => 4,
            "5" => 5,
            _ => return Err(ParseEnhancedStatusCodeError),
        };
        if parts.next().is_some() {
            return Err(ParseEnhancedStatusCodeError);
        }
        Ok(Self { class, subject, detail })
    }
}

fn number(digits: &str) -> Result<u16, ParseEnhancedStatusCodeError> {
    let leading_zero = digits.len() > 1 && digits.starts_with('0');
    if digits.is_empty() || digits.len() > 3 || leading_zero || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ParseEnhancedStatusCodeError);
    }
    digits.parse().map_err(|_| ParseEnhancedStatusCodeError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severity_follows_the_first_digit() {
        let check = |code, expected| assert_eq!(ReplyCode::new(code).unwrap().severity(), expected);
        check(250, Severity::PositiveCompletion);
        check(354, Severity::PositiveIntermediate);
        check(452, Severity::TransientNegative);
        check(554, Severity::PermanentNegative);
    }

    #[test]
    fn codes_outside_200_to_599_do_not_exist() {
        for code in [0, 99, 100, 199, 600, 1000, u16::MAX] {
            assert_eq!(ReplyCode::new(code), None, "{code}");
        }
    }

    #[test]
    fn enhanced_status_codes_parse_and_print_alike() {
        for text in ["2.0.0", "5.7.1", "4.4.2", "5.999.999", "5.1.10"] {
            assert_eq!(text.parse::<EnhancedStatusCode>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn malformed_enhanced_status_codes_are_refused() {
        for text in
            ["", "5", "5.7", "5.7.", "3.0.0", "5.7.1.1", "5.07.1", "5.7.1000", "5.+7.1", "05.7.1", "a.b.c"]
        {
            assert!(text.parse::<EnhancedStatusCode>().is_err(), "{text}");
        }
    }
}
