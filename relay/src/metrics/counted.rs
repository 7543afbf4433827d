//! The metrics, and counting.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::label::{
    BudgetLabel, CauseLabel, FateLabel, PriorityLabel, REPLY_CLASSES, RefusalLabel, ReplyLabel, RouteLabel,
    UpstreamLabel, budget, reply, route, upstream,
};
use super::register;
use crate::budget::Scope;
use crate::spool::{Fate, Usage};

/// All metrics of a relay. Counting is one atomic addition.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Held while the account is taken over and told, so that two scrapes do not mix theirs.
    rendering: Mutex<()>,
    /// Connections from clients.
    pub connections: Counter,
    /// Connections refused because too many were open.
    pub connections_refused: Counter,
    /// Connections from clients open now.
    pub connections_open: Gauge,
    /// AUTH exchanges with a wrong user or password.
    pub authentication_failures: Counter,
    /// Commands and messages refused, by what decided.
    pub refusals: Family<RefusalLabel, Counter>,
    /// Messages answered 250.
    pub messages_accepted: Counter,
    /// Their recipients.
    pub recipients_accepted: Counter,
    /// Messages whose clients wait for an upstream's reply.
    pub messages_in_transit: Gauge,
    /// Recipients of delivery status notifications that the relay composed.
    pub notifications: Counter,
    /// Recipients of them that were given up.
    pub notifications_undeliverable: Counter,
    /// Recipients an upstream took responsibility for.
    pub recipients_delivered: Family<UpstreamLabel, Counter>,
    /// Attempts put off, per recipient.
    pub recipients_deferred: Family<UpstreamLabel, Counter>,
    /// Recipients refused for good.
    pub recipients_failed: Family<UpstreamLabel, Counter>,
    /// Recipients given up after the pool's expiry.
    pub recipients_expired: Counter,
    /// Recipients that may have their message already.
    pub recipients_ambiguous: Family<CauseLabel, Counter>,
    /// Recipients delivered of which the spool could not be told.
    pub recipients_unrecorded: Counter,
    /// Messages given to other relays of the pool.
    pub messages_handed_over: Counter,
    /// Messages taken from other relays of the pool.
    pub messages_taken_over: Counter,
    /// Messages put aside because they could not be read.
    pub messages_quarantined: Counter,
    /// Messages in the spool.
    pub queue_messages: Gauge,
    /// Seconds since the oldest of them was accepted.
    pub queue_oldest_seconds: Gauge,
    /// When the oldest was accepted, in milliseconds since the epoch, 0 for none: what the gauge is computed from.
    pub oldest_accepted_at: AtomicU64,
    /// Messages that are not tried until somebody releases them.
    pub queue_held: Gauge,
    /// Seconds since the oldest of them was accepted.
    pub queue_held_oldest_seconds: Gauge,
    /// When that was, as in `oldest_accepted_at`.
    pub oldest_held_accepted_at: AtomicU64,
    /// Messages of each urgency.
    pub queue_class_messages: Family<PriorityLabel, Gauge>,
    /// Seconds since the oldest of them was accepted.
    pub queue_class_oldest_seconds: Family<PriorityLabel, Gauge>,
    /// Sessions opened to upstreams.
    pub sessions_opened: Family<UpstreamLabel, Counter>,
    /// Attempts to open one that failed.
    pub sessions_failed: Family<UpstreamLabel, Counter>,
    /// Sessions open now.
    pub sessions_open: Family<UpstreamLabel, Gauge>,
    /// Sessions this relay may have.
    pub sessions_share: Family<UpstreamLabel, Gauge>,
    /// Sessions of these that are worth it now.
    pub sessions_allowed: Family<UpstreamLabel, Gauge>,
    /// Whether the last attempt to reach the upstream succeeded.
    pub upstream_up: Family<UpstreamLabel, Gauge>,
    /// Whether a person has ordered that the upstream is given nothing.
    pub upstream_drained: Family<UpstreamLabel, Gauge>,
    /// How much of the upstream's fullest rate is used.
    pub budget_used_percent: Family<BudgetLabel, Gauge>,
    /// How long until a rate is used up.
    pub budget_exhausted_seconds: Family<BudgetLabel, Gauge>,
    /// Parts of messages that are due and wait for the upstream.
    pub upstream_waiting: Family<UpstreamLabel, Gauge>,
    /// Seconds since the oldest of them was accepted.
    pub upstream_waiting_oldest_seconds: Family<UpstreamLabel, Gauge>,
    /// Seconds in which mail waited for an upstream's rates.
    pub upstream_throttled_seconds: Family<UpstreamLabel, Counter<f64, AtomicU64>>,
    /// Replies that decided a recipient.
    pub replies: Family<ReplyLabel, Counter>,
    /// Mail transactions that came to an outcome.
    pub transactions: Family<UpstreamLabel, Counter>,
    /// The port on which the upstream was reached last.
    pub upstream_port: Family<UpstreamLabel, Gauge>,
    /// Which priority of the route takes its messages.
    pub route_priority: Family<RouteLabel, Gauge>,
    /// How often a route fell back to a worse priority.
    pub route_fail_overs: Family<RouteLabel, Counter>,
    /// Replies that asked to leave the upstream alone.
    pub upstream_holds: Family<UpstreamLabel, Counter>,
    /// Configurations put in force.
    pub configurations_applied: Counter,
    /// Configurations refused.
    pub configurations_refused: Counter,
    /// Octets of disk in use by the spool.
    pub spool_bytes: Gauge<u64, AtomicU64>,
    /// Octets of them that hold mail.
    pub spool_live_bytes: Gauge<u64, AtomicU64>,
    /// Syncs of the spool to stable storage.
    pub spool_syncs: Gauge<u64, AtomicU64>,
    /// Whether the spool takes mail.
    pub spool_writable: Gauge,
    /// Messages in quarantine.
    pub spool_quarantined: Gauge<u64, AtomicU64>,
    /// Octets of earlier runs still to be read.
    pub spool_unread_bytes: Gauge<u64, AtomicU64>,
    /// Recipients ever accepted by this spool.
    pub ledger_accepted: Counter,
    /// Those of them that have ended, by what became of them.
    pub ledger_ended: Family<FateLabel, Counter>,
    /// Those of them still to be delivered.
    pub ledger_queued: Gauge<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics, at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            rendering: Mutex::default(),
            connections: Counter::default(),
            connections_refused: Counter::default(),
            connections_open: Gauge::default(),
            authentication_failures: Counter::default(),
            refusals: Family::default(),
            messages_accepted: Counter::default(),
            recipients_accepted: Counter::default(),
            messages_in_transit: Gauge::default(),
            notifications: Counter::default(),
            notifications_undeliverable: Counter::default(),
            recipients_delivered: Family::default(),
            recipients_deferred: Family::default(),
            recipients_failed: Family::default(),
            recipients_expired: Counter::default(),
            recipients_ambiguous: Family::default(),
            recipients_unrecorded: Counter::default(),
            messages_handed_over: Counter::default(),
            messages_taken_over: Counter::default(),
            messages_quarantined: Counter::default(),
            queue_messages: Gauge::default(),
            queue_oldest_seconds: Gauge::default(),
            oldest_accepted_at: AtomicU64::new(0),
            queue_held: Gauge::default(),
            queue_held_oldest_seconds: Gauge::default(),
            oldest_held_accepted_at: AtomicU64::new(0),
            sessions_opened: Family::default(),
            sessions_failed: Family::default(),
            sessions_open: Family::default(),
            sessions_share: Family::default(),
            sessions_allowed: Family::default(),
            upstream_up: Family::default(),
            upstream_drained: Family::default(),
            budget_used_percent: Family::default(),
            budget_exhausted_seconds: Family::default(),
            upstream_waiting: Family::default(),
            upstream_waiting_oldest_seconds: Family::default(),
            transactions: Family::default(),
            upstream_holds: Family::default(),
            upstream_throttled_seconds: Family::default(),
            replies: Family::default(),
            queue_class_messages: Family::default(),
            queue_class_oldest_seconds: Family::default(),
            upstream_port: Family::default(),
            route_priority: Family::default(),
            route_fail_overs: Family::default(),
            configurations_applied: Counter::default(),
            configurations_refused: Counter::default(),
            spool_bytes: Gauge::default(),
            spool_live_bytes: Gauge::default(),
            spool_syncs: Gauge::default(),
            spool_writable: Gauge::default(),
            spool_quarantined: Gauge::default(),
            spool_unread_bytes: Gauge::default(),
            ledger_accepted: Counter::default(),
            ledger_ended: Family::default(),
            ledger_queued: Gauge::default(),
        };
        metrics.registry = register::all(&metrics);
        metrics
    }

    /// The counters of what happens with an upstream.
    fn counters_by_upstream(&self) -> [&Family<UpstreamLabel, Counter>; 7] {
        [
            &self.recipients_delivered,
            &self.recipients_deferred,
            &self.recipients_failed,
            &self.sessions_opened,
            &self.sessions_failed,
            &self.upstream_holds,
            &self.transactions,
        ]
    }

    /// The gauges of how an upstream stands.
    fn gauges_by_upstream(&self) -> [&Family<UpstreamLabel, Gauge>; 8] {
        [
            &self.sessions_open,
            &self.sessions_share,
            &self.sessions_allowed,
            &self.upstream_up,
            &self.upstream_drained,
            &self.upstream_port,
            &self.upstream_waiting,
            &self.upstream_waiting_oldest_seconds,
        ]
    }

    /// Removes the series of an upstream that there is no more: the last value of what nobody sets again would be taken for the
    /// present one. What it was given under rates has its own series: [`forget_budget`](Self::forget_budget).
    pub fn forget_upstream(&self, name: &str) {
        let label = upstream(name);
        for family in self.counters_by_upstream() {
            family.remove(&label);
        }
        for family in self.gauges_by_upstream() {
            family.remove(&label);
        }
        self.upstream_throttled_seconds.remove(&label);
        for class in REPLY_CLASSES {
            self.replies.remove(&reply(name, class));
        }
    }

    /// Removes the series of a route that there is no more.
    pub fn forget_route(&self, name: &str) {
        let label = route(name);
        self.route_priority.remove(&label);
        self.route_fail_overs.remove(&label);
    }

    /// Removes the series of what has rates no more.
    pub fn forget_budget(&self, scope: &Scope) {
        let label = budget(scope);
        self.budget_used_percent.remove(&label);
        self.budget_exhausted_seconds.remove(&label);
    }

    /// Takes over the spool's account. One look at the spool gives all of it, so that it balances in every scrape.
    fn take_ledger(&self, usage: &Usage) {
        self.ledger_accepted.inner().store(usage.ledger.accepted, Ordering::Relaxed);
        for fate in Fate::ALL {
            let series = self.ledger_ended.get_or_create(&FateLabel { fate: fate.name() });
            series.inner().store(usage.ledger.fates.get(fate), Ordering::Relaxed);
        }
        self.ledger_queued.set(usage.queued);
    }

    /// The metrics with the spool's account, in the text format of OpenMetrics 1.0.
    ///
    /// # Panics
    /// When an earlier call has.
    #[must_use]
    pub fn render_with(&self, usage: &Usage) -> String {
        let _alone = self.rendering.lock().expect("rendering does not panic");
        self.spool_unread_bytes.set(usage.unread.unwrap_or_default());
        if usage.unread.is_none() {
            self.take_ledger(usage);
        }
        self.render()
    }

    /// The metrics in the text format of OpenMetrics 1.0.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String does not fail");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Cause, cause, priority, refusal};
    use crate::queue::fair::Priority;
    use crate::submission::refusal::Reason;

    /// The first series of all that an upstream, a route and a budget named `example` have.
    fn begin_series(metrics: &Metrics) {
        let label = upstream("example");
        metrics.counters_by_upstream().iter().for_each(|family| drop(family.get_or_create(&label)));
        metrics.gauges_by_upstream().iter().for_each(|family| drop(family.get_or_create(&label)));
        drop(metrics.upstream_throttled_seconds.get_or_create(&label));
        REPLY_CLASSES.iter().for_each(|class| drop(metrics.replies.get_or_create(&reply("example", class))));
        for family in [&metrics.budget_used_percent, &metrics.budget_exhausted_seconds] {
            drop(family.get_or_create(&budget(&Scope::Upstream("example".into()))));
        }
        drop(metrics.route_priority.get_or_create(&route("example")));
        drop(metrics.route_fail_overs.get_or_create(&route("example")));
    }

    #[test]
    fn what_there_is_no_more_leaves_no_series() {
        let metrics = Metrics::new();
        begin_series(&metrics);
        assert_eq!(metrics.render().matches("\"example\"").count(), 7 + 8 + 1 + 3 + 2 + 2);
        metrics.forget_upstream("example");
        metrics.forget_route("example");
        metrics.forget_budget(&Scope::Upstream("example".into()));
        let left = metrics.render();
        assert!(!left.contains("\"example\""), "{left}");
    }

    /// `UPDATE=1 cargo test -p postroad-relay` rewrites the reference.
    #[test]
    fn the_reference_lists_every_metric() {
        let metrics = Metrics::new();
        // A family shows only with its first series.
        begin_series(&metrics);
        for family in [&metrics.queue_class_messages, &metrics.queue_class_oldest_seconds] {
            drop(family.get_or_create(&priority(Priority::Normal)));
        }
        for known in [Cause::SessionLost, Cause::RelayDied] {
            drop(metrics.recipients_ambiguous.get_or_create(&cause(known)));
        }
        for reason in Reason::ALL {
            drop(metrics.refusals.get_or_create(&refusal(reason)));
        }
        metrics.take_ledger(&Usage::default());
        let rendered = metrics.render();
        let mut text = "# Metrics of a relay\n\n<!-- Generated from relay/src/metrics/ by `make generate`. Do not edit. -->\n\n\
            Served at `/metrics` on the admin port in the text format of OpenMetrics. Counters start at zero with the process,\n\
            but for those of the ledger, which the spool keeps.\n\
            Those that concern an upstream have the label `upstream`, of a route `route`; what the reasons of refusals mean is in [replies](replies.md).\n\
            What the configuration names no more has no series any more.\n\n| metric | type | meaning |\n|---|---|---|\n"
            .to_owned();
        for line in rendered.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
            let (name, help) = line.split_once(' ').unwrap();
            let counter = rendered.contains(&format!("# TYPE {name} counter"));
            let (suffix, kind) = if counter { ("_total", "counter") } else { ("", "gauge") };
            text.push_str(&format!("| `{name}{suffix}` | {kind} | {} |\n", help.trim_end_matches('.')));
        }
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/metrics.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == text, "docs/reference/metrics.md is not current: run `make generate`");
    }
}
