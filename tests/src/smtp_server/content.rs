//! Content as it arrives: transparency undone, the end found (RFC 5321 §4.1.1.4, §4.5.2), or as chunks have it. Pure.
//!
//! Only CRLF ends a line and only CRLF "." CRLF ends the content. Octets are kept as they came, wrong line ends too; the
//! caller is told of those and holds them against the client.

use bytes::{Bytes, BytesMut};

/// Undoes transparency over input that comes in pieces.
#[derive(Default)]
pub(crate) struct ContentReader {
    content: BytesMut,
    /// How much of the unfinished line at the input's front has been searched already.
    searched: usize,
    bare_line_end: bool,
}

/// A content read to its end.
pub(crate) struct ReadContent {
    pub(crate) content: Bytes,
    /// Whether a CR or LF stood alone somewhere.
    pub(crate) bare_line_end: bool,
}

impl ReadContent {
    /// A content that came by BDAT, as it is (RFC 3030 §2).
    pub(crate) fn without_transparency(content: Bytes) -> Self {
        let line_ends = content.windows(2).filter(|pair| *pair == b"\r\n").count();
        let single = content.iter().filter(|octet| matches!(octet, b'\r' | b'\n')).count();
        Self { content, bare_line_end: single != 2 * line_ends }
    }
}

impl ContentReader {
    /// Takes whole lines from the front of `input`; the content once its end was found, what follows it staying in `input`.
    pub(crate) fn read(&mut self, input: &mut BytesMut) -> Option<ReadContent> {
        while let Some(length) = self.end_of_line(input) {
            let line = input.split_to(length + 2);
            let text = &line[..length];
            if text == b"." {
                let content = std::mem::take(&mut self.content).freeze();
                return Some(ReadContent { content, bare_line_end: self.bare_line_end });
            }
            self.bare_line_end |= text.iter().any(|octet| matches!(octet, b'\r' | b'\n'));
            self.content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
        None
    }

    fn end_of_line(&mut self, input: &[u8]) -> Option<usize> {
        let found = input[self.searched..].windows(2).position(|pair| pair == b"\r\n");
        let end = found.map(|at| self.searched + at);
        self.searched = if end.is_some() { 0 } else { input.len().saturating_sub(1) };
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `wire` in pieces of each size; the content and what was left over must not depend on the size.
    fn check(wire: &[u8], content: &[u8], left: &[u8], bare: bool) {
        for size in 1..=wire.len() {
            let (mut reader, mut input, mut done) = (ContentReader::default(), BytesMut::new(), None);
            for piece in wire.chunks(size) {
                input.extend_from_slice(piece);
                if done.is_none() {
                    done = reader.read(&mut input);
                }
            }
            let done = done.unwrap_or_else(|| panic!("no end was found in pieces of {size}"));
            assert_eq!(
                (&done.content[..], &input[..], done.bare_line_end),
                (content, left, bare),
                "pieces of {size}"
            );
        }
    }

    #[test]
    fn transparency_is_undone_however_the_input_is_split() {
        check(b"a\r\n..\r\n...b\r\n\r\n.\r\nQUIT\r\n", b"a\r\n.\r\n..b\r\n\r\n", b"QUIT\r\n", false);
    }

    #[test]
    fn a_chunk_is_kept_as_it_is_and_a_bare_line_end_in_it_is_told() {
        for (octets, bare) in [
            (&b"a\r\n.\r\n"[..], false),
            (b"\r\n\r\n", false),
            (b"a\nb\r\n", true),
            (b"\r\r\n\n", true),
            (b"", false),
        ] {
            let read = ReadContent::without_transparency(Bytes::copy_from_slice(octets));
            assert_eq!((&read.content[..], read.bare_line_end), (octets, bare));
        }
    }

    #[test]
    fn an_empty_content_ends_at_once() {
        check(b".\r\n", b"", b"", false);
    }

    #[test]
    fn a_bare_line_end_ends_nothing_and_is_told() {
        check(b"a\n.\nb\n.\r\nc\r\n.\r\n", b"a\n.\nb\n.\r\nc\r\n", b"", true);
        check(b"a\rb\r\n.\r\n", b"a\rb\r\n", b"", true);
    }
}
