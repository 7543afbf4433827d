//! The arithmetic that both sides of SCRAM-SHA-256 share (RFC 5802 §2.2, §3).

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::borrow::Cow;

/// A SHA-256 hash.
pub(crate) type Hash = [u8; 32];

/// `SaltedPassword`. Slow by design, `iterations` times two hashes.
pub(crate) fn salted_password(password: &str, salt: &[u8], iterations: u32) -> Hash {
    let mut salted = Hash::default();
    pbkdf2::pbkdf2_hmac::<Sha256>(prepared(password).as_bytes(), salt, iterations, &mut salted);
    salted
}

/// SASLprep (RFC 4013). A text that it forbids is used as it is, as servers with an older rule stored it.
pub(crate) fn prepared(text: &str) -> Cow<'_, str> {
    stringprep::saslprep(text).unwrap_or(Cow::Borrowed(text))
}

/// `HMAC(key, message)`.
pub(crate) fn hmac(key: &Hash, message: &[u8]) -> Hash {
    let keyed = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    keyed.chain_update(message).finalize().into_bytes().into()
}

/// `one XOR other`.
pub(crate) fn xor(one: &Hash, other: &Hash) -> Hash {
    std::array::from_fn(|index| one[index] ^ other[index])
}
