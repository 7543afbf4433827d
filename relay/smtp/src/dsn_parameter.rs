//! What a client asks about delivery status notifications: RET and ENVID of MAIL, NOTIFY and ORCPT of RCPT
//! (RFC 3461 §4, RFC 6533 §3 for internationalised original recipients).
//!
//! `FromStr` reads a parameter's value as it stands on the wire, `Display` writes it so; what is kept is decoded and
//! free of control characters, for it ends up in the header of a notification.

use crate::xtext;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Octets of an ENVID value, encoded (RFC 3461 §4.4).
const ENVELOPE_ID_OCTETS: usize = 100;
/// Octets of an ORCPT value, encoded (RFC 3461 §4.2).
const ORIGINAL_RECIPIENT_OCTETS: usize = 500;

/// The value is not one this parameter can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("value of a DSN parameter is malformed")]
pub struct DsnParameterError;

/// RET: how much of the message a notification of failure returns (RFC 3461 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Return {
    /// `FULL`: all of it.
    #[serde(rename = "FULL")]
    Full,
    /// `HDRS`: its header section.
    #[serde(rename = "HDRS")]
    Headers,
}

impl FromStr for Return {
    type Err = DsnParameterError;

    fn from_str(value: &str) -> Result<Self, DsnParameterError> {
        match value.to_ascii_uppercase().as_str() {
            "FULL" => Ok(Self::Full),
            "HDRS" => Ok(Self::Headers),
            _ => Err(DsnParameterError),
        }
    }
}

impl fmt::Display for Return {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        })
    }
}

/// ENVID: the sender's own name for this transaction (RFC 3461 §4.4). Printable US-ASCII and spaces, decoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EnvelopeId(String);

impl EnvelopeId {
    /// The identifier, decoded.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EnvelopeId {
    type Err = DsnParameterError;

    fn from_str(value: &str) -> Result<Self, DsnParameterError> {
        let short = value.len() <= ENVELOPE_ID_OCTETS;
        short.then(|| printable(value)).flatten().map(Self).ok_or(DsnParameterError)
    }
}

impl fmt::Display for EnvelopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&xtext::encode(&self.0))
    }
}

/// NOTIFY: the events a recipient's sender wants to hear of (RFC 3461 §4.1). None of the three is `NEVER`.
/// Serialised it names what is wanted, so `NEVER` is empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Notify {
    /// `SUCCESS`: delivered.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub success: bool,
    /// `FAILURE`: cannot be delivered.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub failure: bool,
    /// `DELAY`: not delivered yet.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub delay: bool,
}

impl Notify {
    /// `NEVER`: no notification of any kind.
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };
}

impl FromStr for Notify {
    type Err = DsnParameterError;

    fn from_str(value: &str) -> Result<Self, DsnParameterError> {
        if value.eq_ignore_ascii_case("NEVER") {
            return Ok(Self::NEVER);
        }
        let mut notify = Self::NEVER;
        for word in value.split(',') {
            let wanted = match word.to_ascii_uppercase().as_str() {
                "SUCCESS" => &mut notify.success,
                "FAILURE" => &mut notify.failure,
                "DELAY" => &mut notify.delay,
                _ => return Err(DsnParameterError),
            };
            *wanted = true;
        }
        Ok(notify)
    }
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NEVER {
            return f.write_str("NEVER");
        }
        let words = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        let wanted: Vec<&str> = words.iter().filter(|(wanted, _)| *wanted).map(|(_, word)| *word).collect();
        f.write_str(&wanted.join(","))
    }
}

/// ORCPT: the recipient as the sender first wrote it (RFC 3461 §4.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OriginalRecipient {
    address_type: String,
    address: String,
}

impl OriginalRecipient {
    /// What kind of address this is: `rfc822`, `utf-8` (RFC 6533) or another registered type, as received.
    pub fn address_type(&self) -> &str {
        &self.address_type
    }

    /// Whether the address is US-ASCII.
    pub fn is_ascii(&self) -> bool {
        self.address.is_ascii()
    }

    /// The address, decoded. US-ASCII unless the type is `utf-8`.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl FromStr for OriginalRecipient {
    type Err = DsnParameterError;

    fn from_str(value: &str) -> Result<Self, DsnParameterError> {
        if value.len() > ORIGINAL_RECIPIENT_OCTETS {
            return Err(DsnParameterError);
        }
        let (address_type, encoded) = value.split_once(';').ok_or(DsnParameterError)?;
        let atom = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if address_type.is_empty() || !address_type.bytes().all(atom) {
            return Err(DsnParameterError);
        }
        let address = if is_utf8(address_type) { decode_unitext(encoded) } else { printable(encoded) };
        let address = address.filter(|address| !address.is_empty()).ok_or(DsnParameterError)?;
        Ok(Self { address_type: address_type.to_owned(), address })
    }
}

/// Always US-ASCII, so that it may go to a server without SMTPUTF8 (RFC 6533 §3, `utf-8-addr-xtext`).
impl fmt::Display for OriginalRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoded = match is_utf8(&self.address_type) {
            true => encode_unitext(&self.address),
            false => xtext::encode(&self.address),
        };
        write!(f, "{};{encoded}", self.address_type)
    }
}

fn is_utf8(address_type: &str) -> bool {
    address_type.eq_ignore_ascii_case("utf-8")
}

/// An xtext that stands for printable US-ASCII and spaces.
fn printable(value: &str) -> Option<String> {
    let octets = xtext::decode(value)?;
    octets.iter().all(|b| matches!(b, b' '..=b'~')).then(|| String::from_utf8(octets).ok()).flatten()
}

/// `\x{HEX}` for what cannot stand for itself (RFC 6533 §3). Characters above 127 may stand for themselves too.
fn decode_unitext(encoded: &str) -> Option<String> {
    let mut decoded = String::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some(first) = rest.chars().next() {
        let character = if first == '\\' {
            let (digits, behind) = rest.strip_prefix("\\x{")?.split_once('}')?;
            rest = behind;
            escaped(digits)?
        } else {
            rest = &rest[first.len_utf8()..];
            Some(first).filter(|c| !matches!(c, '+' | '=' | ' '))?
        };
        decoded.push(Some(character).filter(|c| !c.is_control())?);
    }
    Some(decoded)
}

fn escaped(digits: &str) -> Option<char> {
    let valid =
        (2..=6).contains(&digits.len()) && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    valid.then(|| u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)).flatten()
}

fn encode_unitext(address: &str) -> String {
    let plain = |c: char| matches!(c, '!'..='~') && !matches!(c, '+' | '=' | '\\');
    address
        .chars()
        .map(|c| if plain(c) { c.to_string() } else { format!("\\x{{{:02X}}}", u32::from(c)) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_they_were_read() {
        for value in ["NEVER", "SUCCESS", "SUCCESS,FAILURE,DELAY", "FAILURE,DELAY"] {
            assert_eq!(value.parse::<Notify>().unwrap().to_string(), value);
        }
        for value in ["FULL", "HDRS"] {
            assert_eq!(value.parse::<Return>().unwrap().to_string(), value);
        }
        for value in ["rfc822;alice+2Bnews@example.com", "utf-8;j\\x{FC}rgen@example.com", "x400;/C+3DDE/"] {
            assert_eq!(value.parse::<OriginalRecipient>().unwrap().to_string(), value);
        }
        assert_eq!("QQ+2B314159".parse::<EnvelopeId>().unwrap().to_string(), "QQ+2B314159");
        assert_eq!("QQ+2B314159".parse::<EnvelopeId>().unwrap().as_str(), "QQ+314159");
    }

    #[test]
    fn internationalised_original_recipients_are_decoded_and_leave_in_ascii() {
        for value in ["utf-8;jürgen@example.com", "UTF-8;j\\x{FC}rgen@example.com"] {
            let recipient: OriginalRecipient = value.parse().unwrap();
            assert_eq!(recipient.address(), "jürgen@example.com");
            assert!(recipient.to_string().is_ascii());
        }
    }

    #[test]
    fn malformed_values_are_refused() {
        for value in ["", "NEVER,SUCCESS", "SUCCESS,", "ALWAYS", "SUCCESS FAILURE"] {
            assert!(value.parse::<Notify>().is_err(), "{value:?}");
        }
        let long = format!("rfc822;{}", "a".repeat(500));
        for value in [
            "",
            "rfc822",
            "rfc822;",
            ";a",
            "rfc 822;a",
            "rfc822;a=b",
            "rfc822;+0D+0ABcc:",
            "utf-8;a\\b",
            &long,
        ] {
            assert!(value.parse::<OriginalRecipient>().is_err(), "{value:?}");
        }
        for value in ["a=b", "a+0Ab", "+C3+BC", &"a".repeat(101)] {
            assert!(value.parse::<EnvelopeId>().is_err(), "{value:?}");
        }
        assert!("HEADERS".parse::<Return>().is_err());
    }
}
