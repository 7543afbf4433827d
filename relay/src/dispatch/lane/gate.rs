//! Whether an upstream may be given anything: a breaker. Pure.
//!
//! While there have been failures it is half open at best: when its time has come, one session or message tries.

use std::time::{Duration, Instant};

/// The first wait after a session could not be opened; each further one is twice as long.
pub(super) const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// So many failures without a success are no chance: one is as likely the network's.
const FAILED: u32 = 2;

/// A breaker.
#[derive(Debug, Default)]
pub(super) struct Gate {
    failures: u32,
    closed_until: Option<Instant>,
    /// Whether a reply to a message has closed it, so that only a delivered message opens it.
    tripped: bool,
    /// Why, for people.
    reason: Option<String>,
}

impl Gate {
    /// Why the upstream gets nothing, or is only tried.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Whether everything may go.
    pub(super) fn is_open(&self) -> bool {
        self.closed_until.is_none() && self.failures == 0
    }

    /// Whether nothing may go before [`opens_at`](Self::opens_at).
    pub(super) fn is_closed(&self) -> bool {
        self.closed_until.is_some()
    }

    /// Whether nothing may go for a time, without a failure.
    pub(super) fn is_parked(&self) -> bool {
        self.closed_until.is_some() && self.failures == 0
    }

    /// Whether the upstream has failed more often than by chance.
    pub(super) fn has_failed(&self) -> bool {
        self.failures >= FAILED
    }

    /// Whether a failed message has closed it, not a failed session.
    pub(super) fn is_tripped(&self) -> bool {
        self.tripped
    }

    /// Whether only one may try.
    pub(super) fn is_half_open(&self) -> bool {
        self.failures > 0
    }

    /// When something may go again, if that has to be waited for.
    pub(super) fn opens_at(&self) -> Option<Instant> {
        self.closed_until
    }

    /// A session or a message has failed: closed for a time that doubles. Returns whether the reason was known.
    pub(super) fn fail(&mut self, reason: String, now: Instant) -> bool {
        let wait = FIRST_WAIT.saturating_mul(1 << self.failures.min(6)).min(LONGEST_WAIT);
        self.failures += 1;
        self.closed_until = Some(now + wait);
        self.explain(reason)
    }

    /// As [`fail`](Self::fail), by a reply to a message: that sessions can be opened says nothing from now on.
    pub(super) fn trip(&mut self, reason: String, now: Instant) -> bool {
        self.tripped = true;
        self.fail(reason, now)
    }

    /// Closed for this time, without a failure. Returns whether the reason was known.
    pub(super) fn park(&mut self, wait: Duration, reason: String, now: Instant) -> bool {
        self.closed_until = Some(self.closed_until.map_or(now + wait, |until| until.max(now + wait)));
        self.explain(reason)
    }

    fn explain(&mut self, reason: String) -> bool {
        self.reason.replace(reason) == self.reason
    }

    /// A session stands. Returns whether it is the first after failures.
    pub(super) fn session_opened(&mut self) -> bool {
        !self.tripped && std::mem::take(self).failures > 0
    }

    /// A message was delivered. Returns whether it is the first after the upstream was unwell.
    pub(super) fn delivered(&mut self) -> bool {
        self.tripped && std::mem::take(self).failures > 0
    }

    /// Notices that the time has come: what was parked starts anew; what has failed is tried by one.
    pub(super) fn reopen(&mut self, now: Instant) {
        if self.closed_until.is_some_and(|until| until <= now) {
            self.closed_until = None;
            if self.failures == 0 {
                self.reason = None;
            }
        }
    }
}
