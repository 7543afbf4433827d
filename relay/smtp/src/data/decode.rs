//! Content out of octets. Only CRLF.CRLF ends it, whatever else is wrong with it.

use super::fault::ContentFault;
use super::meter::{ContentLimits, Meter};
use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr3;

/// What a decoder found.
#[derive(Clone, PartialEq, Eq)]
pub enum Decoded {
    /// Content, unstuffed, never empty.
    Slice(Bytes),
    /// The content is refused; what follows up to its end is swallowed. At most once a message.
    Fault(ContentFault),
    /// The end of the content, or of the chunk, has been consumed.
    End,
}

/// What becomes of an LF without a CR before it, in content. A bare CR is always refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BareNewline {
    /// The message is refused.
    #[default]
    Reject,
    /// It becomes CRLF, for old clients. It still ends no content: `LF.CRLF` and `CRLF.LF` are a line with a dot in it,
    /// because only CRLF.CRLF is seen as the end by every server.
    Normalise,
}

/// Where in a line the next octet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// Behind a CRLF, or behind the CRLF of DATA.
    LineStart,
    /// Behind a bare LF that became CRLF.
    BareLineStart,
    /// Behind a dot at the start of a line, which is not part of the content.
    Dot,
    /// Behind that dot and a CR.
    DotCr,
    /// Behind a dot at the start of a line that begins behind a bare LF.
    BareDot,
    /// Behind that dot and a CR.
    BareDotCr,
    /// Within a line.
    Text,
    /// Behind a CR within a line.
    Cr,
}

/// Reads the content of one message. Holds no octets itself; a slice ends where the input does, at a stuffed dot or at a
/// bare LF that becomes CRLF.
#[derive(Debug)]
pub struct ContentDecoder {
    position: Position,
    line: u64,
    meter: Meter,
    bare_newline: BareNewline,
    swallowing: bool,
}

impl ContentDecoder {
    /// A decoder behind the CRLF of DATA.
    pub fn new(limits: ContentLimits, bare_newline: BareNewline) -> Self {
        Self {
            position: Position::LineStart,
            line: 1,
            meter: Meter::new(limits),
            bare_newline,
            swallowing: false,
        }
    }

    /// Consumes `input` up to the next finding, `None` when all of it is consumed and nothing is to be said.
    pub fn decode(&mut self, input: &mut BytesMut) -> Option<Decoded> {
        if self.swallowing {
            return self.swallow(input);
        }
        let mut at = 0;
        while let Some(octet) = input.get(at).copied() {
            match (self.position, octet) {
                (Position::LineStart | Position::BareLineStart, b'.') if at > 0 => break,
                (Position::LineStart, b'.') => self.drop_octet(input, Position::Dot),
                (Position::BareLineStart, b'.') => self.drop_octet(input, Position::BareDot),
                (Position::Dot, b'\r') => self.drop_octet(input, Position::DotCr),
                (Position::BareDot, b'\r') => self.drop_octet(input, Position::BareDotCr),
                (Position::DotCr, b'\n') => {
                    input.advance(1);
                    return Some(Decoded::End);
                }
                (Position::BareDotCr, b'\n') => {
                    return Some(self.replace(input, b".\r\n", Position::LineStart));
                }
                (Position::Cr, b'\n') => {
                    self.line += 1;
                    self.position = Position::LineStart;
                    at += 1;
                }
                (Position::DotCr | Position::BareDotCr | Position::Cr, _) => {
                    let fault = ContentFault::BareCarriageReturn { line: self.line };
                    return Some(self.fault_at(input, at, fault));
                }
                (_, b'\n') => return Some(self.bare_line_feed(input, at)),
                (_, 0) => return Some(self.fault_at(input, at, ContentFault::Nul { line: self.line })),
                (_, b'\r') => {
                    self.position = Position::Cr;
                    at += 1;
                }
                _ => {
                    self.position = Position::Text;
                    at = memchr3(b'\r', b'\n', 0, &input[at..]).map_or(input.len(), |found| at + found);
                }
            }
        }
        (at > 0).then(|| self.hand_out(input.split_to(at).freeze()))
    }

    fn drop_octet(&mut self, input: &mut BytesMut, next: Position) {
        input.advance(1);
        self.position = next;
    }

    /// What precedes the LF is handed out first; the next call then finds it again, at 0.
    fn bare_line_feed(&mut self, input: &mut BytesMut, at: usize) -> Decoded {
        match (self.bare_newline, self.position) {
            (BareNewline::Reject, _) => {
                self.fault_at(input, at, ContentFault::BareLineFeed { line: self.line })
            }
            (BareNewline::Normalise, _) if at > 0 => self.hand_out(input.split_to(at).freeze()),
            (BareNewline::Normalise, Position::Dot | Position::BareDot) => {
                self.replace(input, b".\r\n", Position::BareLineStart)
            }
            (BareNewline::Normalise, _) => self.replace(input, b"\r\n", Position::BareLineStart),
        }
    }

    /// Hands out `line_end` in place of the LF.
    fn replace(&mut self, input: &mut BytesMut, line_end: &'static [u8], next: Position) -> Decoded {
        self.drop_octet(input, next);
        self.line += 1;
        self.hand_out(Bytes::from_static(line_end))
    }

    /// What precedes the offending octet is handed out first; the next call then finds the octet again, at 0.
    fn fault_at(&mut self, input: &mut BytesMut, at: usize, fault: ContentFault) -> Decoded {
        if at > 0 {
            return self.hand_out(input.split_to(at).freeze());
        }
        self.swallowing = true;
        Decoded::Fault(fault)
    }

    fn hand_out(&mut self, slice: Bytes) -> Decoded {
        match self.meter.count(&slice) {
            Ok(()) => Decoded::Slice(slice),
            Err(fault) => {
                self.swallowing = true;
                Decoded::Fault(fault)
            }
        }
    }

    fn swallow(&mut self, input: &mut BytesMut) -> Option<Decoded> {
        for index in 0..input.len() {
            self.position = match (self.position, input[index]) {
                (Position::DotCr, b'\n') => {
                    input.advance(index + 1);
                    return Some(Decoded::End);
                }
                (Position::Cr | Position::BareDotCr, b'\n') => Position::LineStart,
                (Position::LineStart, b'.') => Position::Dot,
                (Position::Dot, b'\r') => Position::DotCr,
                (_, b'\r') => Position::Cr,
                _ => Position::Text,
            };
        }
        input.clear();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(message_bytes: u64) -> ContentLimits {
        ContentLimits { message_bytes, ..ContentLimits::default() }
    }

    /// Content, fault, whether the end was found, and what follows it.
    fn decode(input: &[u8], limit: u64) -> (String, Option<ContentFault>, bool, String) {
        decode_with(input, limit, BareNewline::Reject)
    }

    fn decode_with(
        input: &[u8],
        limit: u64,
        bare_newline: BareNewline,
    ) -> (String, Option<ContentFault>, bool, String) {
        let (mut decoder, mut input) =
            (ContentDecoder::new(limited(limit), bare_newline), BytesMut::from(input));
        let (mut content, mut fault, mut ended) = (Vec::new(), None, false);
        while !ended {
            match decoder.decode(&mut input) {
                Some(Decoded::Slice(slice)) => content.extend_from_slice(&slice),
                Some(Decoded::Fault(found)) => assert_eq!(fault.replace(found), None, "one fault a message"),
                Some(Decoded::End) => ended = true,
                None => break,
            }
        }
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        (text(&content), fault, ended, text(&input))
    }

    #[test]
    fn dots_are_unstuffed() {
        let check = |input: &str, content: &str| {
            let expected = (content.to_owned(), None, true, "QUIT".to_owned());
            assert_eq!(decode(format!("{input}.\r\nQUIT").as_bytes(), 0), expected, "{input:?}");
        };
        check("", "");
        check("\r\n", "\r\n");
        check("a\r\n", "a\r\n");
        check("..\r\n", ".\r\n");
        check("...\r\n", "..\r\n");
        check(".a\r\n", "a\r\n");
        check("a\r\n..b.c\r\n.\u{e4}\r\n", "a\r\n.b.c\r\n\u{e4}\r\n");
        check("a.\r\n", "a.\r\n");
    }

    #[test]
    fn only_crlf_dot_crlf_ends_content() {
        let bare_lf = |line| Some(ContentFault::BareLineFeed { line });
        let bare_cr = |line| Some(ContentFault::BareCarriageReturn { line });
        let check = |input: &str, fault| {
            let (_, found, ended, rest) = decode(format!("{input}x\r\n.\r\nQUIT").as_bytes(), 0);
            assert_eq!((found, ended, rest.as_str()), (fault, true, "QUIT"), "{input:?}");
        };
        check("a\n.\n", bare_lf(1));
        check("a\n.\r\n", bare_lf(1));
        check("a\r\n.\n", bare_lf(2));
        check(".\n", bare_lf(1));
        check("\n", bare_lf(1));
        check("a\r\n\n", bare_lf(2));
        check("a\r.\r\n", bare_cr(1));
        check("a\r\n.\r", bare_cr(2));
        check("a\r\n.\r.\r\n", bare_cr(2));
        check("a\r\r\n.\r\r\n", bare_cr(1));
        check("a\r\nb\r\nc\0", Some(ContentFault::Nul { line: 3 }));
        check("\0\n.\r\n", Some(ContentFault::Nul { line: 1 }));
    }

    #[test]
    fn content_over_the_limit_is_swallowed() {
        assert_eq!(decode(b"..345\r\n.\r\n", 6), (".345\r\n".into(), None, true, String::new()));
        let fault = Some(ContentFault::TooLarge { limit: 6 });
        assert_eq!(decode(b"12345\r\n.\r\nQUIT", 6), (String::new(), fault, true, "QUIT".into()));
        assert_eq!(decode(b"1234\r\n\nx\r\n.\r\nQUIT", 6).1, Some(ContentFault::BareLineFeed { line: 2 }));
        assert_eq!(decode(b"1234\r\n6\nx\r\n.\r\nQUIT", 6), (String::new(), fault, true, "QUIT".into()));
    }

    #[test]
    fn a_line_without_dots_is_handed_out_whole() {
        let content = format!("{}\r\n", "x".repeat(10_000)).repeat(3);
        let (mut decoder, mut input) =
            (ContentDecoder::new(limited(0), BareNewline::Reject), BytesMut::from(content.as_str()));
        assert!(decoder.decode(&mut input) == Some(Decoded::Slice(Bytes::from(content))));
        assert!(decoder.decode(&mut input).is_none());
    }

    #[test]
    fn a_bare_line_feed_is_normalised_and_ends_nothing() {
        let check = |input: &str, content: &str| {
            let expected = (content.to_owned(), None, true, "QUIT".to_owned());
            let input = format!("{input}.\r\nQUIT");
            assert_eq!(decode_with(input.as_bytes(), 0, BareNewline::Normalise), expected, "{input:?}");
        };
        check("a\nb\r\n", "a\r\nb\r\n");
        check("\n\n\r\n", "\r\n\r\n\r\n");
        check("a\n.\r\n", "a\r\n.\r\n");
        check("a\r\n.\nb\r\n", "a\r\n.\r\nb\r\n");
        check("a\n.\nb\r\n", "a\r\n.\r\nb\r\n");
        check(".\n.\n\r\n", ".\r\n.\r\n\r\n");
        check("a\n..b\n.c\r\n", "a\r\n.b\r\nc\r\n");
        let (_, fault, ended, _) = decode_with(b"a\n.\r.\r\n\r\n.\r\n", 0, BareNewline::Normalise);
        assert_eq!((fault, ended), (Some(ContentFault::BareCarriageReturn { line: 2 }), true));
    }
}
