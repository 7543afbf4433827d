//! When a message is tried again, and when it is given up: pure arithmetic.
//!
//! Not here: the order of messages (`queue`), the clock and the random number, which are passed in. Implements the advice
//! of RFC 5321 §4.5.4.1 (retry after a delay that grows, give up after days). Called by dispatch.

use std::time::Duration;

use crate::message::Timestamp;

/// How far jitter moves a delay either way, as a part of it.
const JITTER: f64 = 0.2;

/// The bounds between which the delay before the next attempt grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The delay after the first failed attempt, before jitter.
    pub minimum: Duration,
    /// The delay that doubling stops at, before jitter. Below `minimum` it has no effect.
    pub maximum: Duration,
}

impl RetryPolicy {
    /// The delay after `attempts` attempts, before jitter: `minimum` after the first, doubled by each further one.
    #[must_use]
    pub fn delay(&self, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(31);
        self.minimum.saturating_mul(1 << doublings).min(self.maximum.max(self.minimum))
    }

    /// The longest delay there is, jitter included.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.maximum.max(self.minimum).mul_f64(1.0 + JITTER)
    }
}

/// The due time of a message found at the start: one beyond any delay was computed by a clock that was ahead. What is never due
/// stays so.
#[must_use]
pub fn recovered(policy: &RetryPolicy, due_at: Timestamp, now: Timestamp) -> Timestamp {
    if due_at == Timestamp::NEVER { due_at } else { due_at.min(now.after(policy.longest())) }
}

/// When to try again after the attempt that made `attempts` of them, failing at `now`.
///
/// `jitter` is a random number in `0.0..1.0` that spreads messages which failed together over ±20 % of the delay, so
/// that they do not return together; outside of that range it is clamped.
#[must_use]
pub fn next_attempt(policy: &RetryPolicy, attempts: u32, jitter: f64, now: Timestamp) -> Timestamp {
    let factor = 1.0 - JITTER + 2.0 * JITTER * jitter.clamp(0.0, 1.0);
    let delay = policy.delay(attempts);
    now.after(Duration::try_from_secs_f64(delay.as_secs_f64() * factor).unwrap_or(delay))
}

/// Whether a message accepted at `accepted_at` has been tried for `expire_after` or longer at `now`.
#[must_use]
pub fn expired(accepted_at: Timestamp, expire_after: Duration, now: Timestamp) -> bool {
    now.since(accepted_at) >= expire_after
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: RetryPolicy =
        RetryPolicy { minimum: Duration::from_secs(60), maximum: Duration::from_secs(3600) };

    #[test]
    fn the_delay_doubles_from_the_minimum_to_the_maximum() {
        let minutes: Vec<u64> = (0..9).map(|attempts| POLICY.delay(attempts).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(POLICY.delay(u32::MAX), POLICY.maximum);
        assert_eq!(POLICY.longest(), POLICY.maximum * 6 / 5);
    }

    #[test]
    fn a_start_trusts_no_due_time_beyond_the_longest_delay_but_that_of_held_mail() {
        let now = Timestamp(1_000);
        let latest = now.after(POLICY.longest());
        assert_eq!(recovered(&POLICY, Timestamp(5_000), now), Timestamp(5_000));
        assert_eq!(recovered(&POLICY, latest.after(POLICY.minimum), now), latest);
        assert_eq!(recovered(&POLICY, Timestamp::NEVER, now), Timestamp::NEVER);
    }

    #[test]
    fn a_maximum_below_the_minimum_has_no_effect() {
        let policy = RetryPolicy { maximum: Duration::from_secs(1), ..POLICY };
        assert_eq!(policy.delay(5), POLICY.minimum);
    }

    #[test]
    fn jitter_spreads_a_fifth_either_way() {
        let now = Timestamp(1_000_000);
        let at = |jitter| next_attempt(&POLICY, 1, jitter, now).0 - now.0;
        assert_eq!((at(0.0), at(0.5), at(1.0), at(7.0)), (48_000, 60_000, 72_000, 72_000));
    }

    #[test]
    fn a_message_expires_at_its_time_and_not_when_the_clock_steps_back() {
        let (accepted, expire_after) = (Timestamp(5_000), Duration::from_secs(10));
        assert!(!expired(accepted, expire_after, Timestamp(14_999)));
        assert!(expired(accepted, expire_after, Timestamp(15_000)));
        assert!(!expired(accepted, expire_after, Timestamp(0)));
    }

    proptest! {
        #[test]
        fn an_attempt_is_never_in_the_past_nor_beyond_the_maximum(
            attempts: u32, jitter in 0.0..1.0, now in 0_u64..1 << 48, minimum in 1_u64..100_000, maximum in 1_u64..1 << 40,
        ) {
            let policy = RetryPolicy { minimum: Duration::from_millis(minimum), maximum: Duration::from_millis(maximum) };
            let wait = next_attempt(&policy, attempts, jitter, Timestamp(now)).0 - now;
            prop_assert!(wait + 1 >= minimum * 8 / 10);
            prop_assert!(wait <= minimum.max(maximum) * 12 / 10 + 1);
        }
    }
}
