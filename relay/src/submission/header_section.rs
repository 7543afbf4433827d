//! What submission changes in a message's header section (RFC 6409 §8): named fields go, a missing Date and Message-ID come,
//! Received fields are counted against loops (RFC 5321 §6.3).
//!
//! A filter: content in, content out, in slices of any size. It holds at most the beginning of one line; the body passes
//! untouched and uncopied. Pure: the fields to add are given to it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// The longest field name that is looked at. A longer one is kept and is none of those this filter knows.
const NAME_OCTETS: usize = 76;

/// What is done to header sections.
#[derive(Clone, Debug)]
pub struct HeaderRules {
    /// Names of fields to remove, in lower case.
    pub remove: Arc<[String]>,
    /// A whole `Date` field with its CRLF, for messages without one.
    pub date: String,
    /// A whole `Message-ID` field with its CRLF, for messages without one.
    pub message_id: String,
}

/// The filter for one message.
#[derive(Debug)]
pub struct HeaderSection {
    rules: HeaderRules,
    place: Place,
    /// The octets of the line's beginning, while they may still be a field's name.
    name: BytesMut,
    keeping: bool,
    fields: usize,
    received: usize,
    has_date: bool,
    has_message_id: bool,
}

/// Where in the message the next octet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    LineStart,
    Line,
    Body,
}

/// What the beginning of a line says.
enum Beginning {
    Continuation,
    Field(String),
    /// The empty line.
    End,
    /// A line that is no header field: the body begins here without an empty line.
    NoField,
    Incomplete,
}

impl HeaderSection {
    /// At the beginning of a message.
    #[must_use]
    pub fn new(rules: HeaderRules) -> Self {
        Self {
            rules,
            place: Place::LineStart,
            name: BytesMut::new(),
            keeping: true,
            fields: 0,
            received: 0,
            has_date: false,
            has_message_id: false,
        }
    }

    /// How many Received fields the message came with.
    #[must_use]
    pub fn received(&self) -> usize {
        self.received
    }

    /// The next octets of the message as they are to be kept.
    #[must_use]
    pub fn filter(&mut self, mut slice: Bytes) -> Bytes {
        if self.place == Place::Body {
            return slice;
        }
        let mut out = BytesMut::with_capacity(slice.len() + self.name.len());
        while !slice.is_empty() {
            match self.place {
                Place::Body => {
                    out.extend_from_slice(&slice);
                    break;
                }
                Place::Line => self.pass_line(&mut slice, &mut out),
                Place::LineStart => self.begin_line(&mut slice, &mut out),
            }
        }
        out.freeze()
    }

    /// What is still to be kept when the message is over.
    #[must_use]
    pub fn finish(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        if self.place != Place::Body {
            self.add_missing(&mut out);
            // Only a line that is no field can be held here: the content decoder ends every line with CRLF.
            out.extend_from_slice(&self.name.split());
            self.place = Place::Body;
        }
        out.freeze()
    }

    /// Up to the line's end.
    fn pass_line(&mut self, slice: &mut Bytes, out: &mut BytesMut) {
        let end = slice.iter().position(|&octet| octet == b'\n');
        let passed = slice.split_to(end.map_or(slice.len(), |at| at + 1));
        if self.keeping {
            out.extend_from_slice(&passed);
        }
        if end.is_some() {
            self.place = Place::LineStart;
        }
    }

    /// Takes octets until it is known what kind of line this is.
    fn begin_line(&mut self, slice: &mut Bytes, out: &mut BytesMut) {
        while !slice.is_empty() {
            self.name.extend_from_slice(&slice.split_to(1));
            match beginning(&self.name) {
                Beginning::Incomplete => continue,
                Beginning::Continuation if self.fields > 0 => self.place = Place::Line,
                Beginning::Field(name) => self.begin_field(&name),
                Beginning::End => {
                    self.add_missing(out);
                    self.place = Place::Body;
                    self.keeping = true;
                }
                Beginning::NoField | Beginning::Continuation => {
                    self.add_missing(out);
                    out.extend_from_slice(b"\r\n");
                    self.place = Place::Body;
                    self.keeping = true;
                }
            }
            let held = self.name.split();
            if self.keeping {
                out.extend_from_slice(&held);
            }
            return;
        }
    }

    fn begin_field(&mut self, name: &str) {
        self.place = Place::Line;
        self.fields += 1;
        self.keeping = !self.rules.remove.iter().any(|removed| removed == name);
        match name {
            "received" => self.received += 1,
            "date" if self.keeping => self.has_date = true,
            "message-id" if self.keeping => self.has_message_id = true,
            _ => {}
        }
    }

    fn add_missing(&mut self, out: &mut BytesMut) {
        if !std::mem::replace(&mut self.has_date, true) {
            out.extend_from_slice(self.rules.date.as_bytes());
        }
        if !std::mem::replace(&mut self.has_message_id, true) {
            out.extend_from_slice(self.rules.message_id.as_bytes());
        }
    }
}

/// RFC 5322 §2.2: `field-name ":"`; §4.5.8 lets white space stand before the colon.
fn beginning(line: &[u8]) -> Beginning {
    match line {
        [b' ' | b'\t', ..] => Beginning::Continuation,
        b"\r" => Beginning::Incomplete,
        b"\r\n" => Beginning::End,
        [b':', ..] => Beginning::NoField,
        [name @ .., b':'] => Beginning::Field(String::from_utf8_lossy(name).trim_end().to_ascii_lowercase()),
        [name @ .., last] => {
            let spaced = name.iter().any(|octet| matches!(octet, b' ' | b'\t'));
            match last {
                _ if line.len() > NAME_OCTETS && !spaced => Beginning::Field(String::new()),
                b' ' | b'\t' => Beginning::Incomplete,
                b'!'..=b'~' if !spaced => Beginning::Incomplete,
                _ => Beginning::NoField,
            }
        }
        [] => Beginning::Incomplete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn section() -> HeaderSection {
        HeaderSection::new(HeaderRules {
            remove: ["return-path".to_owned(), "x-internal".to_owned()].into(),
            date: "Date: D\r\n".into(),
            message_id: "Message-ID: M\r\n".into(),
        })
    }

    fn filtered(content: &[u8], cuts: &[usize]) -> (Vec<u8>, usize) {
        let (mut section, mut out, mut from) = (section(), Vec::new(), 0);
        for &cut in cuts.iter().chain([&content.len()]) {
            let cut = cut.clamp(from, content.len());
            out.extend_from_slice(&section.filter(Bytes::copy_from_slice(&content[from..cut])));
            from = cut;
        }
        out.extend_from_slice(&section.finish());
        (out, section.received())
    }

    fn check(content: &str, expected: &str) {
        assert_eq!(String::from_utf8(filtered(content.as_bytes(), &[]).0).unwrap(), expected, "{content:?}");
    }

    #[test]
    fn what_is_missing_comes_at_the_end_of_the_header_section() {
        check(
            "Subject: x\r\n\r\nDate: body\r\n",
            "Subject: x\r\nDate: D\r\nMessage-ID: M\r\n\r\nDate: body\r\n",
        );
        check("date : mine\r\nMESSAGE-ID: mine\r\n\r\n", "date : mine\r\nMESSAGE-ID: mine\r\n\r\n");
        check("Subject: no body\r\n", "Subject: no body\r\nDate: D\r\nMessage-ID: M\r\n");
        check("", "Date: D\r\nMessage-ID: M\r\n");
        check("\r\nbody\r\n", "Date: D\r\nMessage-ID: M\r\n\r\nbody\r\n");
    }

    #[test]
    fn named_fields_go_with_their_folded_lines() {
        check(
            "Return-Path: <x>\r\n\tfolded\r\nDate: d\r\nX-INTERNAL: 1\r\nMessage-ID: m\r\n\r\nReturn-Path: body\r\n",
            "Date: d\r\nMessage-ID: m\r\n\r\nReturn-Path: body\r\n",
        );
        check("X-Internal: 1\r\n\r\nb\r\n", "Date: D\r\nMessage-ID: M\r\n\r\nb\r\n");
    }

    #[test]
    fn a_body_without_an_empty_line_is_set_apart() {
        check("just text\r\nmore: text\r\n", "Date: D\r\nMessage-ID: M\r\n\r\njust text\r\nmore: text\r\n");
        check("Subject: x\r\ntext\r\n", "Subject: x\r\nDate: D\r\nMessage-ID: M\r\n\r\ntext\r\n");
        check("word\r\n", "Date: D\r\nMessage-ID: M\r\n\r\nword\r\n");
        check(": x\r\n", "Date: D\r\nMessage-ID: M\r\n\r\n: x\r\n");
        check(" folded\r\n", "Date: D\r\nMessage-ID: M\r\n\r\n folded\r\n");
    }

    #[test]
    fn received_fields_are_counted() {
        let content = "Received: a\r\n\tb\r\nreceived: c\r\nX-Received: d\r\n\r\nReceived: body\r\n";
        assert_eq!(filtered(content.as_bytes(), &[]).1, 2);
    }

    proptest! {
        #[test]
        fn any_split_of_the_content_gives_the_same(
            lines in proptest::collection::vec(
                prop_oneof![
                    Just("Received: a"), Just("Return-Path: <x>"), Just("\tfolded"), Just(""), Just("no field"),
                    Just("Date: x"), Just("Message-Id : x"), Just("text"), Just(":"), Just("a\u{e9}: b"),
                ],
                0..8,
            ),
            mut cuts in proptest::collection::vec(0usize..120, 0..10),
        ) {
            let content: String = lines.iter().flat_map(|line| [line, "\r\n"]).collect();
            cuts.sort_unstable();
            prop_assert_eq!(filtered(content.as_bytes(), &cuts), filtered(content.as_bytes(), &[]));
        }
    }
}
