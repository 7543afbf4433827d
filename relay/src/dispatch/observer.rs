//! Where dispatch's [`News`] become log lines and metrics, and nowhere else.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::line::Line;
use super::news::{News, Remedy};
use super::ways::Change;
use crate::budget::Scope;
use crate::config::Policy;
use crate::delivery::{Hold, HoldKind, PortChange, ReplyCounts};
use crate::message::{MessageId, RecipientState, Timestamp};
use crate::metrics::{self, Metrics};
use crate::order::Act;
use crate::queue::fair::Priority;
use crate::spool::SpoolError;

/// Logs and counts.
#[derive(Debug)]
pub(super) struct Observer(pub(super) Arc<Metrics>);

impl Observer {
    pub(super) fn tell(&self, news: News) {
        match news {
            News::Share { upstream, connections } => {
                self.0
                    .sessions_share
                    .get_or_create(&metrics::upstream(&upstream))
                    .set(i64::from(connections));
            }
            News::SessionOpened { upstream, again } => self.session_opened(&upstream, again),
            News::SessionNotOpened { upstream, reason, credentials_rejected, known } => {
                self.session_not_opened(&upstream, &reason, credentials_rejected, known);
            }
            News::SessionDeclined { upstream, reason } => {
                self.0.sessions_failed.get_or_create(&metrics::upstream(&upstream)).inc();
                tracing::info!(%upstream, reason, "upstream takes no further session; mail goes over those that stand");
            }
            News::Allowed { upstream, sessions } => {
                let gauge = self.0.sessions_allowed.get_or_create(&metrics::upstream(&upstream)).clone();
                gauge.set(i64::try_from(sessions).unwrap_or(i64::MAX));
            }
            News::OpenSessions { upstream, count } => {
                let gauge = self.0.sessions_open.get_or_create(&metrics::upstream(&upstream)).clone();
                gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
            }
            News::SessionLost { upstream, id, reason } => {
                tracing::info!(%id, %upstream, reason, "session lost before an outcome");
            }
            News::Attempted { upstream, replies, delivered, deferred, failed } => {
                self.attempted(&upstream, replies.is_some().into(), delivered, deferred, failed);
                if let Some(replies) = replies {
                    self.replies(&upstream, replies);
                }
            }
            News::Settled { id, recipients } => self.settled(id, &recipients),
            News::Held { upstream, hold, known } => self.held(&upstream, &hold, known),
            News::Drained { upstream, drained } => {
                self.0.upstream_drained.get_or_create(&metrics::upstream(&upstream)).set(drained.into());
                let act = if drained { "drained" } else { "resumed" };
                tracing::warn!(%upstream, "upstream {act} by order");
            }
            News::Gone { upstream } => self.0.forget_upstream(&upstream),
            News::Way(change) => self.way(&change),
            News::TakesMailAgain { upstream } => tracing::info!(%upstream, "upstream takes mail again"),
            News::Expired(recipients) => {
                self.0.recipients_expired.inc_by(recipients);
            }
            News::Notified { id, about } => {
                self.0.notifications.inc();
                tracing::info!(%id, %about, "sender notified");
            }
            News::SteppedBack(by) => {
                tracing::warn!(
                    seconds = by.as_secs(),
                    "the clock was set back; waiting mail waits no longer for it"
                );
            }
            News::Obeyed { id, act, recipients } => log_order(id, act, &recipients),
            News::Ambiguous { id, upstream, recipients, reason } => {
                let label = metrics::cause(metrics::Cause::SessionLost);
                self.0.recipients_ambiguous.get_or_create(&label).inc_by(recipients);
                tracing::warn!(%id, %upstream, recipients, reason, "the outcome is unknown: the message may have arrived");
            }
            News::HeldAsAmbiguous { id } => {
                tracing::warn!(%id, "held: it may have arrived; release or drop it (postroad-relay queue)");
            }
            News::Unrecorded { id, delivered, error } => {
                self.0.recipients_unrecorded.inc_by(delivered);
                tracing::error!(%id, delivered, %error, "an outcome could not be recorded");
            }
            News::Unreadable { id, error, remedy } => self.unreadable(id, &error, remedy),
        }
    }

    /// The message accepted first of those queued; `None` when none is.
    pub(super) fn oldest(&self, oldest: Option<MessageId>) {
        let accepted_at = oldest.map_or(0, |id| id.accepted_at().0);
        self.0.oldest_accepted_at.store(accepted_at, Ordering::Relaxed);
    }

    /// How many messages are held, and which of them was accepted first.
    pub(super) fn held_messages(&self, (count, oldest): (usize, Option<MessageId>)) {
        self.0.queue_held.set(i64::try_from(count).unwrap_or(i64::MAX));
        let accepted_at = oldest.map_or(0, |id| id.accepted_at().0);
        self.0.oldest_held_accepted_at.store(accepted_at, Ordering::Relaxed);
    }

    /// Forgets what had a budget or was a route and is not named by the policy that is in force `now`.
    pub(super) fn reconfigured(&self, before: &Policy, now: &Policy) {
        let gone = |scope: &&Scope| now.rates.iter().all(|(held, _)| held != *scope);
        let budgets = before.rates.iter().map(|(scope, _)| scope);
        budgets.filter(gone).for_each(|scope| self.0.forget_budget(scope));
        let gone = |name: &&str| now.routes.iter().all(|held| held.name != **name);
        let routes = before.routes.iter().map(|route| route.name.as_str());
        routes.filter(gone).for_each(|name| self.0.forget_route(name));
    }

    /// How much of the scope's fullest rate is used.
    pub(super) fn budget_used(&self, scope: &Scope, percent: u64) {
        let gauge = self.0.budget_used_percent.get_or_create(&metrics::budget(scope)).clone();
        gauge.set(i64::try_from(percent).unwrap_or(i64::MAX));
    }

    /// How long until a rate of the scope is used up; no series says that none will be.
    pub(super) fn budget_exhausted(&self, scope: &Scope, wait: Option<Duration>) {
        let (family, label) = (&self.0.budget_exhausted_seconds, metrics::budget(scope));
        match wait {
            Some(wait) => {
                family.get_or_create(&label).set(i64::try_from(wait.as_secs()).unwrap_or(i64::MAX));
            }
            None => drop(family.remove(&label)),
        }
    }

    /// How many jobs wait for the upstream at `now`, and the message of them accepted first.
    pub(super) fn backlog(&self, upstream: &str, waiting: usize, oldest: Option<MessageId>, now: Timestamp) {
        let label = metrics::upstream(upstream);
        let age = oldest.map_or(0, |id| now.since(id.accepted_at()).as_secs());
        self.0.upstream_waiting.get_or_create(&label).set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.0
            .upstream_waiting_oldest_seconds
            .get_or_create(&label)
            .set(i64::try_from(age).unwrap_or(i64::MAX));
    }

    /// How long mail has waited for the upstream's rates.
    pub(super) fn throttled(&self, upstream: &str, waited: Duration) {
        if !waited.is_zero() {
            let label = metrics::upstream(upstream);
            self.0.upstream_throttled_seconds.get_or_create(&label).inc_by(waited.as_secs_f64());
        }
    }

    /// How many messages of this urgency there are at `now`, and which of them was accepted first.
    pub(super) fn class(
        &self,
        priority: Priority,
        (count, oldest): (usize, Option<MessageId>),
        now: Timestamp,
    ) {
        let label = metrics::priority(priority);
        let age = oldest.map_or(0, |id| now.since(id.accepted_at()).as_secs());
        self.0.queue_class_messages.get_or_create(&label).set(i64::try_from(count).unwrap_or(i64::MAX));
        self.0.queue_class_oldest_seconds.get_or_create(&label).set(i64::try_from(age).unwrap_or(i64::MAX));
    }

    /// One line when an upstream is reached on another port than before, or not on the one that is preferred.
    pub(super) fn port(&self, upstream: &str, change: &PortChange) {
        let PortChange { port, before, passed_over } = change;
        self.0.upstream_port.get_or_create(&metrics::upstream(upstream)).set(i64::from(*port));
        if before.is_some() || !passed_over.is_empty() {
            let passed_over = passed_over.join("; ");
            tracing::warn!(upstream, port, before, passed_over, "upstream reached on another port");
        }
    }

    fn session_opened(&self, upstream: &str, again: bool) {
        let label = metrics::upstream(upstream);
        self.0.sessions_opened.get_or_create(&label).inc();
        self.0.upstream_up.get_or_create(&label).set(1);
        if again {
            tracing::info!(upstream, "upstream reached again");
        }
    }

    fn session_not_opened(&self, upstream: &str, reason: &str, credentials_rejected: bool, known: bool) {
        let label = metrics::upstream(upstream);
        self.0.sessions_failed.get_or_create(&label).inc();
        self.0.upstream_up.get_or_create(&label).set(0);
        match (known, credentials_rejected) {
            (true, _) => {}
            (false, true) => credentials_are_rejected(upstream, reason),
            (false, false) => tracing::warn!(upstream, reason, "no session with the upstream; mail waits"),
        }
    }

    /// Nothing is made of a count of zero: a series begins with what it counts.
    fn attempted(&self, upstream: &str, transactions: u64, delivered: u64, deferred: u64, failed: u64) {
        let label = metrics::upstream(upstream);
        let counters = &*self.0;
        for (family, count) in [
            (&counters.transactions, transactions),
            (&counters.recipients_delivered, delivered),
            (&counters.recipients_deferred, deferred),
            (&counters.recipients_failed, failed),
        ] {
            if count > 0 {
                family.get_or_create(&label).inc_by(count);
            }
        }
    }

    fn replies(&self, upstream: &str, ReplyCounts { positive, transient, permanent }: ReplyCounts) {
        for (class, count) in metrics::REPLY_CLASSES.into_iter().zip([positive, transient, permanent]) {
            if count > 0 {
                self.0.replies.get_or_create(&metrics::reply(upstream, class)).inc_by(count.into());
            }
        }
    }

    fn held(&self, upstream: &str, hold: &Hold, known: bool) {
        self.0.upstream_holds.get_or_create(&metrics::upstream(upstream)).inc();
        let reason = &hold.why;
        match hold.kind {
            _ if known => {}
            HoldKind::Parked(wait) => {
                let seconds = wait.as_secs();
                tracing::warn!(upstream, reason, seconds, "upstream parked; mail waits");
            }
            HoldKind::Tripped => tracing::warn!(upstream, reason, "upstream unwell; mail waits"),
            HoldKind::CredentialsRejected => credentials_are_rejected(upstream, reason),
        }
    }

    /// One line when a route fails over, and one when it is back.
    fn way(&self, change: &Change) {
        let Change { route, from, to, new } = change;
        let label = metrics::route(&route.name);
        let priority = to.map_or(0, |position| i64::try_from(position + 1).unwrap_or(i64::MAX));
        self.0.route_priority.get_or_create(&label).set(priority);
        let upstreams = to.and_then(|position| route.preferences.get(position)).into_iter().flatten();
        let upstreams: Vec<_> = upstreams.map(|held| held.upstream.as_str()).collect();
        let (route, upstreams) = (&route.name, upstreams.join(","));
        match to {
            _ if *new => {}
            None => tracing::warn!(route, "no upstream of the route works; its mail waits"),
            Some(to) if from.map_or(*to > 0, |from| *to > from) => {
                self.0.route_fail_overs.get_or_create(&label).inc();
                tracing::warn!(route, upstreams, priority, "route failed over");
            }
            Some(_) => tracing::info!(route, upstreams, priority, "route is back"),
        }
    }

    fn settled(&self, id: MessageId, recipients: &[Line]) {
        let given_up = |line: &&Line| matches!(line.state, RecipientState::Failed | RecipientState::Expired);
        let double_bounces = recipients.iter().filter(|line| line.notification).filter(given_up).count();
        self.0.notifications_undeliverable.inc_by(double_bounces as u64);
        recipients.iter().for_each(|line| log_recipient(id, line));
    }

    fn unreadable(&self, id: MessageId, error: &SpoolError, remedy: Remedy) {
        match remedy {
            Remedy::None => tracing::error!(%id, %error, "nothing is left to deliver"),
            Remedy::Later => {
                tracing::error!(%id, %error, "a message cannot be read; it is tried again later")
            }
            Remedy::Quarantine => {
                self.0.messages_quarantined.inc();
                tracing::error!(%id, %error, "a message is damaged and goes into quarantine");
            }
        }
    }
}

/// One line a recipient and attempt; docs/operations/log.md explains the fields.
fn log_recipient(id: MessageId, line: &Line) {
    let Line { recipient, state, upstream, address, took, notification, text, next } = line;
    let (upstream, address) = (upstream.as_deref(), address.map(tracing::field::display));
    let notification = notification.then_some(true);
    let milliseconds = took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    match state {
        RecipientState::Delivered => {
            tracing::info!(%id, recipient, upstream, address, milliseconds, reply = text, "delivered");
        }
        RecipientState::Queued => {
            let next = next.map(tracing::field::display);
            tracing::info!(%id, recipient, upstream, address, milliseconds, reason = text, next, "deferred");
        }
        RecipientState::Failed => {
            tracing::warn!(%id, recipient, upstream, address, milliseconds, notification, reason = text, "undeliverable");
        }
        RecipientState::Expired => {
            let expired = true;
            tracing::warn!(%id, recipient, upstream, address, milliseconds, notification, expired, reason = text, "undeliverable");
        }
    }
}

/// Mail that a person gives up is told of recipient by recipient, as any other that is given up.
fn log_order(id: MessageId, act: Act, recipients: &[String]) {
    match act {
        Act::Retry => tracing::info!(%id, "tried again by order"),
        Act::Hold => tracing::warn!(%id, "held by order"),
        Act::Release => tracing::info!(%id, "released by order"),
        Act::Drop => {
            recipients.iter().for_each(|recipient| tracing::warn!(%id, recipient, "dropped by order"));
        }
    }
}

fn credentials_are_rejected(upstream: &str, reason: &str) {
    tracing::error!(upstream, reason, "credentials rejected; mail waits: check their Secret");
}
