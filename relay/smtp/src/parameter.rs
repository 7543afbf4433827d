//! Parameters of MAIL: SIZE (RFC 1870), BODY (RFC 6152), AUTH (RFC 4954 §5), SMTPUTF8 (RFC 6531 §3.4), RET and ENVID
//! (RFC 3461 §4); of RCPT: NOTIFY and ORCPT (RFC 3461 §4); and the syntax all share (`esmtp-param`, RFC 5321 §4.1.2).
//!
//! Not here: whether a parameter is offered and allowed in the present state ([`crate::server`]).

use crate::dsn_parameter::{EnvelopeId, Notify, OriginalRecipient, Return};
use crate::xtext;
use std::str::FromStr;

/// The BODY parameter: what octets the content consists of (RFC 6152 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Body {
    /// `7BIT`: US-ASCII only. What holds without a parameter.
    #[default]
    SevenBit,
    /// `8BITMIME`: MIME content with octets above 127 in it.
    EightBitMime,
}

/// The parameters of a MAIL command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MailParameters {
    /// SIZE: the declared size in octets. A number beyond 64 bits is `u64::MAX`.
    pub size: Option<u64>,
    /// BODY.
    pub body: Option<Body>,
    /// Whether AUTH was given. Its value is checked for syntax and then counts as `AUTH=<>`: nobody here is trusted
    /// to speak for another submitter (RFC 4954 §5).
    pub auth: bool,
    /// SMTPUTF8: the envelope or the header section may be internationalised.
    pub smtputf8: bool,
    /// RET.
    pub ret: Option<Return>,
    /// ENVID.
    pub envelope_id: Option<EnvelopeId>,
}

/// The parameters of a RCPT command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecipientParameters {
    /// NOTIFY.
    pub notify: Option<Notify>,
    /// ORCPT.
    pub original_recipient: Option<OriginalRecipient>,
}

/// Why a list of parameters is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// Not `keyword` or `keyword=value`.
    #[error("parameter is malformed; expected KEYWORD=value")]
    Malformed,
    /// A known keyword with a value it cannot have.
    #[error("value of parameter {0} is not valid")]
    Value(&'static str),
    /// The same keyword twice.
    #[error("parameter {0} is given twice")]
    Duplicate(&'static str),
    /// A keyword that is not supported here.
    #[error("parameter {0} is not recognised or not implemented")]
    Unknown(String),
}

impl MailParameters {
    /// Parses what follows the reverse-path: parameters separated by spaces.
    ///
    /// # Errors
    /// At the first parameter that is malformed, repeated or unknown.
    pub fn parse(text: &str) -> Result<Self, ParameterError> {
        let mut parameters = Self::default();
        for word in words(text) {
            let (keyword, value) = split(word)?;
            match keyword.to_ascii_uppercase().as_str() {
                "SIZE" => set(&mut parameters.size, "SIZE", value.and_then(parse_size))?,
                "BODY" => set(&mut parameters.body, "BODY", value.and_then(parse_body))?,
                "AUTH" if parameters.auth => return Err(ParameterError::Duplicate("AUTH")),
                "AUTH" if value.is_some_and(|value| xtext::decode(value).is_some()) => parameters.auth = true,
                "AUTH" => return Err(ParameterError::Value("AUTH")),
                "SMTPUTF8" if parameters.smtputf8 => return Err(ParameterError::Duplicate("SMTPUTF8")),
                "SMTPUTF8" if value.is_none() => parameters.smtputf8 = true,
                "SMTPUTF8" => return Err(ParameterError::Value("SMTPUTF8")),
                "RET" => set(&mut parameters.ret, "RET", parsed(value))?,
                "ENVID" => set(&mut parameters.envelope_id, "ENVID", parsed(value))?,
                unknown => return Err(ParameterError::Unknown(unknown.to_owned())),
            }
        }
        Ok(parameters)
    }
}

impl RecipientParameters {
    /// Parses what follows the forward-path: parameters separated by spaces.
    ///
    /// # Errors
    /// At the first parameter that is malformed, repeated or unknown.
    pub fn parse(text: &str) -> Result<Self, ParameterError> {
        let mut parameters = Self::default();
        for word in words(text) {
            let (keyword, value) = split(word)?;
            match keyword.to_ascii_uppercase().as_str() {
                "NOTIFY" => set(&mut parameters.notify, "NOTIFY", parsed(value))?,
                "ORCPT" => set(&mut parameters.original_recipient, "ORCPT", parsed(value))?,
                unknown => return Err(ParameterError::Unknown(unknown.to_owned())),
            }
        }
        Ok(parameters)
    }
}

fn parsed<T: FromStr>(value: Option<&str>) -> Option<T> {
    value.and_then(|value| value.parse().ok())
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|word| !word.is_empty())
}

/// `esmtp-keyword ["=" esmtp-value]`
fn split(word: &str) -> Result<(&str, Option<&str>), ParameterError> {
    let (keyword, value) = match word.split_once('=') {
        Some((keyword, value)) => (keyword, Some(value)),
        None => (word, None),
    };
    let keyword_valid = keyword.starts_with(|c: char| c.is_ascii_alphanumeric())
        && keyword.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    // RFC 6531 §3.3 adds the characters above 127; whether they may be used is said elsewhere.
    let allowed = |c: char| matches!(c, '!'..='<' | '>'..='~') || (!c.is_ascii() && !c.is_control());
    let value_valid = value.is_none_or(|value| !value.is_empty() && value.chars().all(allowed));
    if keyword_valid && value_valid { Ok((keyword, value)) } else { Err(ParameterError::Malformed) }
}

fn set<T>(slot: &mut Option<T>, keyword: &'static str, value: Option<T>) -> Result<(), ParameterError> {
    let value = value.ok_or(ParameterError::Value(keyword))?;
    if slot.replace(value).is_some() { Err(ParameterError::Duplicate(keyword)) } else { Ok(()) }
}

/// `1*20DIGIT` (RFC 1870 §6).
fn parse_size(value: &str) -> Option<u64> {
    let valid = value.len() <= 20 && value.bytes().all(|b| b.is_ascii_digit());
    valid.then(|| value.parse().unwrap_or(u64::MAX))
}

fn parse_body(value: &str) -> Option<Body> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Some(Body::SevenBit),
        "8BITMIME" => Some(Body::EightBitMime),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_parameters_are_parsed() {
        let check = |text, size, body, auth| {
            let expected = MailParameters { size, body, auth, ..MailParameters::default() };
            assert_eq!(MailParameters::parse(text), Ok(expected), "{text}");
        };
        check("", None, None, false);
        check("  ", None, None, false);
        check("SIZE=0", Some(0), None, false);
        check("size=12345 body=8bitmime", Some(12345), Some(Body::EightBitMime), false);
        check("BODY=7BIT AUTH=<>", None, Some(Body::SevenBit), true);
        check("AUTH=e+3Dmc2@example.com", None, None, true);
        check("SIZE=99999999999999999999", Some(u64::MAX), None, false);
    }

    #[test]
    fn bad_mail_parameters_are_refused() {
        let check = |text, expected| assert_eq!(MailParameters::parse(text), Err(expected), "{text}");
        check("SIZE", ParameterError::Value("SIZE"));
        check("SIZE=", ParameterError::Malformed);
        check("SIZE=-1", ParameterError::Value("SIZE"));
        check("SIZE=+1", ParameterError::Value("SIZE"));
        check("SIZE=123456789012345678901", ParameterError::Value("SIZE"));
        check("SIZE=1 SIZE=1", ParameterError::Duplicate("SIZE"));
        check("BODY=BINARYMIME", ParameterError::Value("BODY"));
        check("AUTH=<> AUTH=<>", ParameterError::Duplicate("AUTH"));
        check("AUTH=a+3d", ParameterError::Value("AUTH"));
        check("SMTPUTF8=1", ParameterError::Value("SMTPUTF8"));
        check("SMTPUTF8 smtputf8", ParameterError::Duplicate("SMTPUTF8"));
        check("RET=ALL", ParameterError::Value("RET"));
        check("RET", ParameterError::Value("RET"));
        check("RET=FULL RET=FULL", ParameterError::Duplicate("RET"));
        check("ENVID=a+0D", ParameterError::Value("ENVID"));
        check("NOTIFY=NEVER", ParameterError::Unknown("NOTIFY".into()));
        check("=1", ParameterError::Malformed);
        check("-A=1", ParameterError::Malformed);
        check("A=\t", ParameterError::Malformed);
        check("A=b=c", ParameterError::Malformed);
    }

    #[test]
    fn internationalisation_and_notification_are_parsed() {
        let parameters = MailParameters::parse("SMTPUTF8 RET=hdrs ENVID=a+2Bb").unwrap();
        assert!(parameters.smtputf8 && parameters.ret == Some(Return::Headers));
        assert_eq!(parameters.envelope_id.unwrap().as_str(), "a+b");
    }

    #[test]
    fn rcpt_parameters_are_parsed() {
        assert_eq!(RecipientParameters::parse(" "), Ok(RecipientParameters::default()));
        let parameters = RecipientParameters::parse("notify=DELAY,failure ORCPT=rfc822;a@b.example").unwrap();
        assert_eq!(parameters.notify, Some(Notify { success: false, failure: true, delay: true }));
        assert_eq!(parameters.original_recipient.unwrap().address(), "a@b.example");
        let check = |text, expected| assert_eq!(RecipientParameters::parse(text), Err(expected), "{text}");
        check("NOTIFY=NEVER NOTIFY=NEVER", ParameterError::Duplicate("NOTIFY"));
        check("NOTIFY=NEVER,DELAY", ParameterError::Value("NOTIFY"));
        check("ORCPT=a@b.example", ParameterError::Value("ORCPT"));
        check("SIZE=1", ParameterError::Unknown("SIZE".into()));
    }
}
