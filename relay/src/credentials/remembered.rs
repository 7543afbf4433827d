//! Passwords that were right, so that a slow hash is computed once and not for every connection.
//!
//! Kept is a digest under a key that exists in this process only: of identity, user, what is stored for the user, and the
//! password. A user that changes or goes has other digests, so nothing has to be dropped when the policy does.

use std::collections::{HashSet, VecDeque};
use std::fmt;

use smtp_protocol::PlainCredentials;

use super::keyed::keyed;
use super::stored::Stored;

/// How many are remembered; the oldest goes first. 160 KiB.
const REMEMBERED: usize = 4096;

/// See the file's head.
pub(super) struct Remembered {
    key: [u8; 32],
    digests: HashSet<[u8; 32]>,
    order: VecDeque<[u8; 32]>,
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").field("count", &self.order.len()).finish_non_exhaustive()
    }
}

impl Remembered {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self { key, digests: HashSet::new(), order: VecDeque::new() }
    }

    pub(super) fn digest(&self, identity: &str, stored: &Stored, offered: &PlainCredentials) -> [u8; 32] {
        let parts: [&[u8]; 4] = [
            identity.as_bytes(),
            offered.username().as_bytes(),
            &stored.fingerprint(),
            offered.password().as_bytes(),
        ];
        keyed(&self.key, &parts)
    }

    pub(super) fn contains(&self, digest: &[u8; 32]) -> bool {
        self.digests.contains(digest)
    }

    pub(super) fn insert(&mut self, digest: [u8; 32]) {
        if !self.digests.insert(digest) {
            return;
        }
        self.order.push_back(digest);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.digests.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_forgets_the_oldest() {
        let mut remembered = Remembered::new([7; 32]);
        let digest = |number: usize| keyed(&[1; 32], &[&number.to_be_bytes()]);
        for number in 0..=REMEMBERED {
            remembered.insert(digest(number));
            remembered.insert(digest(number));
        }
        assert_eq!((remembered.digests.len(), remembered.order.len()), (REMEMBERED, REMEMBERED));
        assert!(!remembered.contains(&digest(0)) && remembered.contains(&digest(1)));
    }

    #[test]
    fn another_password_user_identity_or_stored_value_is_another_digest() {
        let remembered = Remembered::new([7; 32]);
        let stored = |text| Stored::read(text).unwrap();
        let base = remembered.digest("a", &stored("x"), &PlainCredentials::new("u", "p"));
        for other in [
            remembered.digest("b", &stored("x"), &PlainCredentials::new("u", "p")),
            remembered.digest("a", &stored("y"), &PlainCredentials::new("u", "p")),
            remembered.digest("a", &stored("x"), &PlainCredentials::new("v", "p")),
            remembered.digest("a", &stored("x"), &PlainCredentials::new("u", "q")),
            remembered.digest("a", &stored("x"), &PlainCredentials::new("up", "")),
        ] {
            assert_ne!(base, other);
        }
    }
}
