//! Which Password identity a user belongs to, and whether the password is right.
//!
//! Nothing slow runs on the event loop: a hash that is made to be slow is computed on the blocking pool, at most one per
//! core at a time, and what was right is [`remembered`] so that a busy client costs no core. [`stored`] knows the forms,
//! [`throttle`] slows down those who guess.

mod keyed;
mod pool;
mod remembered;
mod stored;
mod throttle;

pub use pool::{Passwords, PoolSecret};
pub use stored::{Stored, Users};

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use smtp_protocol::{PlainCredentials, ScramKeys};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::config::{Policy, Recognition};
use remembered::Remembered;
use throttle::Throttle;

/// Verifies passwords. One for all sessions of a relay.
#[derive(Debug)]
pub struct Verifier {
    remembered: Mutex<Remembered>,
    throttle: Mutex<Throttle>,
    slow: Arc<Semaphore>,
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new()
    }
}

impl Verifier {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            remembered: Mutex::new(Remembered::new(rand::random())),
            throttle: Mutex::default(),
            slow: Arc::new(Semaphore::new(cores)),
        }
    }

    /// The first Password identity of `policy` that holds this user with this password.
    ///
    /// A failure takes as long for a user who does not exist as for a wrong password: what a user's own form does not cost
    /// is spent on the policy's most costly one. *Cancellation*: a dropped future leaves at most a running hash.
    pub async fn verify(&self, policy: &Policy, credentials: &PlainCredentials) -> Option<Arc<str>> {
        let mut slow = false;
        for identity in &policy.identities {
            let Recognition::Password(users) = &identity.recognition else { continue };
            let Some(stored) = users.get(credentials.username()) else { continue };
            if self.matches(&identity.name, stored, credentials).await {
                return Some(identity.name.clone());
            }
            slow |= stored.is_slow();
        }
        if let Some(decoy) = policy.passwords.decoy.as_ref().filter(|_| !slow) {
            self.compute(decoy, credentials.password()).await;
        }
        None
    }

    async fn matches(&self, identity: &str, stored: &Arc<Stored>, credentials: &PlainCredentials) -> bool {
        if !stored.is_slow() {
            return stored.verify(credentials.password());
        }
        let digest = self.lock_remembered().digest(identity, stored, credentials);
        if self.lock_remembered().contains(&digest) {
            return true;
        }
        let right = self.compute(stored, credentials.password()).await;
        if right {
            self.lock_remembered().insert(digest);
        }
        right
    }

    async fn compute(&self, stored: &Arc<Stored>, password: &str) -> bool {
        if !stored.is_slow() {
            return stored.verify(password);
        }
        let (stored, password) = (stored.clone(), password.to_owned());
        self.slowly(move || stored.verify(&password)).await.unwrap_or(false)
    }

    /// The SCRAM keys of a user; for one who does not exist, keys that look like those of one who does and that nothing
    /// proves. The same on every relay of the pool, so that nobody learns who exists by asking two of them; and where keys
    /// have to be derived for any user, deriving is done for all, so that nobody learns it by the clock either.
    pub async fn scram_keys(&self, policy: &Policy, username: &str) -> ScramKeys {
        let Passwords { secret, scram_iterations: iterations, .. } = &policy.passwords;
        let stored = policy.identities.iter().find_map(|identity| match &identity.recognition {
            Recognition::Password(users) => users.get(username),
            Recognition::Network(_) | Recognition::Certificate(_) => None,
        });
        let derived = if policy.passwords.derives {
            let password = match stored.map(Arc::as_ref) {
                Some(Stored::Plain(password)) => password.0.clone(),
                _ => String::new(),
            };
            let (salt, iterations) = (secret.salt(username), *iterations);
            self.slowly(move || ScramKeys::derive(&password, &salt, iterations)).await
        } else {
            None
        };
        let known = match stored.map(Arc::as_ref) {
            Some(Stored::Scram(keys)) => Some(keys.clone()),
            Some(Stored::Plain(_)) => derived,
            // A hash of another kind cannot be proven by SCRAM; it is not offered where such a user exists.
            Some(Stored::Bcrypt(_) | Stored::Argon2id(_)) | None => None,
        };
        known.unwrap_or_else(|| secret.keys(username, *iterations))
    }

    /// Runs this on the blocking pool, when a core is free for it. `None` when it panicked.
    async fn slowly<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let permit = self.slow.clone().acquire_owned().await.ok()?;
        let computing = spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        computing.await.ok()
    }

    /// How long a client that has failed too often is still to wait.
    #[must_use]
    pub fn wait(&self, client: IpAddr, now: Instant) -> Option<Duration> {
        self.lock_throttle().wait(client, now)
    }

    /// An AUTH of this client failed.
    pub fn failed(&self, client: IpAddr, now: Instant) {
        self.lock_throttle().failed(client, now);
    }

    fn lock_remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_throttle(&self) -> std::sync::MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The identity that proved this user by SCRAM: the first that holds it, as in [`Verifier::scram_keys`].
#[must_use]
pub fn identity_of(policy: &Policy, username: &str) -> Option<Arc<str>> {
    let holds = |recognition: &Recognition| match recognition {
        Recognition::Password(users) => users.get(username).is_some(),
        Recognition::Network(_) | Recognition::Certificate(_) => false,
    };
    policy
        .identities
        .iter()
        .find(|identity| holds(&identity.recognition))
        .map(|identity| identity.name.clone())
}

/// Whether the identity still knows the user, for sessions that authenticated before the policy changed.
#[must_use]
pub fn still_known(policy: &Policy, identity: &str, username: &str) -> bool {
    policy.identities.iter().any(|rule| {
        *rule.name == *identity
            && matches!(&rule.recognition, Recognition::Password(users) if users.get(username).is_some())
    })
}

#[cfg(test)]
mod tests;
