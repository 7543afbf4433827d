//! What operator and relay have agreed about the token that opens a relay's admin API.

/// The key in the Secret with the RelayConfig, and the name of the file beside it in the mounted folder. Its content is the
/// token: visible ASCII, at least [`MINIMUM_LENGTH`] characters.
pub const FILE_NAME: &str = "admin-token";

/// A shorter token is none: it could be guessed, and an empty one would open the API to everybody.
pub const MINIMUM_LENGTH: usize = 32;

/// Whether `token` may open an admin API.
#[must_use]
pub fn is_usable(token: &str) -> bool {
    token.len() >= MINIMUM_LENGTH && token.bytes().all(|octet| octet.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_long_and_visible() {
        assert!(is_usable(&"a".repeat(MINIMUM_LENGTH)));
        let invisible = format!("{} ", "a".repeat(MINIMUM_LENGTH));
        for token in ["", &"a".repeat(MINIMUM_LENGTH - 1), &invisible, &"é".repeat(MINIMUM_LENGTH)] {
            assert!(!is_usable(token), "{token:?}");
        }
    }
}
