//! How many sessions with an upstream are worth it: an allowance that grows while more sessions carry more, and shrinks when the
//! upstream pushes back or fewer carry as much.
//!
//! Pure. What is compared is throughput, because it is what more sessions are for: the time that a message takes rises with every
//! session where the upstream (or this relay) works on a few things at once, and says nothing of whether one more would help. A
//! trial changes the allowance; when the upstream has been in full use for a span, the throughput decides whether the change
//! stays. A trial that was not worth it is followed by a wait that doubles each time, so that the allowance settles. Trials
//! downwards are made when the throughput has fallen to a quarter, as with an upstream that slows down who comes with much. A session
//! that is not worth it is not closed, but left alone.
//!
//! What the upstream does decides at once: a reply that asks to wait takes a trial back, or else an eighth of the allowance; a session
//! that breaks takes a trial back; one that is declined while others stand leaves as many as there are.

use std::time::{Duration, Instant};

use crate::delivery::Fate;

/// The allowance at the beginning and after an outage: that of Postfix (`initial_destination_concurrency`).
pub(super) const FIRST: usize = 5;
/// The shortest time over which throughput is measured while the allowance grows for the first time.
const SPAN: Duration = Duration::from_millis(500);
/// The same from then on: longer than the second for which most services count.
const LONG_SPAN: Duration = Duration::from_secs(3);
/// The transactions that have to end meanwhile, for each session allowed.
const ENDED_PER_SESSION: u32 = 4;
/// What a trial has to bring, of what it would bring if every session carried the same.
const WORTH_IT: f64 = 0.2;
/// What is left of the throughput when fewer sessions are tried. Less of a fall is what other load on the same machines makes.
const SLOWED_DOWN: f64 = 0.25;
/// How long no trial upwards is made after one that was not worth it, and after a push-back; twice as long each time.
const FIRST_WAIT: Duration = Duration::from_secs(30);
/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

/// How a transaction ended, as far as it tells how much the upstream takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dispatch) enum Ending {
    /// A recipient was delivered or refused.
    Decided,
    /// All are to be tried again.
    Undecided,
    /// The upstream asks to wait.
    PushedBack,
    /// The session broke, or the upstream closed it (421). Many services do so now and then for reasons of their own.
    Broken,
}

impl Ending {
    /// How the transaction with these fates ended.
    pub(in crate::dispatch) fn of(fates: &[Fate]) -> Self {
        let any = |wanted: fn(&Fate) -> bool| fates.iter().any(wanted);
        if any(|fate| matches!(fate, Fate::Held(_))) {
            Self::PushedBack
        } else if any(|fate| matches!(fate, Fate::Ambiguous(_))) {
            Self::Broken
        } else if any(|fate| !matches!(fate, Fate::Deferred(_))) {
            Self::Decided
        } else {
            Self::Undecided
        }
    }
}

/// An allowance of sessions.
#[derive(Debug)]
pub(super) struct Concurrency {
    most: usize,
    first: usize,
    allowed: usize,
    changed: Option<Instant>,
    /// When what began before the last change has ended, as far as can be told.
    measured_from: Option<Instant>,
    /// The longest that a transaction has taken in this span, or the one before.
    slowest: Duration,
    /// Transactions a second with this allowance, or with the one before the trial.
    throughput: Option<f64>,
    /// The allowance before the trial that runs.
    before: Option<usize>,
    span: Option<Span>,
    /// No trial upwards before this.
    quiet_until: Option<Instant>,
    wait: Duration,
    /// Whether a trial upwards has failed since the beginning, so that small steps are left.
    near: bool,
}

/// A time in which the upstream was in full use.
#[derive(Debug)]
struct Span {
    since: Instant,
    /// When the last of those counted has ended.
    last: Instant,
    ended: u32,
    decided: u32,
}

impl Concurrency {
    /// Allows at most `most`, and at first at least one for each of so many source addresses.
    pub(super) fn new(most: usize, sources: usize) -> Self {
        Self::beginning(most, sources.max(FIRST))
    }

    fn beginning(most: usize, first: usize) -> Self {
        Self {
            most,
            first,
            allowed: first,
            changed: None,
            measured_from: None,
            slowest: Duration::ZERO,
            throughput: None,
            before: None,
            span: None,
            quiet_until: None,
            wait: FIRST_WAIT,
            near: false,
        }
    }

    /// The sessions allowed now.
    pub(super) fn allowed(&self) -> usize {
        self.allowed.min(self.most)
    }

    /// Allows at most `most` from now on, and at first at least one for each of so many source addresses.
    pub(super) fn limit(&mut self, most: usize, sources: usize) {
        let first = sources.max(FIRST);
        if first != self.first {
            *self = Self::beginning(most, first);
        }
        if most != self.most {
            self.end_trial();
            self.most = most;
        }
    }

    /// A transaction has ended that began then. `in_full_use` says that all sessions allowed stand and more messages wait than
    /// they take: only then does throughput say anything about sessions.
    pub(super) fn ended(&mut self, ending: Ending, began: Instant, in_full_use: bool, now: Instant) {
        let trial = self.before.is_some();
        if ending == Ending::PushedBack || (ending == Ending::Broken && trial) {
            // One that began under another allowance says nothing of this one.
            if self.changed.is_none_or(|changed| began >= changed) {
                self.pushed_back(now);
            }
            return;
        }
        if !in_full_use {
            self.span = None;
            return;
        }
        if self.measured_from.is_some_and(|from| now < from) {
            return;
        }
        if let Some(throughput) = self.measured(now) {
            self.judge(throughput, now);
            return;
        }
        let span = self.span.get_or_insert_with(|| {
            self.slowest = Duration::ZERO;
            Span { since: now, last: now, ended: 0, decided: 0 }
        });
        // The end of the first is where the span begins.
        if now > span.since {
            span.last = now;
            span.ended += 1;
            span.decided += u32::from(ending == Ending::Decided);
        }
        self.slowest = self.slowest.max(now.saturating_duration_since(began));
    }

    /// The throughput of the span, if that is long enough. Looked at when another transaction ends, so that of those that end
    /// together all are in it.
    fn measured(&mut self, now: Instant) -> Option<f64> {
        let shortest = if self.near { LONG_SPAN } else { SPAN };
        let enough = ENDED_PER_SESSION.saturating_mul(u32::try_from(self.allowed()).unwrap_or(u32::MAX));
        let span = self.span.take_if(|span| {
            now > span.last && span.last.duration_since(span.since) >= shortest && span.ended >= enough
        })?;
        Some(f64::from(span.decided) / span.last.duration_since(span.since).as_secs_f64())
    }

    /// The upstream declined a session beside so many others.
    pub(super) fn declined(&mut self, others: usize, now: Instant) {
        self.set(others.max(1), now);
        self.before = None;
        self.throughput = None;
        self.be_quiet(now);
    }

    /// The upstream has failed: what it took before says nothing of what it will take.
    pub(super) fn restart(&mut self) {
        *self = Self::beginning(self.most, self.first);
    }

    fn pushed_back(&mut self, now: Instant) {
        match self.before.take() {
            Some(before) => self.set(before, now),
            None => {
                self.throughput = None;
                self.set(self.fewer(), now);
            }
        }
        self.be_quiet(now);
    }

    /// What a span in full use has shown.
    fn judge(&mut self, throughput: f64, now: Instant) {
        match (self.before.take(), self.throughput) {
            (Some(before), Some(known)) => self.judge_trial(before, known, throughput, now),
            (_, Some(known)) if throughput < known * SLOWED_DOWN && self.allowed() > 1 => {
                self.throughput = Some(throughput);
                self.attempt(self.fewer(), now);
            }
            (_, known) => {
                // Slowly, so that a fall is noticed.
                self.throughput = Some(known.map_or(throughput, |known| known * 0.9 + throughput * 0.1));
                if self.allowed() < self.most && self.quiet_until.is_none_or(|until| until <= now) {
                    self.attempt(self.more(), now);
                }
            }
        }
    }

    fn judge_trial(&mut self, before: usize, known: f64, throughput: f64, now: Instant) {
        let upwards = self.allowed() > before;
        let change = self.allowed() as f64 / before as f64 - 1.0;
        let worth_it = throughput > 0.0 || !upwards;
        if !worth_it || throughput < known * (1.0 + WORTH_IT * change) {
            self.set(before, now);
            return self.be_quiet(now);
        }
        self.throughput = Some(throughput);
        if !upwards {
            self.quiet_until = Some(now + self.wait);
            if self.allowed() > 1 {
                self.attempt(self.fewer(), now);
            }
            return;
        }
        if self.allowed() < self.most {
            self.attempt(self.more(), now);
        }
    }

    fn attempt(&mut self, allowed: usize, now: Instant) {
        self.before = Some(self.allowed());
        self.set(allowed, now);
    }

    fn more(&self) -> usize {
        (self.allowed() + self.step()).min(self.most)
    }

    fn fewer(&self) -> usize {
        self.allowed().saturating_sub(self.step()).max(1)
    }

    /// Half of what is allowed, until that was once too much; then an eighth.
    fn step(&self) -> usize {
        (self.allowed() / if self.near { 8 } else { 2 }).max(1)
    }

    fn be_quiet(&mut self, now: Instant) {
        self.near = true;
        self.quiet_until = Some(now + self.wait);
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
    }

    fn end_trial(&mut self) {
        if let Some(before) = self.before.take() {
            self.allowed = before;
        }
        self.span = None;
    }

    fn set(&mut self, allowed: usize, now: Instant) {
        self.allowed = allowed.min(self.most);
        self.changed = Some(now);
        self.measured_from = Some(now + self.slowest);
        self.span = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_breaks_behind_the_content_is_no_throughput() {
        let of = |fates: &[Fate]| Ending::of(fates);
        let (ambiguous, deferred) = (Fate::Ambiguous("lost".into()), Fate::Deferred("later".into()));
        let refused = Fate::Refused(smtp_protocol::Reply::bare(550, "no"));
        assert_eq!(of(&[ambiguous.clone(), ambiguous]), Ending::Broken);
        assert_eq!(of(&[deferred.clone(), refused]), Ending::Decided);
        assert_eq!(of(&[deferred.clone(), deferred]), Ending::Undecided);
    }

    const START: Duration = Duration::from_secs(1);

    /// Lets transactions end at the throughput that `upstream` has with the allowance, for so long.
    fn run(
        concurrency: &mut Concurrency,
        now: &mut Instant,
        time: Duration,
        upstream: impl Fn(usize) -> f64,
    ) {
        let end = *now + time;
        while *now < end {
            *now += Duration::from_secs_f64(1.0 / upstream(concurrency.allowed()));
            concurrency.ended(Ending::Decided, *now, true, *now);
        }
    }

    fn proportional(sessions: usize) -> f64 {
        sessions as f64 * 100.0
    }

    #[test]
    fn where_every_session_carries_the_same_all_are_allowed_within_seconds() {
        let (mut concurrency, mut now) = (Concurrency::new(20, 1), Instant::now());
        run(&mut concurrency, &mut now, Duration::from_secs(5), proportional);
        assert_eq!(concurrency.allowed(), 20);
    }

    #[test]
    fn an_upstream_that_carries_ever_less_for_each_is_still_given_what_brings_more() {
        let (mut concurrency, mut now) = (Concurrency::new(20, 1), Instant::now());
        let sublinear = |sessions: usize| 1_000.0 * sessions as f64 / (1.0 + 0.05 * sessions as f64);
        run(&mut concurrency, &mut now, Duration::from_secs(10), sublinear);
        assert_eq!(concurrency.allowed(), 20);
    }

    #[test]
    fn nothing_is_learnt_while_less_waits_than_the_sessions_take() {
        let (mut concurrency, mut now) = (Concurrency::new(20, 1), Instant::now());
        for _ in 0..10_000 {
            now += Duration::from_millis(10);
            concurrency.ended(Ending::Decided, now, false, now);
        }
        assert_eq!(concurrency.allowed(), FIRST);
    }

    #[test]
    fn a_push_back_takes_a_trial_back_and_then_an_eighth_and_what_began_before_says_nothing() {
        let (mut concurrency, mut now) = (Concurrency::new(20, 1), Instant::now());
        run(&mut concurrency, &mut now, START, proportional);
        let (trial, before) = (concurrency.allowed(), concurrency.before.unwrap());
        assert!(trial > before);
        concurrency.ended(Ending::PushedBack, now, true, now);
        assert_eq!(concurrency.allowed(), before);
        concurrency.ended(Ending::PushedBack, now - SPAN, true, now);
        assert_eq!(concurrency.allowed(), before, "it began before");
        concurrency.ended(Ending::PushedBack, now, true, now);
        assert_eq!(concurrency.allowed(), before - (before / 8).max(1));
    }

    #[test]
    fn a_smaller_limit_holds_at_once_and_a_larger_one_is_tried() {
        let (mut concurrency, mut now) = (Concurrency::new(20, 1), Instant::now());
        run(&mut concurrency, &mut now, Duration::from_secs(5), proportional);
        concurrency.limit(4, 1);
        assert_eq!(concurrency.allowed(), 4);
        concurrency.limit(0, 1);
        assert_eq!(concurrency.allowed(), 0);
        concurrency.limit(20, 1);
        assert_eq!(concurrency.allowed(), 20, "what was worth it still is");
        concurrency.limit(20, 8);
        assert_eq!(concurrency.allowed(), 8, "one for each source at least");
    }
}
