//! Content out of BDAT chunks (RFC 3030). Their octets are counted, so nothing is unstuffed and no line ends them; yet what
//! is in them is text like any other, because BINARYMIME is not offered: lines end with CRLF, or the message is refused.

use super::decode::{BareNewline, Decoded};
use super::fault::ContentFault;
use super::meter::{ContentLimits, Meter};
use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr3;

/// Where in a line the next octet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    LineStart,
    Text,
    Cr,
}

/// Reads the content of one message out of its chunks. A CRLF may be cut by the end of a chunk. Holds no octets itself.
#[derive(Debug)]
pub struct ChunkDecoder {
    position: Position,
    line: u64,
    meter: Meter,
    bare_newline: BareNewline,
    /// Octets of the present chunk that have not come yet.
    remaining: u64,
    swallowing: bool,
}

impl ChunkDecoder {
    /// A decoder before the first chunk.
    pub fn new(limits: ContentLimits, bare_newline: BareNewline) -> Self {
        Self {
            position: Position::LineStart,
            line: 1,
            meter: Meter::new(limits),
            bare_newline,
            remaining: 0,
            swallowing: false,
        }
    }

    /// A chunk of this many octets follows.
    pub fn begin(&mut self, octets: u64) {
        self.remaining = octets;
    }

    /// Octets of content so far.
    pub fn octets(&self) -> u64 {
        self.meter.octets()
    }

    /// Consumes `input` up to the next finding, at most to the end of the chunk; `None` when more octets are needed.
    pub fn decode(&mut self, input: &mut BytesMut) -> Option<Decoded> {
        if self.remaining == 0 {
            return Some(Decoded::End);
        }
        let here = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(input.len());
        if self.swallowing {
            drop(self.consume(input, here));
            return (self.remaining == 0).then_some(Decoded::End);
        }
        let mut at = 0;
        while at < here {
            match (self.position, input[at]) {
                (Position::Cr, b'\n') => {
                    self.line += 1;
                    self.position = Position::LineStart;
                    at += 1;
                }
                (Position::Cr, _) => {
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
                    at = memchr3(b'\r', b'\n', 0, &input[at..here]).map_or(here, |found| at + found);
                }
            }
        }
        (at > 0).then(|| self.hand_out(input, at))
    }

    /// The last chunk is over. Gives what completes the last line, which need not end with CRLF.
    ///
    /// # Errors
    /// When the content ends with a bare CR.
    pub fn finish(&self) -> Result<Option<Bytes>, ContentFault> {
        match self.position {
            Position::LineStart => Ok(None),
            Position::Text => Ok(Some(Bytes::from_static(b"\r\n"))),
            Position::Cr => Err(ContentFault::BareCarriageReturn { line: self.line }),
        }
    }

    fn consume(&mut self, input: &mut BytesMut, octets: usize) -> Bytes {
        self.remaining -= octets as u64;
        input.split_to(octets).freeze()
    }

    fn bare_line_feed(&mut self, input: &mut BytesMut, at: usize) -> Decoded {
        if self.bare_newline == BareNewline::Reject {
            return self.fault_at(input, at, ContentFault::BareLineFeed { line: self.line });
        }
        if at > 0 {
            return self.hand_out(input, at);
        }
        input.advance(1);
        self.remaining -= 1;
        self.line += 1;
        self.position = Position::LineStart;
        self.counted(Bytes::from_static(b"\r\n"))
    }

    /// What precedes the offending octet is handed out first; the next call then finds the octet again, at 0.
    fn fault_at(&mut self, input: &mut BytesMut, at: usize, fault: ContentFault) -> Decoded {
        if at > 0 {
            return self.hand_out(input, at);
        }
        self.swallowing = true;
        Decoded::Fault(fault)
    }

    fn hand_out(&mut self, input: &mut BytesMut, octets: usize) -> Decoded {
        let slice = self.consume(input, octets);
        self.counted(slice)
    }

    fn counted(&mut self, slice: Bytes) -> Decoded {
        match self.meter.count(&slice) {
            Ok(()) => Decoded::Slice(slice),
            Err(fault) => {
                self.swallowing = true;
                Decoded::Fault(fault)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Content and fault of these chunks, and what follows them.
    fn decode(chunks: &[&str], bare_newline: BareNewline) -> (String, Option<ContentFault>) {
        let mut decoder =
            ChunkDecoder::new(ContentLimits { message_bytes: 20, ..ContentLimits::default() }, bare_newline);
        let (mut content, mut fault) = (Vec::new(), None);
        for chunk in chunks {
            let mut input = BytesMut::from(format!("{chunk}QUIT\r\n").as_str());
            decoder.begin(chunk.len() as u64);
            loop {
                match decoder.decode(&mut input) {
                    Some(Decoded::Slice(slice)) => content.extend_from_slice(&slice),
                    Some(Decoded::Fault(found)) => {
                        assert_eq!(fault.replace(found), None, "one fault a message")
                    }
                    Some(Decoded::End) => break,
                    None => panic!("the chunk is there"),
                }
            }
            assert_eq!(&input[..], b"QUIT\r\n", "not an octet more than the chunk");
        }
        match decoder.finish() {
            Ok(end) => content.extend_from_slice(&end.unwrap_or_default()),
            Err(found) => fault = fault.or(Some(found)),
        }
        (String::from_utf8(content).unwrap(), fault)
    }

    #[test]
    fn chunks_are_counted_not_read_for_dots() {
        let check = |chunks: &[&str], content: &str| {
            assert_eq!(decode(chunks, BareNewline::Reject), (content.to_owned(), None), "{chunks:?}");
        };
        check(&[""], "");
        check(&[".\r\n..\r\n", ".\r\n"], ".\r\n..\r\n.\r\n");
        check(&["a\r", "\nb"], "a\r\nb\r\n");
        check(&["a", "", "b\r\n"], "ab\r\n");
    }

    #[test]
    fn what_is_no_text_of_crlf_lines_is_refused() {
        let check = |chunks: &[&str], fault| {
            assert_eq!(decode(chunks, BareNewline::Reject).1, Some(fault), "{chunks:?}")
        };
        check(&["a\n.\r\n", "b"], ContentFault::BareLineFeed { line: 1 });
        check(&["a\r\n.\r", "b"], ContentFault::BareCarriageReturn { line: 2 });
        check(&["a\r"], ContentFault::BareCarriageReturn { line: 1 });
        check(&["a", "\0"], ContentFault::Nul { line: 1 });
        check(&["0123456789", "0123456789a", "b"], ContentFault::TooLarge { limit: 20 });
    }

    #[test]
    fn a_bare_line_feed_is_normalised() {
        assert_eq!(
            decode(&["a\n.\n", "\nb"], BareNewline::Normalise),
            ("a\r\n.\r\n\r\nb\r\n".to_owned(), None)
        );
    }
}
