//! A reply onto the wire: sanitised, wrapped, never a line over 512 octets.

use super::code::{EnhancedStatusCode, ReplyCode};
use bytes::{BufMut, BytesMut};

/// Octets of a reply line including CRLF (RFC 5321 §4.5.3.1.5).
const LINE_OCTETS: usize = 512;

pub(super) fn encode(
    code: ReplyCode,
    enhanced: Option<EnhancedStatusCode>,
    lines: &[String],
    out: &mut BytesMut,
) {
    let enhanced = enhanced.map(|code| code.to_string());
    let prefix = "250-".len() + enhanced.as_ref().map_or(0, |code| code.len() + 1);
    let room = LINE_OCTETS - "\r\n".len() - prefix;
    let mut wrapped: Vec<String> = lines.iter().flat_map(|line| wrap(&sanitise(line), room)).collect();
    if wrapped.is_empty() {
        wrapped.push(String::new());
    }
    let last = wrapped.len() - 1;
    for (index, text) in wrapped.iter().enumerate() {
        put_line(code, enhanced.as_deref(), index == last, text, out);
    }
}

fn put_line(code: ReplyCode, enhanced: Option<&str>, last: bool, text: &str, out: &mut BytesMut) {
    out.put_slice(code.to_string().as_bytes());
    out.put_u8(if last { b' ' } else { b'-' });
    if let Some(enhanced) = enhanced {
        out.put_slice(enhanced.as_bytes());
        if !text.is_empty() {
            out.put_u8(b' ');
        }
    }
    out.put_slice(text.as_bytes());
    out.put_slice(b"\r\n");
}

fn sanitise(text: &str) -> String {
    text.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect()
}

/// Cuts ASCII text into pieces of at most `room` octets, at spaces where there are any.
fn wrap(mut text: &str, room: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    while text.len() > room {
        match text[..=room].rfind(' ').filter(|at| *at > 0) {
            Some(space) => {
                pieces.push(text[..space].to_owned());
                text = &text[space + 1..];
            }
            None => {
                pieces.push(text[..room].to_owned());
                text = &text[room..];
            }
        }
    }
    pieces.push(text.to_owned());
    pieces
}

#[cfg(test)]
mod tests {
    use crate::reply::Reply;
    use bytes::BytesMut;

    fn encoded(reply: &Reply) -> String {
        let mut out = BytesMut::new();
        reply.encode(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn replies_have_their_wire_form() {
        let check = |reply: Reply, expected| assert_eq!(encoded(&reply), expected);
        check(Reply::new(250, (2, 0, 0), "OK"), "250 2.0.0 OK\r\n");
        check(Reply::new(250, (2, 0, 0), ""), "250 2.0.0\r\n");
        check(Reply::bare(334, ""), "334 \r\n");
        check(Reply::multiline(250, vec!["a".into(), "b".into()]), "250-a\r\n250 b\r\n");
        check(Reply::multiline(250, vec![]), "250 \r\n");
    }

    #[test]
    fn text_cannot_inject_a_reply() {
        let reply = Reply::new(550, (5, 7, 1), "no <a\r\n250 OK\0\x7f\tü>");
        assert_eq!(encoded(&reply), "550 5.7.1 no <a??250 OK????>\r\n");
    }

    #[test]
    fn long_text_is_wrapped_at_spaces_and_repeats_the_enhanced_code() {
        let text = "word ".repeat(300).trim_end().to_owned();
        let wire = encoded(&Reply::new(550, (5, 7, 1), text.clone()));
        let lines: Vec<&str> = wire.split_terminator("\r\n").collect();
        assert_eq!(lines.len(), 3);
        for (index, line) in lines.iter().enumerate() {
            assert!(line.len() + 2 <= 512, "{} octets", line.len() + 2);
            assert!(
                line.starts_with(if index + 1 < lines.len() { "550-5.7.1 word" } else { "550 5.7.1 word" }),
                "{line}"
            );
        }
        let unwrapped: Vec<&str> = lines.iter().map(|line| &line[10..]).collect();
        assert_eq!(unwrapped.join(" "), text);
    }

    #[test]
    fn a_word_longer_than_a_line_is_cut() {
        let wire = encoded(&Reply::new(550, (5, 7, 1), "x".repeat(2000)));
        assert!(wire.split_terminator("\r\n").all(|line| line.len() + 2 <= 512));
        assert_eq!(wire.matches('x').count(), 2000);
    }
}
