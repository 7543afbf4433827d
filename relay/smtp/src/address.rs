//! Mailboxes and paths (RFC 5321 §4.1.2): parsed strictly, kept exactly as received.
//!
//! Internationalised addresses (RFC 6531 §3.3) parse too: UTF-8 in local parts and U-labels in domains, not normalised.
//! Whether they may be used is the caller's to say by [`Mailbox::is_ascii`]: only under the SMTPUTF8 parameter.
//!
//! A domain may hold underscores, which RFC 5321 §2.3.5 does not know: names such as `my_app.svc.example` are common
//! among the senders of applications, DNS carries them, and every widespread MTA takes them.
//! Lengths are those of RFC 5321 §4.5.3.1, in octets. Nothing here asks whether a mailbox exists.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Octets of a local part (RFC 5321 §4.5.3.1.1).
const LOCAL_PART_OCTETS: usize = 64;
/// Octets of a domain (RFC 5321 §4.5.3.1.2).
const DOMAIN_OCTETS: usize = 255;
/// Octets of a path with its angle brackets, without its source route (RFC 5321 §4.5.3.1.3).
const PATH_OCTETS: usize = 256;
/// Octets of one label of a domain (RFC 1035 §2.3.4).
const LABEL_OCTETS: usize = 63;

/// Why a text is no mailbox or path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AddressError {
    /// A character above 127 where the SMTPUTF8 parameter of MAIL was not given, or octets that are no UTF-8.
    #[error(
        "address contains a non-ASCII character; send it as UTF-8 with the SMTPUTF8 parameter, where it is offered"
    )]
    NonAscii,
    /// A path without `<` at its start and `>` at its end.
    #[error("path must be enclosed in < and >")]
    Brackets,
    /// A malformed source route (`@a,@b:`).
    #[error("source route is malformed")]
    SourceRoute,
    /// No `@domain`.
    #[error("address has no domain")]
    MissingDomain,
    /// The part before the `@` is neither a dot-string nor a quoted string.
    #[error("local part is malformed; special characters must be in a quoted string")]
    LocalPart,
    /// The part after the `@` is no domain name.
    #[error("domain is malformed")]
    Domain,
    /// The part after the `@` is in brackets and is neither `[IPv4]` nor `[IPv6:…]`.
    #[error("address literal is neither [IPv4] nor [IPv6:...]")]
    AddressLiteral,
    /// The null path `<>` as a recipient.
    #[error("recipient address is empty")]
    NullForwardPath,
    /// More than 64 octets before the `@`.
    #[error("local part is longer than {LOCAL_PART_OCTETS} octets")]
    LocalPartTooLong,
    /// More than 255 octets after the `@`.
    #[error("domain is longer than {DOMAIN_OCTETS} octets")]
    DomainTooLong,
    /// More than 256 octets in all, the angle brackets included.
    #[error("address is longer than {PATH_OCTETS} octets")]
    PathTooLong,
}

/// A mailbox: `local-part@domain` or `local-part@[address literal]`.
///
/// Equality is that of the text; [`domain_lowercase`](Self::domain_lowercase) serves comparisons of domains.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mailbox {
    text: String,
    at: usize,
}

impl Mailbox {
    /// The whole mailbox as received.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands before the `@`, with its quotes if it is quoted.
    pub fn local_part(&self) -> &str {
        &self.text[..self.at]
    }

    /// What stands after the `@`, an address literal with its brackets.
    pub fn domain(&self) -> &str {
        &self.text[self.at + 1..]
    }

    /// Whether the mailbox can be used without SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }

    /// The domain in lower case, for look-ups and comparisons. U-labels and A-labels are not made equal.
    pub fn domain_lowercase(&self) -> String {
        self.domain().to_ascii_lowercase()
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Mailbox {
    type Err = AddressError;

    /// Parses `local-part@domain` without angle brackets and source route.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let at = local_part_end(text)?;
        let domain = match text.as_bytes().get(at) {
            Some(b'@') => &text[at + 1..],
            Some(_) => return Err(AddressError::LocalPart),
            None => return Err(AddressError::MissingDomain),
        };
        check_domain(domain)?;
        if at > LOCAL_PART_OCTETS {
            return Err(AddressError::LocalPartTooLong);
        }
        if text.len() + "<>".len() > PATH_OCTETS {
            return Err(AddressError::PathTooLong);
        }
        Ok(Self { text: text.to_owned(), at })
    }
}

/// The reverse-path: where non-delivery is reported, or null (RFC 5321 §4.5.5).
///
/// `Display` and `FromStr` use the form with angle brackets: `<a@example.com>`, `<>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: never report anything back.
    Null,
    /// A mailbox.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// Whether this is `<>`.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Whether the path can be used without SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        self.as_str().is_ascii()
    }

    /// The mailbox, `None` for `<>`.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// The mailbox as text, empty for `<>`.
    pub fn as_str(&self) -> &str {
        self.mailbox().map_or("", Mailbox::as_str)
    }

    /// The local part, `None` for `<>`.
    pub fn local_part(&self) -> Option<&str> {
        self.mailbox().map(Mailbox::local_part)
    }

    /// The domain, `None` for `<>`.
    pub fn domain(&self) -> Option<&str> {
        self.mailbox().map(Mailbox::domain)
    }

    /// The domain in lower case, `None` for `<>`.
    pub fn domain_lowercase(&self) -> Option<String> {
        self.mailbox().map(Mailbox::domain_lowercase)
    }
}

impl From<Mailbox> for ReversePath {
    fn from(mailbox: Mailbox) -> Self {
        Self::Mailbox(mailbox)
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.as_str())
    }
}

impl FromStr for ReversePath {
    type Err = AddressError;

    /// Parses `<mailbox>` or `<>`; a source route is checked and dropped (RFC 5321 §3.6.1, appendix C).
    fn from_str(path: &str) -> Result<Self, AddressError> {
        match unbracketed(path)? {
            "" => Ok(Self::Null),
            inner => Ok(Self::Mailbox(without_source_route(inner)?.parse()?)),
        }
    }
}

/// A forward-path: one recipient.
///
/// `Display` and `FromStr` use the form with angle brackets: `<a@example.com>`, `<Postmaster>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ForwardPath {
    /// `<Postmaster>` in any case and without a domain: whoever looks after this server (RFC 5321 §4.5.1).
    Postmaster,
    /// A mailbox.
    Mailbox(Mailbox),
}

impl ForwardPath {
    /// Whether the path can be used without SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        self.as_str().is_ascii()
    }

    /// The mailbox, `None` for the bare `<Postmaster>`.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Postmaster => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// The path as text without angle brackets.
    pub fn as_str(&self) -> &str {
        self.mailbox().map_or("Postmaster", Mailbox::as_str)
    }

    /// What stands before the `@`.
    pub fn local_part(&self) -> &str {
        self.mailbox().map_or("Postmaster", Mailbox::local_part)
    }

    /// The domain, `None` for the bare `<Postmaster>`.
    pub fn domain(&self) -> Option<&str> {
        self.mailbox().map(Mailbox::domain)
    }

    /// The domain in lower case, `None` for the bare `<Postmaster>`.
    pub fn domain_lowercase(&self) -> Option<String> {
        self.mailbox().map(Mailbox::domain_lowercase)
    }
}

impl From<Mailbox> for ForwardPath {
    fn from(mailbox: Mailbox) -> Self {
        Self::Mailbox(mailbox)
    }
}

impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.as_str())
    }
}

impl FromStr for ForwardPath {
    type Err = AddressError;

    /// Parses `<mailbox>` or `<Postmaster>`; a source route is checked and dropped (RFC 5321 §3.6.1, appendix C).
    fn from_str(path: &str) -> Result<Self, AddressError> {
        match unbracketed(path)? {
            "" => Err(AddressError::NullForwardPath),
            inner if inner.eq_ignore_ascii_case("postmaster") => Ok(Self::Postmaster),
            inner => Ok(Self::Mailbox(without_source_route(inner)?.parse()?)),
        }
    }
}

fn unbracketed(path: &str) -> Result<&str, AddressError> {
    path.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).ok_or(AddressError::Brackets)
}

/// Drops `@one,@two:` from the front. No `:` can stand in a source route but the one that ends it.
fn without_source_route(inner: &str) -> Result<&str, AddressError> {
    if !inner.starts_with('@') {
        return Ok(inner);
    }
    let (route, mailbox) = inner.split_once(':').ok_or(AddressError::SourceRoute)?;
    let hop = |hop: &str| hop.strip_prefix('@').is_some_and(|domain| check_domain_name(domain).is_ok());
    if route.split(',').all(hop) { Ok(mailbox) } else { Err(AddressError::SourceRoute) }
}

/// Index of the first octet behind the local part.
fn local_part_end(text: &str) -> Result<usize, AddressError> {
    if text.starts_with('"') {
        return quoted_string_end(text);
    }
    let end = text.find(|c| !(is_atext(c) || c == '.')).unwrap_or(text.len());
    let atoms = text[..end].split('.').all(|atom| !atom.is_empty());
    if atoms { Ok(end) } else { Err(AddressError::LocalPart) }
}

fn quoted_string_end(text: &str) -> Result<usize, AddressError> {
    let mut characters = text.char_indices().skip(1);
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Ok(index + 1),
            '\\' if characters.next().is_some_and(|(_, quoted)| matches!(quoted, ' '..='~')) => {}
            '\\' => break,
            ' '..='~' => {}
            _ if is_utf8_non_ascii(character) => {}
            _ => break,
        }
    }
    Err(AddressError::LocalPart)
}

fn check_domain(domain: &str) -> Result<(), AddressError> {
    if domain.len() > DOMAIN_OCTETS {
        return Err(AddressError::DomainTooLong);
    }
    match domain.strip_prefix('[') {
        Some(rest) => check_address_literal(rest.strip_suffix(']').ok_or(AddressError::AddressLiteral)?),
        None => check_domain_name(domain),
    }
}

fn check_domain_name(domain: &str) -> Result<(), AddressError> {
    if domain.split('.').all(is_label) { Ok(()) } else { Err(AddressError::Domain) }
}

fn is_label(label: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '_' || is_u_label_character(c);
    label.len() <= LABEL_OCTETS
        && label.starts_with(inner)
        && label.ends_with(inner)
        && label.chars().all(|c| inner(c) || c == '-')
}

/// Not the full stops that IDNA maps to a dot: they would make one domain look like another.
fn is_u_label_character(character: char) -> bool {
    is_utf8_non_ascii(character) && !matches!(character, '\u{3002}' | '\u{ff0e}' | '\u{ff61}')
}

/// `UTF8-non-ascii` of RFC 6531 §3.3, but for controls, spaces and line separators, which belong in no address.
fn is_utf8_non_ascii(character: char) -> bool {
    !character.is_ascii() && !character.is_control() && !character.is_whitespace()
}

fn check_address_literal(literal: &str) -> Result<(), AddressError> {
    const TAG: &str = "IPv6:";
    let valid = match literal.get(..TAG.len()) {
        Some(tag) if tag.eq_ignore_ascii_case(TAG) => literal[TAG.len()..].parse::<Ipv6Addr>().is_ok(),
        _ => literal.parse::<Ipv4Addr>().is_ok(),
    };
    if valid { Ok(()) } else { Err(AddressError::AddressLiteral) }
}

/// `atext` of RFC 5322 §3.2.3 as extended by RFC 6531 §3.3.
fn is_atext(character: char) -> bool {
    character.is_ascii_alphanumeric()
        || "!#$%&'*+-/=?^_`{|}~".contains(character)
        || is_utf8_non_ascii(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mailboxes_are_kept_as_received() {
        let check = |text: &str, local_part, domain| {
            let mailbox: Mailbox = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((mailbox.local_part(), mailbox.domain()), (local_part, domain), "{text}");
            assert_eq!(mailbox.to_string(), text);
        };
        check("Alice@Example.COM", "Alice", "Example.COM");
        check("a.b+c/d=e@example.com", "a.b+c/d=e", "example.com");
        check("a@localhost", "a", "localhost");
        check("a@my_app.svc", "a", "my_app.svc");
        check("jürgen@exämple.com", "jürgen", "exämple.com");
        check("用户@例子.广告", "用户", "例子.广告");
        check("\"jürgen x\"@example.com", "\"jürgen x\"", "example.com");
        check("a@1.example", "a", "1.example");
        check(r#""a b@c"@example.com"#, r#""a b@c""#, "example.com");
        check(r#""a\"b>"@example.com"#, r#""a\"b>""#, "example.com");
        check(r#"""@example.com"#, r#""""#, "example.com");
        check("a@[192.0.2.1]", "a", "[192.0.2.1]");
        check("a@[IPv6:2001:db8::1]", "a", "[IPv6:2001:db8::1]");
    }

    #[test]
    fn malformed_mailboxes_say_why() {
        let check = |text: &str, expected| assert_eq!(text.parse::<Mailbox>(), Err(expected), "{text}");
        check("", AddressError::LocalPart);
        check("alice", AddressError::MissingDomain);
        check("@example.com", AddressError::LocalPart);
        check(".a@example.com", AddressError::LocalPart);
        check("a.@example.com", AddressError::LocalPart);
        check("a..b@example.com", AddressError::LocalPart);
        check("a b@example.com", AddressError::LocalPart);
        check("a,b@example.com", AddressError::LocalPart);
        check(r#""a@example.com"#, AddressError::LocalPart);
        check(r#""a"b@example.com"#, AddressError::LocalPart);
        check("\"a\r\n\"@example.com", AddressError::LocalPart);
        check("\"a\\\0\"@example.com", AddressError::LocalPart);
        check("a@", AddressError::Domain);
        check("a@.com", AddressError::Domain);
        check("a@example.com.", AddressError::Domain);
        check("a@exa mple.com", AddressError::Domain);
        check("a@example.com\r\n", AddressError::Domain);
        check("a@-example.com", AddressError::Domain);
        check("a@example-.com", AddressError::Domain);
        check("a@b@example.com", AddressError::Domain);
        check("a@[1.2.3]", AddressError::AddressLiteral);
        check("a@[1.2.3.4", AddressError::AddressLiteral);
        check("a@[2001:db8::1]", AddressError::AddressLiteral);
        check("a@[IPv6:1.2.3.4]", AddressError::AddressLiteral);
        check("a\u{85}b@example.com", AddressError::LocalPart);
        check("a\u{2028}b@example.com", AddressError::LocalPart);
        check("\"a\u{a0}\"@example.com", AddressError::LocalPart);
        check("a@example\u{3002}com", AddressError::Domain);
        check("a@exam\u{2003}ple.com", AddressError::Domain);
    }

    #[test]
    fn lengths_are_those_of_rfc_5321_4_5_3_1() {
        let domain = |octets: usize| {
            let labels = format!("{}.", "d".repeat(49)).repeat(6);
            format!("{}com", &labels[..octets - 3])
        };
        let check =
            |local, octets| format!("{}@{}", "l".repeat(local), domain(octets)).parse::<Mailbox>().err();
        assert_eq!(check(64, 104), None);
        assert_eq!(check(65, 104), Some(AddressError::LocalPartTooLong));
        assert_eq!(check(50, 203), None, "256 octets with its brackets");
        assert_eq!(check(50, 204), Some(AddressError::PathTooLong));
        assert_eq!(check(1, 256), Some(AddressError::DomainTooLong));
        assert_eq!(format!("a@{}.com", "d".repeat(64)).parse::<Mailbox>(), Err(AddressError::Domain));
    }

    #[test]
    fn reverse_paths_may_be_null() {
        let path: ReversePath = "<>".parse().unwrap();
        assert!(path.is_null() && path.domain().is_none() && path.to_string() == "<>");
        let path: ReversePath = "<a@Example.com>".parse().unwrap();
        assert_eq!(
            (path.as_str(), path.domain_lowercase().unwrap().as_str()),
            ("a@Example.com", "example.com")
        );
    }

    #[test]
    fn forward_paths_may_be_postmaster() {
        assert_eq!("<postMASTER>".parse(), Ok(ForwardPath::Postmaster));
        assert_eq!("<>".parse::<ForwardPath>(), Err(AddressError::NullForwardPath));
        assert_eq!("<alice>".parse::<ForwardPath>(), Err(AddressError::MissingDomain));
        assert_eq!("a@b".parse::<ForwardPath>(), Err(AddressError::Brackets));
    }

    #[test]
    fn source_routes_are_dropped() {
        let check = |text: &str, expected: Result<&str, AddressError>| {
            assert_eq!(
                text.parse().map(|path: ForwardPath| path.to_string()).as_deref(),
                expected.as_ref().copied(),
                "{text}"
            );
        };
        check("<@one.example,@two.example:a@b.example>", Ok("<a@b.example>"));
        check(r#"<@one.example:"x:y"@b.example>"#, Ok(r#"<"x:y"@b.example>"#));
        check("<@one.example>", Err(AddressError::SourceRoute));
        check("<@one.example,two.example:a@b.example>", Err(AddressError::SourceRoute));
        check("<@:a@b.example>", Err(AddressError::SourceRoute));
    }
}
