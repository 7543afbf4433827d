//! Words for conditions and Events: lists and quotations of bounded length. Pure.

use std::fmt::Display;

/// How many of a list are named.
const NAMED: usize = 8;

/// The text in one line, or its beginning of at most so many octets of UTF-8 and an ellipsis. What moves a terminal's cursor becomes a
/// space: services' replies are quoted.
#[must_use]
pub fn clipped(text: &str, octets: usize) -> String {
    let end = text.floor_char_boundary(octets);
    let mut clipped: String = text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if end < text.len() {
        clipped.push('…');
    }
    clipped
}

/// `a, b, c`, or the first of many and how many more there are.
#[must_use]
pub fn several(names: &[impl Display]) -> String {
    let mut text = names.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if names.len() > NAMED {
        text.push_str(&format!(" and {} more", names.len() - NAMED));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_clipped_at_a_character_and_stays_one_line() {
        let text = clipped(&"é".repeat(600), 1001);
        assert!(text.len() == 1000 + '…'.len_utf8() && text.ends_with('…'));
        assert_eq!(clipped("421 busy\r\n\u{1b}[2J", 100), "421 busy   [2J");
    }

    #[test]
    fn of_many_the_first_are_named_and_the_rest_are_counted() {
        assert_eq!(several(&["a", "b"]), "a, b");
        assert_eq!(several(&(0..11).collect::<Vec<_>>()), "0, 1, 2, 3, 4, 5, 6, 7 and 3 more");
    }
}
