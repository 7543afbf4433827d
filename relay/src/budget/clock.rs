//! Time for budgets: it runs as the monotonic clock does and is written as the wall clock reads at the start, so that a step of the
//! wall clock neither empties a window nor fills it.

use std::time::Instant;

use crate::message::Timestamp;

/// Turns one kind of time into the other.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    wall: Timestamp,
}

impl Clock {
    /// A clock that reads `wall` at `start`.
    #[must_use]
    pub fn new(start: Instant, wall: Timestamp) -> Self {
        Self { start, wall }
    }

    /// How it is written.
    #[must_use]
    pub fn time(&self, at: Instant) -> Timestamp {
        self.wall.after(at.saturating_duration_since(self.start))
    }

    /// When that is; never before the start.
    #[must_use]
    pub fn instant(&self, time: Timestamp) -> Instant {
        self.start + time.since(self.wall)
    }
}
