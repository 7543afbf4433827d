//! Service extensions: what a server offers in its EHLO reply (RFC 5321 §4.1.1.1, §2.2).
//!
//! Read by [`crate::client`]. What our own server offers is decided in [`crate::server`].

use crate::auth::Mechanism;
use crate::reply::Reply;

/// The extensions of a peer, out of its EHLO reply.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extensions {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// SIZE (RFC 1870): `None` not offered, `Some(0)` offered without a fixed limit, else the limit in octets.
    pub size: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhanced_status_codes: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// AUTH (RFC 4954): the mechanisms offered, in upper case, in the server's order.
    pub auth: Vec<String>,
}

impl Extensions {
    /// Reads the lines of a reply to EHLO; the first one is the server's greeting. Unknown extensions are passed over.
    pub fn from_ehlo(reply: &Reply) -> Self {
        let mut extensions = Self::default();
        for line in reply.lines.iter().skip(1) {
            extensions.add(line);
        }
        extensions
    }

    /// Whether the AUTH mechanism is offered.
    pub fn offers(&self, mechanism: Mechanism) -> bool {
        self.auth.iter().any(|offered| offered == mechanism.name())
    }

    fn add(&mut self, line: &str) {
        let line = line.to_ascii_uppercase();
        // "AUTH=LOGIN" is how servers offered it before RFC 2554; some still do, beside the standard line.
        let line = line.replacen("AUTH=", "AUTH ", 1);
        let mut words = line.split_ascii_whitespace();
        match words.next().unwrap_or_default() {
            "PIPELINING" => self.pipelining = true,
            "SIZE" => self.size = Some(words.next().and_then(|limit| limit.parse().ok()).unwrap_or(0)),
            "8BITMIME" => self.eight_bit_mime = true,
            "ENHANCEDSTATUSCODES" => self.enhanced_status_codes = true,
            "STARTTLS" => self.starttls = true,
            "DSN" => self.dsn = true,
            "CHUNKING" => self.chunking = true,
            "SMTPUTF8" => self.smtputf8 = true,
            "AUTH" => self.add_mechanisms(words),
            _ => {}
        }
    }

    fn add_mechanisms<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        for name in names {
            if !self.auth.iter().any(|known| known == name) {
                self.auth.push(name.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[&str]) -> Extensions {
        let lines =
            std::iter::once("mail.example.com").chain(lines.iter().copied()).map(str::to_owned).collect();
        Extensions::from_ehlo(&Reply::multiline(250, lines))
    }

    #[test]
    fn offered_extensions_are_known() {
        let found = parse(&[
            "pipelining",
            "SIZE 1000",
            "8BITMIME",
            "AUTH PLAIN LOGIN XOAUTH2",
            "AUTH=LOGIN",
            "XFOO bar",
        ]);
        assert!(found.pipelining && found.eight_bit_mime && !found.starttls && !found.dsn);
        assert_eq!(found.size, Some(1000));
        assert_eq!(found.auth, ["PLAIN", "LOGIN", "XOAUTH2"]);
        assert!(found.offers(Mechanism::Plain) && found.offers(Mechanism::Login));
    }

    #[test]
    fn size_without_a_number_is_no_limit() {
        assert_eq!(parse(&["SIZE"]).size, Some(0));
        assert_eq!(parse(&["SIZE many"]).size, Some(0));
        assert_eq!(parse(&[]).size, None);
    }

    #[test]
    fn the_greeting_line_offers_nothing() {
        let reply = Reply::multiline(250, vec!["STARTTLS".into()]);
        assert_eq!(Extensions::from_ehlo(&reply), Extensions::default());
    }
}
