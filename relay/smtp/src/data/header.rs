//! Where the header section ends, how large it is and how many fields it has (RFC 5322 §2.2). Looks at no octet of the body.

use memchr::memchr;

/// Where in the header section the next octet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    LineStart,
    /// Within what may be the name of a field.
    Name,
    /// Behind the colon, or in a continuation line.
    Value,
    /// Behind the header section.
    Body,
}

/// Follows a header section through slices of content.
///
/// The section ends at an empty line, or at the first line that is neither a field nor the continuation of one.
#[derive(Debug)]
pub(super) struct HeaderScanner {
    position: Position,
    pub(super) octets: u64,
    pub(super) fields: u32,
}

impl HeaderScanner {
    pub(super) fn new() -> Self {
        Self { position: Position::LineStart, octets: 0, fields: 0 }
    }

    /// Whether the section is over: nothing will change any more.
    pub(super) fn is_over(&self) -> bool {
        self.position == Position::Body
    }

    /// Takes the next slice of content.
    pub(super) fn scan(&mut self, slice: &[u8]) {
        let mut at = 0;
        while self.position != Position::Body
            && let Some(octet) = slice.get(at)
        {
            at = match (self.position, octet) {
                (Position::Value, _) => match memchr(b'\n', &slice[at..]) {
                    Some(length) => self.go(Position::LineStart, at + length + 1),
                    None => slice.len(),
                },
                (Position::LineStart, b' ' | b'\t') if self.fields > 0 => self.go(Position::Value, at + 1),
                (Position::Name, b':') => {
                    self.fields += 1;
                    self.go(Position::Value, at + 1)
                }
                (Position::LineStart, b':') | (_, ..=b' ' | 127..) => self.go(Position::Body, at + 1),
                _ => self.go(Position::Name, at + 1),
            };
        }
        self.octets += at as u64;
    }

    fn go(&mut self, position: Position, at: usize) -> usize {
        self.position = position;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_ends_where_no_field_follows() {
        let check = |content: &str, octets, fields, over| {
            let mut whole = HeaderScanner::new();
            whole.scan(content.as_bytes());
            assert_eq!((whole.octets, whole.fields, whole.is_over()), (octets, fields, over), "{content:?}");
            let mut single = HeaderScanner::new();
            content.as_bytes().chunks(1).for_each(|octet| single.scan(octet));
            assert_eq!(
                (single.octets, single.fields, single.is_over()),
                (octets, fields, over),
                "{content:?}"
            );
        };
        check("", 0, 0, false);
        check("A: b\r\n", 6, 1, false);
        check("A: b\r\n c\r\n\td: e\r\nB:\r\n\r\nC: body\r\n", 22, 2, true);
        check("\r\nA: body\r\n", 1, 0, true);
        check(" A: b\r\n", 1, 0, true);
        check("no field at all: really\r\n", 3, 0, true);
        check(":\r\n", 1, 0, true);
    }
}
