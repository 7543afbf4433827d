//! Which messages a search means, and what it says of them. Pure: what is stored, the policy in force and `now` in, views out.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::view::{AttemptView, Message, MessageState, RecipientView, ReplyView, Summary};
use crate::attempt::{PastAttempt, PastResult};
use crate::config::Policy;
use crate::message::{DeliveryState, Envelope, MessageId, RecipientState, Timestamp};
use crate::routing::{self, Origin};
use crate::spool::Stored;

/// The most messages one page may have.
pub const LARGEST_PAGE: usize = 1000;
const CUSTOMARY_PAGE: usize = 100;

/// The parameters of a search. A message is found when all that are given hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Search {
    /// The identity rule that let the client in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The reverse-path: a mailbox, a domain, or `<>` for the null one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// The domain of a recipient that is still queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient_domain: Option<String>,
    /// An upstream that a queued recipient goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Accepted at least so long ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_age_seconds: Option<u64>,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<MessageState>,
    /// At most so many: 1 to [`LARGEST_PAGE`], by default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Behind this message, in the order of acceptance: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<MessageId>,
}

impl Search {
    /// How many messages the page may have.
    #[must_use]
    pub fn page(&self) -> usize {
        self.limit.unwrap_or(CUSTOMARY_PAGE).clamp(1, LARGEST_PAGE)
    }

    /// Whether a message that bears this id may be old enough; later ones are younger.
    pub(super) fn reaches(&self, id: MessageId, now: Timestamp) -> bool {
        self.minimum_age_seconds.is_none_or(|least| now.since(id.accepted_at()).as_secs() >= least)
    }

    /// Whether it is found.
    pub(super) fn finds(&self, summary: &Summary, stored: &Stored) -> bool {
        let equal =
            |wanted: &Option<String>, found: Option<&str>| wanted.is_none() || wanted.as_deref() == found;
        let domain = |wanted: &String| queued(stored).any(|(_, address)| has_domain(address, wanted));
        equal(&self.tenant, summary.tenant.as_deref())
            && self.sender.as_ref().is_none_or(|wanted| is_sender(&summary.sender, wanted))
            && self.recipient_domain.as_ref().is_none_or(domain)
            && self.upstream.as_ref().is_none_or(|wanted| summary.upstreams.contains(wanted))
            && self.minimum_age_seconds.is_none_or(|least| summary.age_seconds >= least)
            && self.state.is_none_or(|wanted| summary.state == wanted)
    }
}

/// A domain, a mailbox (whose domain is not case-sensitive, RFC 5321 §2.4), or the null reverse-path.
fn is_sender(sender: &str, wanted: &str) -> bool {
    match wanted.rsplit_once('@') {
        _ if wanted == "<>" => sender.is_empty(),
        Some(("", domain)) => has_domain(sender, domain),
        None => has_domain(sender, wanted),
        Some((local, domain)) => {
            has_domain(sender, domain) && sender.rsplit_once('@').is_some_and(|(found, _)| found == local)
        }
    }
}

fn has_domain(mailbox: &str, domain: &str) -> bool {
    mailbox.rsplit_once('@').is_some_and(|(_, found)| found.eq_ignore_ascii_case(domain))
}

fn queued(stored: &Stored) -> impl Iterator<Item = (usize, &str)> {
    let address = |index: usize| Some((index, stored.envelope.recipients.get(index)?.address.as_str()));
    stored.state.queued().filter_map(address)
}

/// What a list says of the message.
pub(super) fn summary(stored: &Stored, policy: &Policy, now: Timestamp) -> Summary {
    let Stored { envelope, state } = stored;
    let upstreams: BTreeSet<_> =
        queued(stored).filter_map(|(_, address)| upstream(policy, envelope, address)).collect();
    Summary {
        id: envelope.id,
        state: standing(state, now),
        accepted_at: envelope.accepted_at.to_string(),
        age_seconds: now.since(envelope.accepted_at).as_secs(),
        due_at: state.due_at.to_string(),
        attempts: state.attempts,
        tenant: envelope.identity.clone(),
        user: envelope.user.clone(),
        sender: envelope.reverse_path.clone(),
        queued: state.queued().count(),
        first_recipient: queued(stored).next().map(|(_, address)| address.to_owned()),
        upstreams: upstreams.into_iter().collect(),
        size: envelope.size,
        last_reply: last_reply(state),
    }
}

fn standing(state: &DeliveryState, now: Timestamp) -> MessageState {
    match state {
        DeliveryState { held: true, .. } => MessageState::Held,
        DeliveryState { due_at, .. } if *due_at > now => MessageState::Waiting,
        _ => MessageState::Due,
    }
}

/// All there is to say of the message.
pub(super) fn message(stored: &Stored, policy: &Policy, now: Timestamp) -> Message {
    let Stored { envelope, state } = stored;
    let recipient = |(recipient, state): (&crate::message::Recipient, &_)| RecipientView {
        address: recipient.address.clone(),
        state: *state,
        upstream: upstream(policy, envelope, &recipient.address),
    };
    let recipients = envelope.recipients.iter().zip(&state.recipients).map(recipient).collect();
    let history = state.history.iter().map(|attempt| attempt_view(envelope, attempt)).collect();
    Message { summary: summary(stored, policy, now), recipients, history }
}

fn attempt_view(envelope: &Envelope, attempt: &PastAttempt) -> AttemptView {
    let address = |index: &usize| Some(envelope.recipients.get(*index)?.address.clone());
    let reply = |result: &PastResult| ReplyView {
        recipients: result.recipients.iter().filter_map(address).collect(),
        text: result.text.clone(),
    };
    AttemptView {
        at: attempt.at.to_string(),
        upstream: attempt.upstream.clone(),
        address: attempt.address.clone(),
        milliseconds: attempt.took,
        replies: attempt.results.iter().map(reply).collect(),
    }
}

fn last_reply(state: &DeliveryState) -> Option<String> {
    let queued = |index: &usize| state.recipients.get(*index) == Some(&RecipientState::Queued);
    let results = state.history.iter().rev().flat_map(|attempt| &attempt.results);
    results.filter(|result| result.recipients.iter().any(queued)).map(|result| result.text.clone()).next()
}

/// The upstream that the recipient goes to as long as it works.
fn upstream(policy: &Policy, envelope: &Envelope, address: &str) -> Option<String> {
    let origin = Origin { sender: &envelope.reverse_path, identity: envelope.identity.as_deref() };
    let route = routing::route(policy, origin, address)?;
    Some(routing::choose(route, envelope.id, |_| true).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(100_000);

    fn stored() -> Stored {
        let accepted_at = Timestamp(40_000);
        let envelope = Envelope {
            id: MessageId::new(accepted_at, 1),
            reverse_path: "App@Shop.example".into(),
            recipients: vec!["a@example.net".into(), "b@example.org".into()],
            eight_bit: false,
            smtp_utf8: false,
            ret: None,
            envelope_id: None,
            size: 1,
            accepted_at,
            identity: Some("apps".into()),
            user: None,
        };
        let mut state = DeliveryState::new(2, Timestamp(120_000));
        state.recipients[0] = RecipientState::Delivered;
        Stored { envelope, state }
    }

    fn policy() -> Policy {
        let text = "version: relay-config.postroad.dev/v1\npool: {namespace: mail, name: main}\nreplicas: 1\n\
            hostname: relay.example\nlisteners: [{name: smtp, address: '127.0.0.1:0', tls: None, authentication: None}]\n\
            identities: []\nroutes: [{name: net, recipientDomains: [example.net], upstreams: [{name: first}]}, {name: rest, upstreams: [{name: second}]}]\n\
            upstreams: [{name: first, destination: {sandbox: {keepMessages: 1}}, connections: &c {maximum: 1, \
            messagesPerConnection: 1, idleTimeoutSeconds: 1, maximumAgeSeconds: 1}}, \
            {name: second, destination: {sandbox: {keepMessages: 1}}, connections: *c}]\n\
            queue: {expireAfterSeconds: 60, minimumBackoffSeconds: 1, maximumBackoffSeconds: 2, maximumBytes: 1000}\n\
            limits: {messageBytes: 1, recipientsPerMessage: 1, connections: 1, connectionsPerClient: 1}\n\
            shutdown: {acceptSeconds: 0, gracePeriodSeconds: 1}\n";
        Policy::compile(&postroad_crds::relay_config::RelayConfig::from_yaml(text).unwrap()).unwrap()
    }

    fn found(query: &str) -> bool {
        let search: Search = serde_urlencoded::from_str(query).unwrap();
        let stored = stored();
        search.reaches(stored.envelope.id, NOW) && search.finds(&summary(&stored, &policy(), NOW), &stored)
    }

    #[test]
    fn a_message_is_found_by_what_holds_of_what_is_still_queued() {
        for query in [
            "",
            "tenant=apps",
            "sender=App%40shop.EXAMPLE",
            "sender=shop.example",
            "sender=%40shop.example",
            "recipientDomain=Example.ORG",
            "upstream=second",
            "minimumAgeSeconds=60",
            "state=Waiting",
            "tenant=apps&upstream=second&state=Waiting",
        ] {
            assert!(found(query), "{query}");
        }
        for query in [
            "tenant=other",
            "sender=app%40shop.example",
            "sender=%3C%3E",
            "sender=example",
            "recipientDomain=example.net",
            "upstream=first",
            "minimumAgeSeconds=61",
            "state=Due",
            "tenant=apps&upstream=first",
        ] {
            assert!(!found(query), "{query}");
        }
    }

    #[test]
    fn a_misspelt_parameter_is_refused_rather_than_ignored() {
        assert!(serde_urlencoded::from_str::<Search>("tennant=apps").is_err());
    }

    #[test]
    fn a_message_tells_each_recipients_state_and_upstream() {
        let message = message(&stored(), &policy(), NOW);
        let told: Vec<_> = message
            .recipients
            .iter()
            .map(|recipient| (recipient.address.as_str(), recipient.state, recipient.upstream.as_deref()))
            .collect();
        let expected = [
            ("a@example.net", RecipientState::Delivered, Some("first")),
            ("b@example.org", RecipientState::Queued, Some("second")),
        ];
        assert_eq!(told, expected);
        assert_eq!(
            (message.summary.queued, message.summary.first_recipient.as_deref()),
            (1, Some("b@example.org"))
        );
        assert_eq!(message.summary.accepted_at, "1970-01-01T00:00:40Z");
    }
}
