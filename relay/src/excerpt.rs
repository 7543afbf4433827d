//! The beginning of a text that may be long. Pure.

/// The text, or its beginning of at most so many octets of UTF-8 and an ellipsis.
#[must_use]
pub fn excerpt(mut text: String, octets: usize) -> String {
    if text.len() > octets {
        text.truncate(text.floor_char_boundary(octets));
        text.push('…');
    }
    text
}
