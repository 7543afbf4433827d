//! Replies out of octets, bounded (RFC 5321 §4.2.1).
//!
//! Only CRLF ends a line: a bare LF in a text that echoes somebody's input cannot start a reply of its own.

use super::code::{EnhancedStatusCode, ReplyCode};
use super::types::Reply;
use bytes::BytesMut;

/// Longest reply line taken, without CRLF; RFC 5321 §4.5.3.1.5 asks for 512, servers send more.
const LINE_OCTETS: usize = 4096;
/// Most lines of one reply.
const REPLY_LINES: usize = 128;

/// What arrived is not an SMTP reply. The session is of no further use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line longer than 4096 octets.
    #[error("the server sent a reply line of more than {LINE_OCTETS} octets")]
    LineTooLong,
    /// A reply of more than 128 lines.
    #[error("the server sent a reply of more than {REPLY_LINES} lines")]
    TooManyLines,
    /// A line that does not begin with a reply code from 200 to 599 and a space, a hyphen or its end.
    #[error("the server sent a line that is not an SMTP reply: {0:?}")]
    Malformed(String),
    /// The lines of one reply carry different codes.
    #[error("the server changed the reply code from {0} to {1} within one reply")]
    CodeChanged(ReplyCode, ReplyCode),
}

/// Reads replies from octets that arrive in any pieces.
///
/// Memory is bounded by what is pushed between two calls of [`next`](Self::next) plus one reply of at most 128 lines
/// of 4096 octets.
#[derive(Debug, Default)]
pub struct ReplyReader {
    input: BytesMut,
    /// How much of `input` is known to hold no CRLF.
    scanned: usize,
    code: Option<ReplyCode>,
    lines: Vec<String>,
}

struct Line {
    code: ReplyCode,
    last: bool,
    text: String,
}

impl ReplyReader {
    /// A reader with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds octets the peer sent.
    pub fn push(&mut self, input: &[u8]) {
        self.input.extend_from_slice(input);
    }

    /// The next complete reply, `None` when more octets are needed.
    ///
    /// # Errors
    /// When the peer does not speak SMTP or exceeds a bound; what was buffered is dropped then.
    // Not an Iterator: it can go on after None, and it fails.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Reply>, ReplyError> {
        let result = self.read();
        if result.is_err() {
            *self = Self::default();
        }
        result
    }

    /// Octets and text held.
    pub fn buffered(&self) -> usize {
        self.input.len() + self.lines.iter().map(String::len).sum::<usize>()
    }

    fn read(&mut self) -> Result<Option<Reply>, ReplyError> {
        while let Some(line) = self.take_line()? {
            let line = parse_line(&line)?;
            if let Some(code) = self.code.filter(|code| *code != line.code) {
                return Err(ReplyError::CodeChanged(code, line.code));
            }
            if self.lines.len() == REPLY_LINES {
                return Err(ReplyError::TooManyLines);
            }
            self.code = Some(line.code);
            self.lines.push(line.text);
            if line.last {
                self.code = None;
                return Ok(Some(assemble(line.code, std::mem::take(&mut self.lines))));
            }
        }
        Ok(None)
    }

    fn take_line(&mut self) -> Result<Option<BytesMut>, ReplyError> {
        let found = self.input[self.scanned..].windows(2).position(|pair| pair == b"\r\n");
        let Some(end) = found.map(|at| self.scanned + at) else {
            // The last octet may be the CR of a CRLF to come.
            self.scanned = self.input.len().saturating_sub(1);
            return if self.scanned > LINE_OCTETS { Err(ReplyError::LineTooLong) } else { Ok(None) };
        };
        if end > LINE_OCTETS {
            return Err(ReplyError::LineTooLong);
        }
        self.scanned = 0;
        let mut line = self.input.split_to(end + 2);
        line.truncate(end);
        Ok(Some(line))
    }
}

fn parse_line(line: &[u8]) -> Result<Line, ReplyError> {
    let malformed = || ReplyError::Malformed(printable(&line[..line.len().min(80)]));
    let digits =
        line.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit)).ok_or_else(malformed)?;
    let value = digits.iter().fold(0, |value, digit| value * 10 + u16::from(digit - b'0'));
    let code = ReplyCode::new(value).ok_or_else(malformed)?;
    let last = match line.get(3) {
        None | Some(b' ') => true,
        Some(b'-') => false,
        Some(_) => return Err(malformed()),
    };
    Ok(Line { code, last, text: printable(line.get(4..).unwrap_or_default()) })
}

/// Text fit for logs: octets that are no UTF-8 become U+FFFD, control characters `?`.
fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Takes the enhanced status code off the lines. One whose class contradicts the reply code stays text.
fn assemble(code: ReplyCode, mut lines: Vec<String>) -> Reply {
    let enhanced = lines.first().and_then(|line| {
        let word = line.split(' ').next().unwrap_or_default();
        word.parse::<EnhancedStatusCode>().ok().filter(|found| u16::from(found.class) == code.value() / 100)
    });
    if let Some(enhanced) = enhanced {
        let prefix = enhanced.to_string();
        for line in &mut lines {
            match line.strip_prefix(&prefix) {
                Some("") => line.clear(),
                Some(rest) if rest.starts_with(' ') => *line = rest[1..].to_owned(),
                _ => {}
            }
        }
    }
    Reply { code, enhanced, lines }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8]) -> Result<Option<Reply>, ReplyError> {
        let mut reader = ReplyReader::new();
        reader.push(input);
        reader.next()
    }

    #[test]
    fn replies_are_read() {
        let check = |input: &str, expected: Reply| {
            assert_eq!(read(input.as_bytes()), Ok(Some(expected)), "{input:?}")
        };
        check("250 OK\r\n", Reply::bare(250, "OK"));
        check("250\r\n", Reply::bare(250, ""));
        check("250 \r\n", Reply::bare(250, ""));
        check("550 5.7.1 no\r\n", Reply::new(550, (5, 7, 1), "no"));
        check("550 5.7.1\r\n", Reply::new(550, (5, 7, 1), ""));
        check("550 5.7.10x no\r\n", Reply::bare(550, "5.7.10x no"));
        check("550 4.7.1 no\r\n", Reply::bare(550, "4.7.1 no"));
        check(
            "250-a\r\n250-\r\n250 b\r\n",
            Reply::multiline(250, vec!["a".into(), String::new(), "b".into()]),
        );
        let enhanced = Reply { lines: vec!["a".into(), "b".into()], ..Reply::new(550, (5, 1, 1), "") };
        check("550-5.1.1 a\r\n550 5.1.1 b\r\n", enhanced);
    }

    #[test]
    fn an_incomplete_reply_waits() {
        for input in ["", "2", "250 OK", "250 OK\r", "250-a\r\n", "250-a\r\n250"] {
            assert_eq!(read(input.as_bytes()), Ok(None), "{input:?}");
        }
    }

    #[test]
    fn a_bare_line_feed_starts_no_reply() {
        assert_eq!(read(b"550 no <a\n250 OK>\r\n"), Ok(Some(Reply::bare(550, "no <a?250 OK>"))));
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for input in ["hello\r\n", "\r\n", "25 x\r\n", "150 x\r\n", "650 x\r\n", "250_x\r\n", "2500 x\r\n"] {
            assert!(matches!(read(input.as_bytes()), Err(ReplyError::Malformed(_))), "{input:?}");
        }
        assert!(matches!(read(b"250-a\r\n550 b\r\n"), Err(ReplyError::CodeChanged(..))));
    }

    #[test]
    fn endless_replies_are_cut_off() {
        assert_eq!(read(&[b'2'; 5000]), Err(ReplyError::LineTooLong));
        let long = [b"250 ".to_vec(), vec![b'x'; 5000], b"\r\n".to_vec()].concat();
        assert_eq!(read(&long), Err(ReplyError::LineTooLong));
        assert_eq!(read(&b"250-x\r\n".repeat(200)), Err(ReplyError::TooManyLines));
    }
}
