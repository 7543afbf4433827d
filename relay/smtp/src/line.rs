//! Command lines out of octets: strict CRLF, bounded memory (RFC 5321 §2.3.8, §4.5.3.1.4).
//!
//! Not here: content ([`crate::data`]), replies ([`crate::reply`]). Called by the server session.

use crate::command::AUTH_LINE_OCTETS;
use bytes::BytesMut;

/// The longest line any command may have, without its CRLF.
const LONGEST: usize = AUTH_LINE_OCTETS - 2;

/// What a CRLF, or an LF without its CR, completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A line, without its CRLF.
    Complete(BytesMut),
    /// A line longer than any command may be; its octets are gone.
    TooLong,
    /// A line with a CR inside that no LF follows; its octets are gone.
    BareCarriageReturn,
    /// An LF without a CR before it. Where the next command begins is now a matter of opinion: do not read on.
    BareLineFeed,
}

/// Cuts lines. Keeps at most 12,288 octets of an endless line.
#[derive(Debug, Default)]
pub struct LineReader {
    /// How much of the input is known to hold no LF.
    scanned: usize,
    /// Octets of the present line have been dropped because there were too many.
    overflow: bool,
    /// The last octet dropped was a CR.
    dropped_cr: bool,
}

impl LineReader {
    /// A reader at the beginning of a line.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next line off `input`, `None` when more octets are needed. `input` may only grow between two calls.
    pub fn take(&mut self, input: &mut BytesMut) -> Option<Line> {
        match memchr::memchr(b'\n', &input[self.scanned..]) {
            Some(at) => Some(self.complete(input, self.scanned + at)),
            None => {
                self.bound(input);
                None
            }
        }
    }

    fn complete(&mut self, input: &mut BytesMut, line_feed: usize) -> Line {
        let mut line = input.split_to(line_feed + 1);
        line.truncate(line_feed);
        let Self { overflow, dropped_cr, .. } = std::mem::take(self);
        let ends_with_cr = line.last().map_or(dropped_cr, |last| *last == b'\r');
        if !ends_with_cr {
            return Line::BareLineFeed;
        }
        line.truncate(line.len().saturating_sub(1));
        if overflow || line.len() > LONGEST {
            Line::TooLong
        } else if line.contains(&b'\r') {
            Line::BareCarriageReturn
        } else {
            Line::Complete(line)
        }
    }

    fn bound(&mut self, input: &mut BytesMut) {
        self.scanned = input.len();
        // One more octet may be the CR of the CRLF to come.
        if input.len() > LONGEST + 1 {
            self.overflow = true;
            self.dropped_cr = input.last() == Some(&b'\r');
            self.scanned = 0;
            input.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8]) -> Vec<Line> {
        let (mut reader, mut input) = (LineReader::new(), BytesMut::from(input));
        std::iter::from_fn(|| reader.take(&mut input)).collect()
    }

    fn complete(text: &str) -> Line {
        Line::Complete(BytesMut::from(text))
    }

    #[test]
    fn only_crlf_ends_a_line() {
        assert_eq!(lines(b"NOOP\r\n\r\nQUIT\r\nrest"), [complete("NOOP"), complete(""), complete("QUIT")]);
        assert_eq!(lines(b"NOOP\n"), [Line::BareLineFeed]);
        assert_eq!(lines(b"\n"), [Line::BareLineFeed]);
        assert_eq!(lines(b"NO\rOP\r\n"), [Line::BareCarriageReturn]);
        assert_eq!(lines(b"NOOP\r\r\n"), [Line::BareCarriageReturn]);
    }

    #[test]
    fn an_endless_line_is_swallowed_in_bounded_memory() {
        let (mut reader, mut input) = (LineReader::new(), BytesMut::new());
        for _ in 0..1000 {
            input.extend_from_slice(&[b'x'; 1000]);
            assert_eq!(reader.take(&mut input), None);
            assert!(input.len() <= AUTH_LINE_OCTETS, "{} octets held", input.len());
        }
        input.extend_from_slice(b"\r\nNOOP\r\n");
        assert_eq!(reader.take(&mut input), Some(Line::TooLong));
        assert_eq!(reader.take(&mut input), Some(complete("NOOP")));
    }

    #[test]
    fn a_cr_dropped_with_its_line_still_makes_a_crlf() {
        let (mut reader, mut input) = (LineReader::new(), BytesMut::from(&[b'x'; LONGEST + 1][..]));
        input.extend_from_slice(b"\r");
        assert_eq!(reader.take(&mut input), None);
        assert_eq!(input.len(), 0);
        input.extend_from_slice(b"\n");
        assert_eq!(reader.take(&mut input), Some(Line::TooLong));
    }

    #[test]
    fn the_longest_line_passes_whole() {
        let mut text = vec![b'x'; LONGEST];
        text.extend_from_slice(b"\r\n");
        assert!(matches!(lines(&text)[..], [Line::Complete(ref line)] if line.len() == LONGEST));
        text.insert(0, b'x');
        assert_eq!(lines(&text), [Line::TooLong]);
    }
}
