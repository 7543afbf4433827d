//! Which upstreams a message's recipients go to, by the policy in force when it is due.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::config::Policy;
use crate::message::{Envelope, MessageId};
use crate::routing;
use crate::spool::{Spool, SpoolError};

/// The parts in which a message travels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Recipient indices by upstream.
    pub(super) parts: BTreeMap<String, Vec<usize>>,
    /// Recipients that no route takes any more.
    pub(super) unrouted: Vec<usize>,
}

/// Divides the recipients given over the policy's upstreams.
pub(super) fn plan(
    policy: &Policy,
    envelope: &Envelope,
    recipients: impl IntoIterator<Item = usize>,
) -> Plan {
    let mut plan = Plan::default();
    for index in recipients {
        let Some(recipient) = envelope.recipients.get(index) else { continue };
        match routing::route(policy, &envelope.reverse_path, &recipient.address) {
            Some(route) => plan.parts.entry(route.upstream.clone()).or_default().push(index),
            None => plan.unrouted.push(index),
        }
    }
    plan
}

/// A message to be planned: all that is queued of it, or the part that was planned before under another policy.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) id: MessageId,
    pub(super) part: Option<Arc<[usize]>>,
    pub(super) policy: Arc<Policy>,
}

/// What became of a request.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) request: Request,
    pub(super) result: Result<Plan, SpoolError>,
}

/// Plans messages that are only known by their id, reading each envelope from the spool. Ends with its requests.
pub(super) async fn run(spool: Spool, mut requests: mpsc::Receiver<Request>, planned: mpsc::Sender<Planned>) {
    while let Some(request) = requests.recv().await {
        let result = spool.load(request.id).await.map(|stored| match &request.part {
            Some(part) => plan(&request.policy, &stored.envelope, part.iter().copied()),
            None => plan(&request.policy, &stored.envelope, stored.state.queued()),
        });
        if planned.send(Planned { request, result }).await.is_err() {
            return;
        }
    }
}
