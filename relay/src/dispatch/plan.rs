//! Which routes a message's recipients take, by the policy in force when it is due. Which of a route's upstreams they go to is
//! decided when they enter a lane.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::config::{CompiledRoute, Policy};
use crate::message::{Envelope, MessageId};
use crate::messages::Messages;
use crate::routing::{self, Origin};
use crate::spool::SpoolError;

/// The parts in which a message travels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Recipient indices by route.
    pub(super) parts: Vec<(Arc<CompiledRoute>, Vec<usize>)>,
    /// The identity that the message comes from.
    pub(super) identity: Option<String>,
    /// Recipients that no route takes any more.
    pub(super) unrouted: Vec<usize>,
    /// Whether the message's client waits for its outcome.
    pub(super) in_transit: bool,
}

/// Divides the recipients given over the policy's routes.
pub(super) fn plan(
    policy: &Policy,
    envelope: &Envelope,
    recipients: impl IntoIterator<Item = usize>,
) -> Plan {
    let mut plan = Plan { identity: envelope.identity.clone(), ..Plan::default() };
    let origin = Origin { sender: &envelope.reverse_path, identity: envelope.identity.as_deref() };
    for index in recipients {
        let Some(recipient) = envelope.recipients.get(index) else { continue };
        let Some(route) = routing::route(policy, origin, &recipient.address) else {
            plan.unrouted.push(index);
            continue;
        };
        match plan.parts.iter_mut().find(|(held, _)| Arc::ptr_eq(held, route)) {
            Some((_, part)) => part.push(index),
            None => plan.parts.push((route.clone(), vec![index])),
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

/// Plans messages that are only known by their id, reading each envelope. Ends with its requests.
pub(super) async fn run(
    messages: Messages,
    mut requests: mpsc::Receiver<Request>,
    planned: mpsc::Sender<Planned>,
) {
    while let Some(request) = requests.recv().await {
        let in_transit = messages.transit.envelope(request.id).is_some();
        let result = messages.load(request.id).await.map(|stored| {
            let plan = match &request.part {
                Some(part) => plan(&request.policy, &stored.envelope, part.iter().copied()),
                None => plan(&request.policy, &stored.envelope, stored.state.queued()),
            };
            Plan { in_transit, ..plan }
        });
        if planned.send(Planned { request, result }).await.is_err() {
            return;
        }
    }
}
