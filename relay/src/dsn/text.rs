//! Texts of others made fit for a notification.

/// A text on one line of printable ASCII, as a structured field needs it.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' }).collect()
}

/// The header section of a content that begins with it, line ends complete, without what follows it.
pub(super) fn header_section(content: &[u8]) -> Vec<u8> {
    let end = content.windows(4).position(|window| window == b"\r\n\r\n").map_or(content.len(), |at| at + 2);
    let mut section = content[..end].to_vec();
    if !section.ends_with(b"\r\n") {
        section.extend_from_slice(b"\r\n");
    }
    section
}

/// The same octets, with `?` for those that are not US-ASCII.
pub(super) fn to_ascii(octets: &[u8]) -> Vec<u8> {
    octets.iter().map(|&octet| if octet.is_ascii() { octet } else { b'?' }).collect()
}
