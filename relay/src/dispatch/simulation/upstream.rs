//! A model of an upstream: how long it takes, and what it answers when.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use smtp_protocol::Reply;

use crate::delivery::{Fate, Hold, HoldKind, OpenError, SessionId};

/// A span of the world's time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) from: Duration,
    pub(super) to: Duration,
}

impl Span {
    pub(super) fn contains(self, time: Duration) -> bool {
        self.from <= time && time < self.to
    }
}

/// What an upstream is like. The default takes 100 ms for a message and as many sessions as come.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// What a message takes when no more than `parallel` are under way; beyond that it takes in proportion longer.
    pub(super) latency: Duration,
    /// Messages that it works on at once.
    pub(super) parallel: usize,
    /// Sessions beyond this are declined.
    pub(super) sessions: usize,
    /// Messages a second beyond this are answered 454 and hold the upstream for a second.
    pub(super) throttled: Vec<(Span, usize)>,
    /// With more sessions than this at work, a message takes so long.
    pub(super) tarpit: Option<(usize, Duration)>,
    /// The `parallel` of a time, beyond which a message takes longer by the square of what is too much.
    pub(super) shrunk: Option<(Span, usize)>,
    /// A message takes so long instead.
    pub(super) slow: Vec<(Span, Duration)>,
    /// Nothing answers.
    pub(super) outages: Vec<Span>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(100),
            parallel: usize::MAX,
            sessions: usize::MAX,
            throttled: Vec::new(),
            tarpit: None,
            shrunk: None,
            slow: Vec::new(),
            outages: Vec::new(),
        }
    }
}

/// An upstream at work.
#[derive(Debug)]
pub(super) struct Upstream {
    model: Model,
    /// Its sessions, and when the job of each began.
    sessions: BTreeMap<SessionId, Option<Duration>>,
    /// Sessions that it declined.
    pub(super) declined: u64,
    /// When sessions were tried.
    pub(super) opened: Vec<Duration>,
    /// Messages that it answered 454.
    pub(super) refused: u64,
    /// The deliveries of the last second.
    recent: VecDeque<Duration>,
    /// How many worked at once, whenever one began.
    pub(super) at_once: Vec<(Duration, usize)>,
}

impl Upstream {
    pub(super) fn new(model: Model) -> Self {
        Self {
            model,
            sessions: BTreeMap::new(),
            declined: 0,
            opened: Vec::new(),
            refused: 0,
            recent: VecDeque::new(),
            at_once: Vec::new(),
        }
    }

    fn is_out(&self, now: Duration) -> bool {
        self.model.outages.iter().any(|span| span.contains(now))
    }

    pub(super) fn open(&mut self, id: SessionId, now: Duration) -> (Duration, Result<(), OpenError>) {
        self.opened.push(now);
        if self.is_out(now) {
            return (Duration::from_secs(1), Err(declined("connection refused", None)));
        }
        if self.sessions.len() >= self.model.sessions {
            self.declined += 1;
            return (
                self.model.latency,
                Err(declined("432 4.3.2 concurrent connections limit exceeded", None)),
            );
        }
        self.sessions.insert(id, None);
        (self.model.latency, Ok(()))
    }

    pub(super) fn close(&mut self, id: SessionId) {
        self.sessions.remove(&id);
    }

    /// A job begins; returns what it takes.
    pub(super) fn begin(&mut self, id: SessionId, now: Duration) -> Duration {
        self.sessions.insert(id, Some(now));
        let working = self.sessions.values().flatten().count();
        self.at_once.push((now, working));
        self.takes(working, now)
    }

    /// What a message takes while so many are under way.
    fn takes(&self, working: usize, now: Duration) -> Duration {
        if let Some((_, latency)) = self.model.tarpit.filter(|(most, _)| working > *most) {
            return latency;
        }
        if let Some((_, parallel)) = self.model.shrunk.filter(|(span, _)| span.contains(now)) {
            let excess = (working as f64 / parallel as f64).max(1.0);
            return self.model.latency.mul_f64(excess * excess);
        }
        let slow = self.model.slow.iter().find(|(span, _)| span.contains(now)).map(|(_, latency)| *latency);
        slow.unwrap_or(self.model.latency).mul_f64((working as f64 / self.model.parallel as f64).max(1.0))
    }

    /// The job ends: how long it took, and the fate of its recipient or the fault that broke the session.
    pub(super) fn end(&mut self, id: SessionId, now: Duration) -> (Duration, Result<Fate, String>) {
        let begun = self.sessions.insert(id, None).flatten().unwrap_or(now);
        (now - begun, self.outcome(begun, now))
    }

    fn outcome(&mut self, begun: Duration, now: Duration) -> Result<Fate, String> {
        if self.model.outages.iter().any(|span| span.contains(now) || span.contains(begun)) {
            return Err("connection reset".to_owned());
        }
        while self.recent.front().is_some_and(|time| *time + Duration::from_secs(1) <= now) {
            self.recent.pop_front();
        }
        let most = self.model.throttled.iter().find(|(span, _)| span.contains(now)).map(|(_, most)| *most);
        if most.is_some_and(|most| self.recent.len() >= most) {
            self.refused += 1;
            let why = "454 4.7.0 maximum sending rate exceeded".to_owned();
            return Ok(Fate::Held(Hold { kind: HoldKind::Parked(Duration::from_secs(1)), why }));
        }
        self.recent.push_back(now);
        Ok(Fate::Delivered(Reply::new(250, (2, 0, 0), "ok")))
    }
}

fn declined(reason: &str, hold: Option<HoldKind>) -> OpenError {
    OpenError::Declined { reason: reason.to_owned(), hold }
}
