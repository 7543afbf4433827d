//! The token that opens the admin API of a pool's relays: made once, kept in the Secret with their configuration, and never
//! changed by the operator as long as it is usable. Whoever takes it out of the Secret gets the relays a new one.

use std::fmt;

use k8s_openapi::api::core::v1::Secret;
use postroad_crds::admin_token::{FILE_NAME, is_usable};

/// 256 random bits.
const OCTETS: usize = 32;

/// A usable token. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken(String);

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<sensitive>")
    }
}

impl AdminToken {
    /// A new one that nobody can guess, as hexadecimal digits.
    #[must_use]
    pub fn random() -> Self {
        let octets: [u8; OCTETS] = rand::random();
        Self(octets.iter().map(|octet| format!("{octet:02x}")).collect())
    }

    /// The one that a pool's Secret holds; `None` when there is none that is usable.
    #[must_use]
    pub fn of(secret: &Secret) -> Option<Self> {
        let held = secret.data.as_ref()?.get(FILE_NAME)?;
        std::str::from_utf8(&held.0).ok().filter(|token| is_usable(token)).map(|token| Self(token.to_owned()))
    }

    /// Its text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn held(token: &str) -> Option<AdminToken> {
        let data = [(FILE_NAME.to_owned(), ByteString(token.as_bytes().to_vec()))];
        AdminToken::of(&Secret { data: Some(data.into()), ..Secret::default() })
    }

    #[test]
    fn a_token_made_is_kept_and_no_two_are_alike() {
        let made = AdminToken::random();
        assert_eq!(held(made.reveal()).as_ref(), Some(&made));
        assert_ne!(made, AdminToken::random());
    }

    #[test]
    fn a_token_that_could_be_guessed_is_not_kept() {
        assert_eq!((held(""), held("secret")), (None, None));
        assert_eq!(AdminToken::of(&Secret::default()), None);
    }
}
