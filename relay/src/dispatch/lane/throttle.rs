//! How long an upstream's mail has waited for its rates, or because the upstream itself asked for it. Pure.

use std::time::{Duration, Instant};

/// Adds up times of throttling.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    since: Option<Instant>,
    total: Duration,
}

impl Throttle {
    /// Whether mail waits like this from now on.
    pub(super) fn note(&mut self, throttled: bool, now: Instant) {
        if let Some(since) = self.since {
            self.total += now.saturating_duration_since(since);
        }
        self.since = throttled.then_some(now);
    }

    /// What has been added up since the last call.
    pub(super) fn take(&mut self, now: Instant) -> Duration {
        self.note(self.since.is_some(), now);
        std::mem::take(&mut self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_between_the_notes_that_say_so_counts_and_once() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut throttle = Throttle::default();
        for (seconds, throttled) in [(0, false), (5, true), (8, true), (10, false), (20, true)] {
            throttle.note(throttled, at(seconds));
        }
        assert_eq!(throttle.take(at(22)), Duration::from_secs(7));
        assert_eq!(throttle.take(at(23)), Duration::from_secs(1));
    }
}
