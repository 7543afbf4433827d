//! Whether a content really holds octets above 127, and where: many clients declare BODY=8BITMIME or SMTPUTF8 whatever
//! they send. Pure.

/// What was seen of a content so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NonAscii {
    /// Somewhere.
    pub(super) anywhere: bool,
    /// In the header section (RFC 5322 §2.1).
    pub(super) in_header_section: bool,
    /// How much of the CRLF CRLF that ends the header section was seen last; all of it once it is over.
    end: usize,
}

const END: &[u8; 4] = b"\r\n\r\n";

impl NonAscii {
    /// Looks at the next piece of the content, of any size, cut anywhere.
    pub(super) fn look(&mut self, chunk: &[u8]) {
        self.anywhere |= !chunk.is_ascii();
        for octet in chunk {
            if self.end == END.len() {
                return;
            }
            self.in_header_section |= !octet.is_ascii();
            self.end = match *octet {
                octet if octet == END[self.end] => self.end + 1,
                b'\r' => 1,
                _ => 0,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_section_and_body_are_told_apart_in_any_split() {
        let check = |content: &str, in_header_section, anywhere| {
            for size in 1..=content.len() {
                let mut seen = NonAscii::default();
                content.as_bytes().chunks(size).for_each(|chunk| seen.look(chunk));
                assert_eq!(
                    (seen.in_header_section, seen.anywhere),
                    (in_header_section, anywhere),
                    "{content}"
                );
            }
        };
        check("Subject: x\r\n\r\nbody\r\n", false, false);
        check("Subject: x\r\n\r\nb\u{f6}dy\r\n", false, true);
        check("Subject: \u{fc}\r\n\r\nbody\r\n", true, true);
        check("Subject: x\r\r\n\r\nb\u{f6}dy\r\n", false, true);
        check("Subject: x\r\nTo: \u{fc}\r\n\r\n", true, true);
        check("Subject: x\r\n", false, false);
    }
}
