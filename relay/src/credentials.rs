//! Which Password identity a user name and password belong to.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use smtp_protocol::PlainCredentials;
use subtle::ConstantTimeEq;

use crate::config::{Policy, Recognition};

/// The first Password identity of `policy` that holds this user with this password.
///
/// The time it takes depends on the number of identities and on the user's name, not on the password: passwords are compared
/// as digests and in constant time, and a user that does not exist costs a comparison as well.
#[must_use]
pub fn verify(policy: &Policy, credentials: &PlainCredentials) -> Option<Arc<str>> {
    let offered = Sha256::digest(credentials.password());
    let mut found = None;
    for identity in &policy.identities {
        let Recognition::Password(users) = &identity.recognition else { continue };
        let expected =
            Sha256::digest(users.get(credentials.username()).map_or("", |password| password.0.as_str()));
        // An empty password is never valid, so the digest of nothing matches nobody.
        let equal = bool::from(offered.ct_eq(&expected)) && !credentials.password().is_empty();
        if equal && found.is_none() {
            found = Some(identity.name.clone());
        }
    }
    found
}

/// Whether the identity still knows the user, for sessions that authenticated before the policy changed.
#[must_use]
pub fn still_known(policy: &Policy, identity: &str, username: &str) -> bool {
    policy.identities.iter().any(|rule| {
        *rule.name == *identity
            && matches!(&rule.recognition, Recognition::Password(users) if users.contains_key(username))
    })
}
