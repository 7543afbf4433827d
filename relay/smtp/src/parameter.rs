//! Parameters of MAIL: SIZE (RFC 1870), BODY (RFC 6152), AUTH (RFC 4954 §5), and the syntax all parameters share
//! (`esmtp-param`, RFC 5321 §4.1.2). RCPT knows none yet.
//!
//! Not here: whether a parameter is allowed in the present state ([`crate::server`]).

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MailParameters {
    /// SIZE: the declared size in octets. A number beyond 64 bits is `u64::MAX`.
    pub size: Option<u64>,
    /// BODY.
    pub body: Option<Body>,
    /// Whether AUTH was given. Its value is checked for syntax and then counts as `AUTH=<>`: nobody here is trusted
    /// to speak for another submitter (RFC 4954 §5).
    pub auth: bool,
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
                "AUTH" if value.is_some_and(is_xtext) => parameters.auth = true,
                "AUTH" => return Err(ParameterError::Value("AUTH")),
                unknown => return Err(ParameterError::Unknown(unknown.to_owned())),
            }
        }
        Ok(parameters)
    }
}

/// Checks the parameters of RCPT: there are none that are known.
///
/// # Errors
/// At the first parameter.
pub fn no_parameters(text: &str) -> Result<(), ParameterError> {
    match words(text).next() {
        None => Ok(()),
        Some(word) => Err(ParameterError::Unknown(split(word)?.0.to_ascii_uppercase())),
    }
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
    let value_octet = |b: u8| matches!(b, b'!'..=b'<' | b'>'..=b'~');
    let value_valid = value.is_none_or(|value| !value.is_empty() && value.bytes().all(value_octet));
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

/// `xtext` (RFC 3461 §4): printable, `+` followed by two upper-case hexadecimal digits.
fn is_xtext(value: &str) -> bool {
    let mut octets = value.bytes();
    let hex = |octet: Option<u8>| matches!(octet, Some(b'0'..=b'9' | b'A'..=b'F'));
    while let Some(octet) = octets.next() {
        let valid = match octet {
            b'+' => hex(octets.next()) && hex(octets.next()),
            _ => matches!(octet, b'!'..=b'~'),
        };
        if !valid {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_parameters_are_parsed() {
        let check = |text, size, body, auth| {
            assert_eq!(MailParameters::parse(text), Ok(MailParameters { size, body, auth }), "{text}");
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
        check("SMTPUTF8", ParameterError::Unknown("SMTPUTF8".into()));
        check("RET=FULL", ParameterError::Unknown("RET".into()));
        check("=1", ParameterError::Malformed);
        check("-A=1", ParameterError::Malformed);
        check("A=\t", ParameterError::Malformed);
        check("A=b=c", ParameterError::Malformed);
    }

    #[test]
    fn rcpt_has_no_parameters() {
        assert_eq!(no_parameters(" "), Ok(()));
        assert_eq!(no_parameters("NOTIFY=NEVER"), Err(ParameterError::Unknown("NOTIFY".into())));
    }
}
