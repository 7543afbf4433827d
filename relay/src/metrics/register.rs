//! The names under which a relay's metrics are told, and what they say of themselves.

use prometheus_client::registry::{Registry, Unit};

use super::counted::Metrics;

/// All of them.
pub(super) fn all(m: &Metrics) -> Registry {
    let mut registry = Registry::with_prefix("postroad_relay");
    let r = &mut registry;
    submission(r, m);
    outcomes(r, m);
    queue(r, m);
    sessions(r, m);
    upstreams(r, m);
    routes(r, m);
    spool(r, m);
    recovery(r, m);
    ledger(r, m);
    copies(r, m);
    registry
}

fn submission(r: &mut Registry, m: &Metrics) {
    r.register("connections", "Connections from clients", m.connections.clone());
    r.register(
        "connections_refused",
        "Connections refused because too many were open",
        m.connections_refused.clone(),
    );
    r.register("connections_open", "Connections from clients open now", m.connections_open.clone());
    r.register(
        "authentication_failures",
        "AUTH exchanges with a wrong user or password",
        m.authentication_failures.clone(),
    );
    r.register("refusals", "Commands and messages of clients refused, by `reason`", m.refusals.clone());
    r.register("messages_accepted", "Messages answered 250", m.messages_accepted.clone());
    r.register("recipients_accepted", "Recipients of messages answered 250", m.recipients_accepted.clone());
    r.register(
        "messages_in_transit",
        "Messages whose clients wait for an upstream's reply",
        m.messages_in_transit.clone(),
    );
    r.register("configurations_applied", "Configurations put in force", m.configurations_applied.clone());
    r.register("configurations_refused", "Configurations refused", m.configurations_refused.clone());
}

fn outcomes(r: &mut Registry, m: &Metrics) {
    r.register(
        "notifications",
        "Recipients of delivery status notifications that the relay composed",
        m.notifications.clone(),
    );
    r.register(
        "notifications_undeliverable",
        "Recipients of notifications that were refused for good or expired (double bounces): nobody is told, the log says why",
        m.notifications_undeliverable.clone(),
    );
    r.register(
        "recipients_delivered",
        "Recipients an upstream took responsibility for",
        m.recipients_delivered.clone(),
    );
    r.register("recipients_deferred", "Attempts put off, per recipient", m.recipients_deferred.clone());
    r.register(
        "recipients_failed",
        "Recipients refused for good by an upstream",
        m.recipients_failed.clone(),
    );
    r.register(
        "recipients_expired",
        "Recipients given up after the pool's expiry",
        m.recipients_expired.clone(),
    );
    r.register(
        "messages_quarantined",
        "Messages put aside because they could not be read",
        m.messages_quarantined.clone(),
    );
    r.register(
        "messages_handed_over",
        "Messages given to other relays of the pool",
        m.messages_handed_over.clone(),
    );
    r.register(
        "messages_taken_over",
        "Messages taken from other relays of the pool",
        m.messages_taken_over.clone(),
    );
}

fn queue(r: &mut Registry, m: &Metrics) {
    r.register("queue_messages", "Messages in the spool", m.queue_messages.clone());
    r.register_with_unit(
        "queue_oldest",
        "Time since the oldest message that is queued or in transit was accepted",
        Unit::Seconds,
        m.queue_oldest_seconds.clone(),
    );
    r.register(
        "queue_class_messages",
        "Messages that are queued or in transit, by `priority` of the identity they come from; looked at every 30 seconds",
        m.queue_class_messages.clone(),
    );
    r.register_with_unit(
        "queue_class_oldest",
        "Time since the oldest message of the priority was accepted; looked at every 30 seconds",
        Unit::Seconds,
        m.queue_class_oldest_seconds.clone(),
    );
    r.register(
        "queue_held",
        "Messages of these that are held: by a person's order, or because they may have arrived and `queue.ambiguousDelivery` is `Hold`. They neither go nor expire until somebody releases or drops them",
        m.queue_held.clone(),
    );
    r.register_with_unit(
        "queue_held_oldest",
        "Time since the oldest of the held messages was accepted",
        Unit::Seconds,
        m.queue_held_oldest_seconds.clone(),
    );
}

fn sessions(r: &mut Registry, m: &Metrics) {
    r.register("sessions_opened", "Sessions opened to an upstream", m.sessions_opened.clone());
    r.register("sessions_failed", "Attempts to open a session that failed", m.sessions_failed.clone());
    r.register("sessions_open", "Sessions with an upstream open now", m.sessions_open.clone());
    r.register("sessions_share", "Sessions this relay may have with an upstream", m.sessions_share.clone());
    r.register(
        "sessions_allowed",
        "How many of these sessions are in use at most, because more carry no more (docs/concepts/sessions.md)",
        m.sessions_allowed.clone(),
    );
}

fn upstreams(r: &mut Registry, m: &Metrics) {
    r.register(
        "upstream_drained",
        "1 while a person has ordered by the admin API that the upstream is given no more mail",
        m.upstream_drained.clone(),
    );
    r.register(
        "budget_used_percent",
        "How much of this relay's share of the fullest rate is used, of an upstream, a `source` address (`<upstream>@<address>`), a `route` or an `identity`; looked at every 30 seconds",
        m.budget_used_percent.clone(),
    );
    r.register_with_unit(
        "budget_exhausted",
        "How long until this relay's share of a rate over more than ten seconds is used up if mail goes on as over the last eighth of its span, of an upstream, a `route` or an `identity`; absent where it will not be; looked at every 30 seconds",
        Unit::Seconds,
        m.budget_exhausted_seconds.clone(),
    );
    r.register(
        "upstream_waiting",
        "Messages, or parts of them, that are due and wait for the upstream: for a session, its rates, its being back; looked at every 30 seconds",
        m.upstream_waiting.clone(),
    );
    r.register_with_unit(
        "upstream_waiting_oldest",
        "Time since the oldest of them was accepted; looked at every 30 seconds",
        Unit::Seconds,
        m.upstream_waiting_oldest_seconds.clone(),
    );
    r.register(
        "transactions",
        "Mail transactions that came to an outcome; by how many they exceed the sessions opened tells how sessions are reused",
        m.transactions.clone(),
    );
    r.register(
        "replies",
        "Replies of an upstream that decided a recipient, by `class`: 2yz, 4yz, 5yz",
        m.replies.clone(),
    );
    r.register_with_unit(
        "upstream_throttled",
        "Time in which mail was due and waited because this relay's share of the upstream's rates, or of all its source addresses, was used up, or because the upstream asked to be left alone for a while; looked at every 30 seconds",
        Unit::Seconds,
        m.upstream_throttled_seconds.clone(),
    );
    r.register(
        "upstream_holds",
        "Transactions in which a reply asked to leave the upstream alone: a rate, a quota, rejected credentials",
        m.upstream_holds.clone(),
    );
    r.register(
        "upstream_up",
        "1 when the last attempt to open a session succeeded, 0 when it failed",
        m.upstream_up.clone(),
    );
    r.register(
        "upstream_port",
        "The port on which sessions with the upstream were opened last; the log says why better ones were passed over",
        m.upstream_port.clone(),
    );
}

fn routes(r: &mut Registry, m: &Metrics) {
    r.register(
        "route_priority",
        "Which of a route's priorities takes its messages, counted from 1, the best; 0 while none of its upstreams works",
        m.route_priority.clone(),
    );
    r.register(
        "route_fail_overs",
        "How often a route went over to upstreams of a worse priority",
        m.route_fail_overs.clone(),
    );
}

fn copies(r: &mut Registry, m: &Metrics) {
    r.register(
        "recipients_ambiguous",
        "Recipients that may have their message already, by `cause`: all of it was sent when the session broke (session_lost) or the relay died (relay_died, counted by the next start). They are sent it again or it is held, by the pool's `queue.ambiguousDelivery`",
        m.recipients_ambiguous.clone(),
    );
    r.register(
        "recipients_unrecorded",
        "Recipients an upstream took responsibility for while the spool could not be written: the next start does not know it, and sends them the message again",
        m.recipients_unrecorded.clone(),
    );
}

fn spool(r: &mut Registry, m: &Metrics) {
    let bytes = || Unit::Bytes;
    r.register_with_unit("spool_used", "Disk in use by the spool", bytes(), m.spool_bytes.clone());
    r.register_with_unit(
        "spool_live",
        "Disk in use by the spool for mail",
        bytes(),
        m.spool_live_bytes.clone(),
    );
    r.register("spool_syncs", "Syncs of the spool to stable storage", m.spool_syncs.clone());
    r.register(
        "spool_writable",
        "1 while the spool takes mail, 0 when it is full or has failed",
        m.spool_writable.clone(),
    );
    r.register("spool_quarantined", "Messages in quarantine", m.spool_quarantined.clone());
}

fn recovery(r: &mut Registry, m: &Metrics) {
    r.register_with_unit(
        "spool_unread",
        "What earlier runs left in the spool and is still to be read after the start; until it is 0, queue and ledger do not show that mail",
        Unit::Bytes,
        m.spool_unread_bytes.clone(),
    );
}

fn ledger(r: &mut Registry, m: &Metrics) {
    r.register(
        "ledger_accepted",
        "Recipients ever accepted by this spool, those of notifications included; over restarts and crashes equal to all that ended and `postroad_relay_ledger_queued`",
        m.ledger_accepted.clone(),
    );
    r.register(
        "ledger_ended",
        "Recipients of them that are queued no longer, by `fate`: delivered, failed_notified, failed_unnotified (null reverse-path, NOTIFY=NEVER), expired, dropped (by a person), handed_over (to another relay), quarantined (damaged on disk)",
        m.ledger_ended.clone(),
    );
    r.register("ledger_queued", "Recipients of them still to be delivered", m.ledger_queued.clone());
}
