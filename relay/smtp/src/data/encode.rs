//! Content onto the wire: dots stuffed, never a bare CR or LF.

use bytes::{BufMut, BytesMut};
use memchr::memchr2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    LineStart,
    Text,
    Cr,
}

/// Writes the content of one message.
///
/// Content whose lines end with CRLF goes out octet for octet but for the stuffed dots. A bare LF or CR would let a
/// lenient server see another message end than this one means, so it never leaves: either is completed to CRLF
/// (RFC 5321 §2.3.8).
#[derive(Debug)]
pub struct ContentEncoder {
    position: Position,
    /// Whether a dot at the start of a line is doubled.
    stuffs: bool,
}

impl Default for ContentEncoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ContentEncoder {
    /// An encoder at the start of the content.
    pub fn new() -> Self {
        Self { position: Position::LineStart, stuffs: true }
    }

    /// An encoder for a chunk, whose octets are counted (RFC 3030 §2): dots stay as they are.
    pub fn without_transparency() -> Self {
        Self { position: Position::LineStart, stuffs: false }
    }

    /// Appends the next piece of the content to `out`.
    pub fn encode(&mut self, chunk: &[u8], out: &mut BytesMut) {
        out.reserve(chunk.len() + chunk.len() / 64);
        let mut rest = chunk;
        while let Some(first) = rest.first() {
            match (self.position, first) {
                (Position::Cr, b'\n') => {
                    rest = self.put(rest, 1, Position::LineStart, out);
                    continue;
                }
                (Position::Cr, _) => self.end_line(b"\n", out),
                _ => {}
            }
            match first {
                b'\n' => {
                    self.end_line(b"\r\n", out);
                    rest = &rest[1..];
                }
                b'\r' => rest = self.put(rest, 1, Position::Cr, out),
                _ => {
                    if self.stuffs && self.position == Position::LineStart && *first == b'.' {
                        out.put_u8(b'.');
                    }
                    let length = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
                    rest = self.put(rest, length, Position::Text, out);
                }
            }
        }
    }

    /// Appends the end: CRLF where the content does not end with one, a dot, CRLF.
    pub fn finish(self, out: &mut BytesMut) {
        self.end_last_line(out);
        out.put_slice(b".\r\n");
    }

    /// Appends what the last line lacks of its CRLF.
    pub fn end_last_line(&self, out: &mut BytesMut) {
        match self.position {
            Position::LineStart => {}
            Position::Text => out.put_slice(b"\r\n"),
            Position::Cr => out.put_u8(b'\n'),
        }
    }

    fn put<'a>(&mut self, rest: &'a [u8], length: usize, next: Position, out: &mut BytesMut) -> &'a [u8] {
        out.put_slice(&rest[..length]);
        self.position = next;
        &rest[length..]
    }

    fn end_line(&mut self, end: &[u8], out: &mut BytesMut) {
        out.put_slice(end);
        self.position = Position::LineStart;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(chunks: &[&str]) -> String {
        let (mut encoder, mut out) = (ContentEncoder::new(), BytesMut::new());
        chunks.iter().for_each(|chunk| encoder.encode(chunk.as_bytes(), &mut out));
        encoder.finish(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn dots_are_stuffed_and_the_end_is_added() {
        let check = |chunks: &[&str], expected: &str| assert_eq!(encode(chunks), expected, "{chunks:?}");
        check(&[], ".\r\n");
        check(&["a\r\n"], "a\r\n.\r\n");
        check(&["a"], "a\r\n.\r\n");
        check(&[".\r\n..\r\na.\r\n"], "..\r\n...\r\na.\r\n.\r\n");
        check(&["a\r", "\n", ".", "b\r\n"], "a\r\n..b\r\n.\r\n");
        check(&["a\r\n", "", ".\r", "\n"], "a\r\n..\r\n.\r\n");
    }

    #[test]
    fn in_a_chunk_dots_stay_as_they_are() {
        let (mut encoder, mut out) = (ContentEncoder::without_transparency(), BytesMut::new());
        [".\r\n..a\n", ".b"].iter().for_each(|chunk| encoder.encode(chunk.as_bytes(), &mut out));
        encoder.end_last_line(&mut out);
        assert_eq!(out, ".\r\n..a\r\n.b\r\n");
    }

    #[test]
    fn bare_line_ends_never_leave() {
        let check = |chunks: &[&str], expected: &str| assert_eq!(encode(chunks), expected, "{chunks:?}");
        check(&["a\n.\nb"], "a\r\n..\r\nb\r\n.\r\n");
        check(&["a\r.\r", "b"], "a\r\n..\r\nb\r\n.\r\n");
        check(&["a\r"], "a\r\n.\r\n");
        check(&["a\r", "\r\n"], "a\r\n\r\n.\r\n");
    }
}
