//! A password as it is stored, and whether an offered one is it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use postroad_crds::relay_config::Sensitive;
use postroad_crds::stored_password::{StoredPassword, StoredPasswordError};
use sha2::{Digest, Sha256};
use smtp_protocol::ScramKeys;
use subtle::ConstantTimeEq;

/// The users of one identity, by name.
#[derive(Clone, Debug, Default)]
pub struct Users(BTreeMap<String, Arc<Stored>>);

impl Users {
    /// Reads the values of a users Secret.
    ///
    /// # Errors
    /// The first user whose value begins like a hash and is none, and why.
    pub fn read(values: &BTreeMap<String, Sensitive>) -> Result<Self, (String, StoredPasswordError)> {
        let read = |(name, value): (&String, &Sensitive)| {
            let stored = Stored::read(&value.0).map_err(|error| (name.clone(), error))?;
            Ok((name.clone(), Arc::new(stored)))
        };
        values.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// What is stored for this user.
    #[must_use]
    pub fn get(&self, username: &str) -> Option<&Arc<Stored>> {
        self.0.get(username)
    }

    /// What is stored for each user.
    pub fn stored(&self) -> impl Iterator<Item = &Arc<Stored>> {
        self.0.values()
    }
}

/// A password as it is stored.
pub enum Stored {
    /// Itself.
    Plain(Sensitive),
    /// A bcrypt hash.
    Bcrypt(Sensitive),
    /// An argon2id hash.
    Argon2id(Sensitive),
    /// SCRAM-SHA-256 keys.
    Scram(ScramKeys),
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<sensitive>")
    }
}

impl Stored {
    /// Reads a value of a users Secret.
    ///
    /// # Errors
    /// As [`StoredPassword::parse`].
    pub fn read(value: &str) -> Result<Self, StoredPasswordError> {
        let owned = |text: &str| Sensitive(text.to_owned());
        Ok(match StoredPassword::parse(value)? {
            StoredPassword::Plain(text) => Self::Plain(owned(text)),
            StoredPassword::Bcrypt(text) => Self::Bcrypt(owned(text)),
            StoredPassword::Argon2id(text) => Self::Argon2id(owned(text)),
            StoredPassword::ScramSha256 { iterations, salt, stored_key, server_key } => {
                let key = |text: &str| {
                    let octets = STANDARD.decode(text).ok().and_then(|octets| octets.try_into().ok());
                    octets.ok_or(StoredPasswordError::ScramSha256)
                };
                let salt = STANDARD.decode(salt).map_err(|_| StoredPasswordError::ScramSha256)?;
                Self::Scram(ScramKeys {
                    salt,
                    iterations,
                    stored_key: key(stored_key)?,
                    server_key: key(server_key)?,
                })
            }
        })
    }

    /// Whether checking it takes milliseconds or more, on purpose.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    /// Microseconds that checking it takes, roughly: to tell the costlier of two.
    #[must_use]
    pub fn cost(&self) -> u64 {
        match self {
            Self::Plain(_) => 1,
            Self::Bcrypt(hash) => {
                60 << hash.0.get(4..6).and_then(|cost| cost.parse::<u32>().ok()).unwrap_or(0).min(31)
            }
            Self::Argon2id(hash) => {
                let parameter = |name: &str| {
                    let value = hash.0.split(['$', ',']).find_map(|part| part.strip_prefix(name));
                    value.and_then(|value| value.parse::<u64>().ok()).unwrap_or(1)
                };
                parameter("m=") * parameter("t=")
            }
            Self::Scram(keys) => u64::from(keys.iterations),
        }
    }

    /// The iterations of stored SCRAM keys.
    #[must_use]
    pub fn scram_iterations(&self) -> Option<u32> {
        match self {
            Self::Scram(keys) => Some(keys.iterations),
            _ => None,
        }
    }

    /// Whether SCRAM can prove it.
    #[must_use]
    pub fn is_scram_capable(&self) -> bool {
        matches!(self, Self::Plain(_) | Self::Scram(_))
    }

    /// Whether this is the password, in a time that does not depend on what is wrong with it. An empty one never is.
    #[must_use]
    pub fn verify(&self, password: &str) -> bool {
        let equal = match self {
            Self::Plain(stored) => {
                Sha256::digest(&stored.0).as_slice().ct_eq(Sha256::digest(password).as_slice()).into()
            }
            Self::Bcrypt(hash) => bcrypt::verify(password, &hash.0).unwrap_or(false),
            Self::Argon2id(hash) => argon2::PasswordHash::new(&hash.0)
                .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()),
            Self::Scram(keys) => {
                let derived = ScramKeys::derive(password, &keys.salt, keys.iterations);
                derived.stored_key.ct_eq(&keys.stored_key).into()
            }
        };
        equal && !password.is_empty()
    }

    /// What it is, for a keyed digest: a changed password has another.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        match self {
            Self::Plain(text) | Self::Bcrypt(text) | Self::Argon2id(text) => hash.update(&text.0),
            Self::Scram(keys) => {
                hash.update(&keys.salt);
                hash.update(keys.iterations.to_be_bytes());
                hash.update(keys.stored_key);
            }
        }
        hash.finalize().into()
    }
}
