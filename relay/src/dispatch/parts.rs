//! How a planned message is divided over upstreams, and whether one whose client waits may go at all. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::lanes::Lanes;
use super::plan::Plan;
use crate::budget::{Budgets, Scope, Until};
use crate::config::Policy;
use crate::message::MessageId;
use crate::routing;
use crate::transit::PATIENCE;

/// The recipients that travel together, by upstream and by the budgets that they count for beside its own.
pub(super) type Parts<'a> = BTreeMap<(&'a str, Arc<[Scope]>), Vec<usize>>;

/// Recipients of different routes go together, unless they count for different budgets.
pub(super) fn parts<'a>(
    plan: &'a Plan,
    id: MessageId,
    policy: &Policy,
    lanes: &Lanes,
    now: Instant,
) -> Parts<'a> {
    let mut parts = Parts::new();
    for (route, recipients) in &plan.parts {
        let upstream = routing::choose(route, id, |name| lanes.takes(name, now));
        let scopes = policy.rates.charged(&route.name, plan.identity.as_deref());
        parts.entry((upstream, scopes)).or_default().extend(recipients);
    }
    parts
}

/// Why a message in transit does not go: in more than one piece, or to an upstream that it would wait for in vain.
pub(super) fn keeps_from_transit(
    plan: &Plan,
    parts: &Parts<'_>,
    policy: &Policy,
    lanes: &Lanes,
    budgets: &mut Budgets,
    now: Instant,
) -> Option<String> {
    if !plan.unrouted.is_empty() {
        return Some(unrouted(policy));
    }
    let mut all = parts.iter();
    let (Some(((upstream, scopes), recipients)), None) = (all.next(), all.next()) else {
        return Some("its recipients go different ways: send it to each of them alone".to_owned());
    };
    // Without a lane the upstream has gone meanwhile, and the message is planned anew.
    let lane = lanes.get(upstream)?;
    let largest = budgets.largest(lane.scopes().chain(scopes.iter()));
    if recipients.len() > largest {
        return Some(format!("a rate lets no more than {largest} recipients go at once"));
    }
    let too_late = |until| matches!(until, Until::Moment(moment) if moment > now + PATIENCE);
    let size = recipients.len() as u64;
    let mut counted = std::iter::once(lane.scope()).chain(scopes.iter());
    if let Some(scope) = counted.find(|scope| budgets.room(scope, size, now).is_err_and(too_late)) {
        return Some(format!("the rates of {scope} are used up"));
    }
    Some(format!("upstream {upstream}: {}", lane.unavailable(PATIENCE, now)?))
}

/// What keeps recipients that no route takes any more.
pub(super) fn unrouted(policy: &Policy) -> String {
    format!("no route of RelayPool {} takes it any more", policy.pool)
}
