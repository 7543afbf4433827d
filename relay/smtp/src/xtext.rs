//! `xtext`: how a text travels as the value of a parameter (RFC 3461 §4).
//!
//! Printable US-ASCII but `+` and `=` stands for itself, every other octet is `+` and two upper-case hexadecimal digits.
//! Used by AUTH= (RFC 4954 §5), ENVID= and ORCPT= (RFC 3461) on both sides.

use std::fmt::Write;

/// The text as xtext.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'+' | b'=' => push_hex(octet, &mut encoded),
            b'!'..=b'~' => encoded.push(char::from(octet)),
            _ => push_hex(octet, &mut encoded),
        }
    }
    encoded
}

fn push_hex(octet: u8, out: &mut String) {
    // Writing into a String cannot fail.
    let _ = write!(out, "+{octet:02X}");
}

/// The octets an xtext stands for; `None` where it is malformed. They may be any octets: check what they are used for.
pub fn decode(xtext: &str) -> Option<Vec<u8>> {
    let mut octets = xtext.bytes();
    let mut decoded = Vec::with_capacity(xtext.len());
    while let Some(octet) = octets.next() {
        decoded.push(match octet {
            b'+' => hex(octets.next()?)? << 4 | hex(octets.next()?)?,
            b'=' => return None,
            b'!'..=b'~' => octet,
            _ => return None,
        });
    }
    Some(decoded)
}

/// Lower-case digits are not allowed (RFC 3461 §4, `hexchar`).
fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_undoes_encoding() {
        let check = |text: &str, xtext: &str| {
            assert_eq!(encode(text), xtext);
            assert_eq!(decode(xtext).as_deref(), Some(text.as_bytes()));
        };
        check("", "");
        check("alice@example.com", "alice@example.com");
        check("a+b=c d", "a+2Bb+3Dc+20d");
        check("\r\n", "+0D+0A");
        check("ü", "+C3+BC");
    }

    #[test]
    fn malformed_xtext_is_refused() {
        for xtext in ["a=b", "+", "+2", "+2b", "+2G", "a b", "ü", "\r"] {
            assert_eq!(decode(xtext), None, "{xtext:?}");
        }
    }
}
