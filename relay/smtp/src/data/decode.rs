//! Content out of octets. Only CRLF.CRLF ends it, whatever else is wrong with it.

use crate::reply::Reply;
use bytes::{Buf, Bytes, BytesMut};

/// What the decoder found.
#[derive(Clone, PartialEq, Eq)]
pub enum Decoded {
    /// Content, unstuffed, never empty.
    Slice(Bytes),
    /// The content is refused; what follows up to its end is swallowed. At most once a message.
    Fault(ContentFault),
    /// The final dot and its CRLF have been consumed. The decoder is used up.
    End,
}

/// Why content is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ContentFault {
    /// A CR that no LF follows.
    #[error("bare CR at line {line} of the message; lines must end with CRLF")]
    BareCarriageReturn {
        /// Line of the message, from 1.
        line: u64,
    },
    /// An LF without a CR before it.
    #[error("bare LF at line {line} of the message; lines must end with CRLF")]
    BareLineFeed {
        /// Line of the message, from 1.
        line: u64,
    },
    /// A NUL octet (RFC 5322 §4 and RFC 6152 §3 forbid it).
    #[error("NUL octet at line {line} of the message")]
    Nul {
        /// Line of the message, from 1.
        line: u64,
    },
    /// More octets than the limit.
    #[error("Message is larger than the limit of {limit} octets")]
    TooLarge {
        /// The limit in octets.
        limit: u64,
    },
}

impl ContentFault {
    /// The reply at the end of such content.
    pub fn reply(&self) -> Reply {
        match self {
            Self::TooLarge { .. } => Reply::new(552, (5, 3, 4), self.to_string()),
            _ => Reply::new(550, (5, 6, 0), format!("Message refused: {self}")),
        }
    }
}

/// Where in a line the next octet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// Behind a CRLF, or behind the CRLF of DATA.
    LineStart,
    /// Behind a dot at the start of a line, which is not part of the content.
    Dot,
    /// Behind that dot and a CR.
    DotCr,
    /// Within a line.
    Text,
    /// Behind a CR within a line.
    Cr,
}

/// Reads the content of one message. Holds no octets itself; a slice ends where the input does or at a stuffed dot.
#[derive(Debug)]
pub struct ContentDecoder {
    position: Position,
    line: u64,
    /// Octets handed out.
    size: u64,
    limit: u64,
    /// Found, to be reported by the next call.
    pending: Option<ContentFault>,
    swallowing: bool,
}

impl ContentDecoder {
    /// A decoder behind the CRLF of DATA. `limit` is the largest size in octets, 0 for none.
    pub fn new(limit: u64) -> Self {
        let limit = if limit == 0 { u64::MAX } else { limit };
        Self { position: Position::LineStart, line: 1, size: 0, limit, pending: None, swallowing: false }
    }

    /// Consumes `input` up to the next finding, `None` when all of it is consumed and nothing is to be said.
    pub fn decode(&mut self, input: &mut BytesMut) -> Option<Decoded> {
        if let Some(fault) = self.pending.take() {
            return Some(Decoded::Fault(fault));
        }
        if self.swallowing {
            return self.swallow(input);
        }
        let mut at = 0;
        while let Some(octet) = input.get(at).copied() {
            match (self.position, octet) {
                (Position::LineStart, b'.') if at > 0 => break,
                (Position::LineStart, b'.') => self.drop_octet(input, Position::Dot),
                (Position::Dot, b'\r') => self.drop_octet(input, Position::DotCr),
                (Position::DotCr, b'\n') => {
                    input.advance(1);
                    return Some(Decoded::End);
                }
                (Position::Cr, b'\n') => {
                    self.line += 1;
                    self.position = Position::LineStart;
                    at += 1;
                }
                (Position::DotCr | Position::Cr, _) => {
                    return Some(self.fault_at(
                        input,
                        at,
                        ContentFault::BareCarriageReturn { line: self.line },
                    ));
                }
                (_, b'\n') => {
                    return Some(self.fault_at(input, at, ContentFault::BareLineFeed { line: self.line }));
                }
                (_, 0) => return Some(self.fault_at(input, at, ContentFault::Nul { line: self.line })),
                (_, b'\r') => {
                    self.position = Position::Cr;
                    at += 1;
                }
                _ => {
                    self.position = Position::Text;
                    at = find_special(input, at);
                }
            }
        }
        (at > 0).then(|| self.hand_out(input, at))
    }

    fn drop_octet(&mut self, input: &mut BytesMut, next: Position) {
        input.advance(1);
        self.position = next;
    }

    /// What precedes the offending octet is handed out first; the next call then finds the octet again, at 0.
    fn fault_at(&mut self, input: &mut BytesMut, at: usize, fault: ContentFault) -> Decoded {
        if at > 0 {
            return self.hand_out(input, at);
        }
        self.swallowing = true;
        Decoded::Fault(fault)
    }

    fn hand_out(&mut self, input: &mut BytesMut, length: usize) -> Decoded {
        let mut slice = input.split_to(length).freeze();
        let room = self.limit - self.size;
        if slice.len() as u64 <= room {
            self.size += slice.len() as u64;
            return Decoded::Slice(slice);
        }
        self.swallowing = true;
        let fault = ContentFault::TooLarge { limit: self.limit };
        if room == 0 {
            return Decoded::Fault(fault);
        }
        self.pending = Some(fault);
        slice.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        self.size = self.limit;
        Decoded::Slice(slice)
    }

    fn swallow(&mut self, input: &mut BytesMut) -> Option<Decoded> {
        for index in 0..input.len() {
            self.position = match (self.position, input[index]) {
                (Position::DotCr, b'\n') => {
                    input.advance(index + 1);
                    return Some(Decoded::End);
                }
                (Position::Cr, b'\n') => Position::LineStart,
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

/// Index of the first CR, LF or NUL from `from` on, or the length.
fn find_special(input: &[u8], from: usize) -> usize {
    // Whole blocks without a branch per octet, which the compiler turns into vector instructions.
    const BLOCK: usize = 64;
    let special = |b: u8| (b == b'\r') | (b == b'\n') | (b == 0);
    let mut at = from;
    while let Some(block) = input.get(at..at + BLOCK) {
        if block.iter().fold(false, |found, b| found | special(*b)) {
            break;
        }
        at += BLOCK;
    }
    input[at..].iter().position(|b| special(*b)).map_or(input.len(), |found| at + found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Content, fault, whether the end was found, and what follows it.
    fn decode(input: &[u8], limit: u64) -> (String, Option<ContentFault>, bool, String) {
        let (mut decoder, mut input) = (ContentDecoder::new(limit), BytesMut::from(input));
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
        assert_eq!(decode(b"12345\r\n.\r\nQUIT", 6), ("12345\r".into(), fault, true, "QUIT".into()));
        assert_eq!(decode(b"1234\r\n\nx\r\n.\r\nQUIT", 6).1, Some(ContentFault::BareLineFeed { line: 2 }));
        assert_eq!(decode(b"1234\r\n6\nx\r\n.\r\nQUIT", 6), ("1234\r\n".into(), fault, true, "QUIT".into()));
    }

    #[test]
    fn a_line_without_dots_is_handed_out_whole() {
        let content = format!("{}\r\n", "x".repeat(10_000)).repeat(3);
        let (mut decoder, mut input) = (ContentDecoder::new(0), BytesMut::from(content.as_str()));
        assert!(decoder.decode(&mut input) == Some(Decoded::Slice(Bytes::from(content))));
        assert!(decoder.decode(&mut input).is_none());
    }

    #[test]
    fn special_octets_are_found_wherever_they_stand() {
        for length in [0, 1, 63, 64, 65, 200] {
            let mut text = vec![b'x'; length];
            assert_eq!(find_special(&text, 0), length);
            for octet in [b'\r', b'\n', 0] {
                text.push(octet);
                assert_eq!(find_special(&text, 0), length);
                text.pop();
            }
        }
    }
}
