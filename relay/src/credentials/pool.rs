//! What holds for all passwords of a pool together, and what is made up about users who do not exist.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use smtp_protocol::ScramKeys;

use super::keyed::keyed;
use super::stored::{Stored, Users};

/// Iterations for plain passwords when no user has stored keys: the least that RFC 7677 §4 allows, because they protect
/// nothing that is stored.
const SCRAM_ITERATIONS: u32 = 4096;

/// What holds for all passwords of a pool.
#[derive(Clone, Debug)]
pub struct Passwords {
    /// The one that is costliest to check, when any is slow: checked for users who do not exist.
    pub decoy: Option<Arc<Stored>>,
    /// Whether SCRAM can prove each of them. False when there is none.
    pub scram: bool,
    /// Whether SCRAM keys have to be derived for some of them, which are stored as plain text.
    pub derives: bool,
    /// Iterations of SCRAM for plain passwords, and for users who do not exist.
    pub scram_iterations: u32,
    /// What is made up about users who do not exist.
    pub secret: PoolSecret,
}

impl Passwords {
    /// Those of these users.
    pub fn of<'a>(users: impl Iterator<Item = &'a Users>, secret: PoolSecret) -> Self {
        let stored: Vec<&Arc<Stored>> = users.flat_map(Users::stored).collect();
        let slow = stored.iter().filter(|stored| stored.is_slow());
        Self {
            decoy: slow.max_by_key(|stored| stored.cost()).map(|stored| Arc::clone(stored)),
            scram: !stored.is_empty() && stored.iter().all(|stored| stored.is_scram_capable()),
            derives: stored.iter().any(|stored| matches!(***stored, Stored::Plain(_))),
            scram_iterations: stored
                .iter()
                .find_map(|stored| stored.scram_iterations())
                .unwrap_or(SCRAM_ITERATIONS),
            secret,
        }
    }
}

/// A secret that all relays of a pool share without being told: made of the secrets in their configuration. What is asked
/// about users who do not exist is answered from it, the same each time.
#[derive(Clone)]
pub struct PoolSecret([u8; 32]);

impl fmt::Debug for PoolSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<sensitive>")
    }
}

impl PoolSecret {
    /// The secret made of these.
    #[must_use]
    pub fn of<'a>(secrets: impl Iterator<Item = &'a str>) -> Self {
        let mut hash = Sha256::new();
        for secret in secrets {
            hash.update((secret.len() as u64).to_be_bytes());
            hash.update(secret);
        }
        Self(hash.finalize().into())
    }

    /// A salt for this user.
    pub(super) fn salt(&self, username: &str) -> [u8; 16] {
        let mut salt = [0; 16];
        salt.copy_from_slice(&keyed(&self.0, &[b"salt", username.as_bytes()])[..16]);
        salt
    }

    /// Keys that nothing proves.
    pub(super) fn keys(&self, username: &str, iterations: u32) -> ScramKeys {
        ScramKeys {
            salt: self.salt(username).to_vec(),
            iterations,
            stored_key: keyed(&self.0, &[b"stored", username.as_bytes()]),
            server_key: keyed(&self.0, &[b"server", username.as_bytes()]),
        }
    }
}
