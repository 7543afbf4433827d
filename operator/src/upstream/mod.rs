//! The Upstream's controller: [`dereference`] → [`validate`] → [`division`] → [`status`]. It makes no objects: pools that name the
//! Upstream render it into their configuration, by the same validator. How its budgets are divided over their relays is decided here,
//! because only here all of them are seen, and kept in its status; [`relays`] are asked whether they keep to it. [`reach`] says what
//! relays find when they send there.

pub mod dereference;
pub mod division;
pub mod reach;
pub mod relays;
pub mod status;
pub mod validate;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::DeserializeGuard;
use kube::discovery::ApiResource;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use postroad_crds::relay_config as relay;
use postroad_crds::v1alpha1::{PoolRelays, Upstream};

use crate::context::Context;
use crate::error::Error;
use crate::metrics::Outcome;
use crate::reason::{Findings, Problem, Reason};
use crate::report::{self, Subject};
use crate::upstream::division::{Relay, Spans};
use crate::upstream::reach::Reach;
use crate::upstream::status::{Divided, Observation};

/// The kind, as metrics and logs name it.
pub const KIND: &str = "Upstream";

/// Says in the Upstream's status whether pools can use it.
///
/// # Errors
/// When the API server does not answer or refuses; the caller tries again later.
pub async fn reconcile(
    guarded: Arc<DeserializeGuard<Upstream>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let metadata = guarded.meta();
    if metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let now = report::now();
    let mut divided = None;
    let mut again = None;
    let findings = match &guarded.0 {
        Ok(upstream) => {
            let secrets = dereference::dereference(&context.objects, namespace, upstream).await?;
            match validate::validate(&upstream.name_any(), upstream, &secrets) {
                Ok(valid) => {
                    let (found, wait) = divide(upstream, &valid, namespace, &now, &context).await?;
                    (divided, again) = (Some(found), wait);
                    Findings::default()
                }
                Err(findings) => findings,
            }
        }
        Err(invalid) => {
            let message = format!("Upstream {}: it cannot be read: {}", guarded.name_any(), invalid.error);
            Findings { spec: vec![Problem::new(Reason::InvalidSpec, message)], references: Vec::new() }
        }
    };
    for problem in findings.iter() {
        context.metrics.error(KIND, problem.reason);
    }
    let cached = guarded.0.as_ref().ok().and_then(|upstream| upstream.status.as_ref());
    let generation = metadata.generation.unwrap_or_default();
    let sandbox = guarded.0.as_ref().is_ok_and(|upstream| upstream.spec.sandbox.is_some());
    let reach = reach(&guarded.name_any(), namespace, &context);
    let observed = Observation { generation, findings: &findings, divided, reach, sandbox };
    Subject::new(ApiResource::erase::<Upstream>(&()), metadata, &status::CONDITIONS)
        .report(&context.objects, &context.recorder, cached, |present| {
            status::status(&observed, &now, present)
        })
        .await?;
    context.metrics.reconcile(KIND, if findings.is_empty() { Outcome::Settled } else { Outcome::Refused });
    Ok(again.map_or_else(Action::await_change, Action::requeue))
}

/// What the relays of the pools that name the Upstream say of it.
fn reach(name: &str, namespace: &str, context: &Context) -> Reach {
    let pools = naming(name, namespace, context);
    let relays = |pool: &PoolRelays| context.board.relays(namespace, &pool.name);
    Reach::of(name, pools.iter().map(|pool| (pool.name.as_str(), relays(pool))))
}

/// The pools that name the Upstream.
fn naming(name: &str, namespace: &str, context: &Context) -> Vec<PoolRelays> {
    let pools = context.pools.state_filter(|pool| pool.namespace().as_deref() == Some(namespace));
    division::wanted(pools.iter().filter_map(|pool| pool.0.as_ref().ok()), name)
}

/// How the Upstream is divided over the pools that name it, and when to look again.
async fn divide(
    upstream: &Upstream,
    valid: &relay::Upstream,
    namespace: &str,
    now: &Time,
    context: &Context,
) -> Result<(Divided, Option<Duration>), Error> {
    let name = upstream.name_any();
    let wanted = naming(&name, namespace, context);
    let too_small = division::too_small(valid, division::relays(&wanted));
    let mut present = upstream.status.clone().unwrap_or_default().divisions;
    if present.len() != 1 || present[0].pools != wanted {
        // What follows is decided over what is stored: a watch may lag behind.
        let stored: Option<Upstream> = context.objects.find(namespace, &name).await?;
        present = stored.and_then(|stored| stored.status).unwrap_or_default().divisions;
    }
    let known = match present.as_slice() {
        [.., before, last] if before.ended.is_none() => {
            relays::ask(&context.objects, namespace, &name, &before.pools, last.number).await?
        }
        _ => BTreeMap::new(),
    };
    let spans = Spans::of(&valid.rates);
    let relay =
        |pool: &str, ordinal| known.get(&(pool.to_owned(), ordinal)).copied().unwrap_or(Relay::Silent);
    let divisions = division::next(&present, &wanted, &spans, relay, now);
    let again = division::look_again(&divisions, &wanted, &spans, now);
    Ok((Divided { divisions, too_small }, again))
}
