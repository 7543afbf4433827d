//! What dispatch hears and what it wants done: the words between [`Core`](super::core::Core), which decides, and the driver,
//! which performs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::news::News;
use super::obey::Obeyed;
use super::plan::{Planned, Request};
use super::settle::{Settled, Unrecorded, Unsettled};
use crate::budget::{Saved, Scope};
use crate::config::{Policy, UpstreamPolicy};
use crate::delivery::{Job, Report, SessionId};
use crate::message::{MessageId, Timestamp};
use crate::order::{MessageOrder, Order, OrderRefused, UpstreamOrder, UpstreamState};
use crate::spool::Recovered;
use crate::submission::Accepted;

/// Less is how a time service adjusts a clock.
const STEP: Duration = Duration::from_secs(1);

/// One moment, on the clock that never steps (waits, rates) and on that of the world (due times, expiry).
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) monotonic: Instant,
    pub(super) wall: Timestamp,
}

impl Now {
    /// Reads both clocks.
    pub(super) fn read() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now().into() }
    }

    /// How far the wall clock has stepped back since `earlier`; zero when it has gone on, gone ahead or been corrected by less
    /// than [`STEP`].
    pub(super) fn stepped_back(self, earlier: Self) -> Duration {
        let elapsed = self.monotonic.saturating_duration_since(earlier.monotonic);
        let behind = earlier.wall.after(elapsed).since(self.wall);
        if behind < STEP { Duration::ZERO } else { behind }
    }
}

/// What the last processes have recorded of budgets.
pub(super) type SavedBudgets = BTreeMap<Scope, Option<Saved>>;

/// What became of a budget's record.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) scope: Scope,
    /// The amount it covers; `None` when it could not be written.
    pub(super) covered: Option<u64>,
}

/// What has happened.
#[derive(Debug)]
pub(super) enum Event {
    /// Messages of earlier runs are in the spool.
    Recovered(Vec<Recovered>),
    /// A message is in the spool and has been answered 250.
    Accepted(Accepted),
    /// A requested plan is there, or its message could not be read.
    Planned(Planned),
    /// A session reports.
    Reported(SessionId, Report),
    /// A session could not be given its job: it has retired by itself in this instant and its report is under way.
    NotTaken(SessionId, Job),
    /// A settlement is on stable storage, or could not be made.
    Settled(Result<Settled, Unrecorded>),
    /// A budget's record is on stable storage, or could not be written.
    Recorded(Recorded),
    /// A person wants something done with a message or an upstream.
    Ordered(Order),
    /// It is on stable storage, or could not be done.
    Obeyed(Obeyed),
    /// Another policy is in force. With it what was recorded of [`Core::unknown`](super::core::Core::unknown) budgets.
    PolicyChanged(Arc<Policy>, SavedBudgets),
    /// It is time to look after messages that wait for an upstream and are not attempted.
    ExpiryCheck,
    /// The relay stops: nothing new is begun, what is under way is brought to its end.
    Stopping,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Action {
    /// Read the message and say which upstreams it goes to: [`Event::Planned`].
    Plan(Request),
    /// Open a session with the upstream, from this address of the relay if one is given: [`Event::Reported`].
    Open(SessionId, Arc<UpstreamPolicy>, Option<IpAddr>),
    /// Give the job to the session: [`Event::Reported`], or [`Event::NotTaken`].
    Assign(SessionId, Job),
    /// Take no more jobs to the session and let it say QUIT.
    Retire(SessionId),
    /// Store what the fates mean for the message: [`Event::Settled`].
    Settle(Unsettled),
    /// Do what was ordered for a message that nothing else is being done about: [`Event::Obeyed`].
    Obey(MessageOrder),
    /// Answer an order.
    Answer(MessageOrder, Result<(), OrderRefused>),
    /// Answer an order about an upstream: where all stand, or that there is none of this name.
    AnswerUpstream(UpstreamOrder, Option<Vec<UpstreamState>>),
    /// Write the record of the scope's budget, which covers the amount: [`Event::Recorded`].
    Record(Scope, Saved, u64),
    /// Put the damaged message aside, for the reason given.
    Quarantine(MessageId, String),
    /// Log and count it.
    Tell(News),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_step_back_of_the_wall_clock_is_one() {
        let start = Now { monotonic: Instant::now(), wall: Timestamp(1_000_000) };
        let later =
            |wall| Now { monotonic: start.monotonic + Duration::from_secs(10), wall: Timestamp(wall) };
        for wall in [1_009_100, 1_010_000, 9_000_000] {
            assert_eq!(later(wall).stepped_back(start), Duration::ZERO, "{wall}");
        }
        assert_eq!(later(950_000).stepped_back(start), Duration::from_secs(60));
    }
}
