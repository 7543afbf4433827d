//! The RelayPool's controller, one file a step:
//!
//! 1. [`dereference`] fetches what the pool names (reads),
//! 2. [`validate`] decides whether pool and names can be used (pure),
//! 3. [`build`] makes the objects (pure),
//! 4. [`apply`] puts them in place and removes what is no longer wanted (writes what differs),
//! 5. [`status`] says what came of it (pure; `report` writes it).
//!
//! A relay that is to go is first told to leave and asked what it still holds ([`departure`], [`remaining`]); [`membership`] decides
//! when it goes.
//!
//! A pool that cannot be used keeps what it had: its objects are neither changed nor removed, its status says why. A pool
//! that has none yet gets none. Deletion needs no step: the objects belong to the pool and go with it.

pub mod admin_token;
pub mod apply;
pub mod build;
pub mod credentials;
pub mod departure;
pub mod dereference;
pub mod membership;
pub mod names;
pub mod ports;
pub mod remaining;
pub mod resources;
pub mod status;
pub mod validate;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::DeserializeGuard;
use kube::discovery::ApiResource;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use postroad_crds::v1alpha1::{RelayPool, RelayPoolStatus};

use crate::context::Context;
use crate::error::Error;
use crate::metrics::Outcome;
use crate::reason::{Findings, Problem, Reason};
use crate::relay_pool::admin_token::AdminToken;
use crate::relay_pool::build::Kept;
use crate::relay_pool::departure::{Departure, Remains};
use crate::relay_pool::validate::ValidatedPool;
use crate::report::{self, Subject};

/// How long until leaving relays are asked again: what they hold is in no event.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The kind, as metrics and logs name it.
pub const KIND: &str = "RelayPool";

/// Makes the cluster hold what the pool asks for.
///
/// # Errors
/// When the API server does not answer, refuses, or an object's name is taken; the caller tries again later. A pool that
/// cannot be used is no error: its status says so, and a change of it or of what it names brings it back here.
pub async fn reconcile(
    guarded: Arc<DeserializeGuard<RelayPool>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    if guarded.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    match &guarded.0 {
        Ok(pool) => reconcile_readable(pool, &context).await,
        Err(invalid) => {
            let message = format!("RelayPool {}: it cannot be read: {}", guarded.name_any(), invalid.error);
            let mut findings = Findings::default();
            findings.spec.push(Problem::new(Reason::InvalidSpec, message));
            refused(guarded.as_ref(), None, &findings, &context).await
        }
    }
}

async fn reconcile_readable(pool: &RelayPool, context: &Context) -> Result<Action, Error> {
    let namespace = pool.namespace().unwrap_or_default();
    let references = dereference::dereference(&context.objects, &context.upstreams, &namespace, pool).await?;
    let valid = match validate::validate(pool, &references) {
        Ok(valid) => valid,
        Err(findings) => return refused(pool, pool.status.as_ref(), &findings, context).await,
    };
    let owner = owner(pool);
    let kept = match kept(&valid, context).await? {
        Ok(kept) => kept,
        Err(problem) => return unprogrammed(pool, &problem, context).await.map(|()| Action::await_change()),
    };
    let present = present(pool, context).await?;
    let departure =
        Departure::observe(&context.objects, &namespace, &valid.names.pool, present.as_ref()).await?;
    let (situation, remains) = departure.situation(valid.replicas, &kept.credentials).await;
    let membership = membership::next(valid.replicas, &situation);
    let settings = &context.settings;
    let resources = match build::build(
        &valid,
        &owner,
        &settings.relay_image,
        &settings.cluster_domain,
        &kept,
        &membership,
    ) {
        Ok(resources) => resources,
        Err(problem) => return unprogrammed(pool, &problem, context).await.map(|()| Action::await_change()),
    };
    // Before the StatefulSet: a claim is removed only if this was noted while its relay was there to say so.
    departure.mark(membership.replicas).await?;
    match apply::apply(&context.objects, &owner, &namespace, resources).await {
        Ok(applied) => {
            let waiting = departure.tidy(membership.replicas).await?;
            let remains = Some(&remains).filter(|_| !membership.leaving.is_empty());
            let set = Some(&applied.stateful_set);
            let found = Found { replicas: pool.spec.replicas, set, remains, ..Found::default() };
            write(pool, pool.status.as_ref(), &found, context).await?;
            context.metrics.reconcile(KIND, Outcome::Settled);
            let settled = remains.is_none() && !waiting && membership.replicas == valid.replicas;
            Ok(if settled { Action::await_change() } else { Action::requeue(LOOK_AGAIN) })
        }
        Err(error) if error.is_namespace_ending() => Ok(Action::await_change()),
        Err(error) => {
            let problem = error.problem();
            unprogrammed(pool, &problem, context).await?;
            Err(Error::Refused(problem))
        }
    }
}

/// What the pool's Secret keeps, or something new where it has none yet.
async fn kept(pool: &ValidatedPool, context: &Context) -> Result<Result<Kept, Problem>, Error> {
    let secret: Option<Secret> = context.objects.find(&pool.namespace, &pool.names.config_secret).await?;
    let token = secret.as_ref().and_then(AdminToken::of).unwrap_or_else(AdminToken::random);
    let rendered = credentials::rendered(secret.as_ref());
    let credentials = credentials::of_pool(&pool.names.pool, rendered.as_ref());
    Ok(credentials.map(|credentials| Kept { token, credentials }))
}

/// The pool as the owner of its objects. It does not block its own deletion: where the API server enforces permissions of owner
/// references, that takes a right on finalizers which nothing else here needs.
#[must_use]
pub fn owner(pool: &RelayPool) -> OwnerReference {
    pool.controller_owner_ref(&()).unwrap_or_default()
}

/// The pool or what it names cannot be used: everything stays as it is, the status says why.
async fn refused<K: Resource<DynamicType = ()>>(
    pool: &K,
    status: Option<&RelayPoolStatus>,
    findings: &Findings,
    context: &Context,
) -> Result<Action, Error> {
    for problem in findings.iter() {
        context.metrics.error(KIND, problem.reason);
    }
    let present = present(pool, context).await?;
    let replicas = present.as_ref().and_then(|set| set.spec.as_ref()?.replicas).unwrap_or_default();
    let set = present.as_ref();
    let found = Found { replicas, findings: Some(findings), set, ..Found::default() };
    write(pool, status, &found, context).await?;
    context.metrics.reconcile(KIND, Outcome::Refused);
    Ok(Action::await_change())
}

/// The pool can be used, but its objects are not in place.
async fn unprogrammed(pool: &RelayPool, problem: &Problem, context: &Context) -> Result<(), Error> {
    context.metrics.error(KIND, problem.reason);
    let present = present(pool, context).await?;
    let replicas = pool.spec.replicas;
    let set = present.as_ref();
    let found = Found { replicas, unprogrammed: Some(problem), set, ..Found::default() };
    write(pool, pool.status.as_ref(), &found, context).await
}

/// The StatefulSet that an earlier reconcile has made for this pool.
async fn present<K: Resource<DynamicType = ()>>(
    pool: &K,
    context: &Context,
) -> Result<Option<StatefulSet>, Error> {
    let namespace = pool.meta().namespace.clone().unwrap_or_default();
    let found: Option<StatefulSet> = context.objects.find(&namespace, &pool.name_any()).await?;
    Ok(found.filter(|set| {
        set.owner_references().iter().any(|owner| Some(&owner.uid) == pool.meta().uid.as_ref())
    }))
}

/// What a reconcile has come to.
#[derive(Default)]
struct Found<'a> {
    replicas: i32,
    findings: Option<&'a Findings>,
    unprogrammed: Option<&'a Problem>,
    set: Option<&'a StatefulSet>,
    remains: Option<&'a Remains>,
}

async fn write<K: Resource<DynamicType = ()>>(
    pool: &K,
    cached: Option<&RelayPoolStatus>,
    found: &Found<'_>,
    context: &Context,
) -> Result<(), Error> {
    let none = Findings::default();
    let metadata = pool.meta();
    let name = pool.name_any();
    let endpoint = format!(
        "{name}.{}.svc.{}",
        metadata.namespace.as_deref().unwrap_or_default(),
        context.settings.cluster_domain
    );
    let observed = status::Observation {
        pool: &name,
        generation: metadata.generation.unwrap_or_default(),
        replicas: found.replicas,
        endpoint: &endpoint,
        findings: found.findings.unwrap_or(&none),
        unprogrammed: found.unprogrammed,
        stateful_set: found.set,
        remains: found.remains,
    };
    let now = report::now();
    let subject = Subject::new(ApiResource::erase::<RelayPool>(&()), metadata, &status::CONDITIONS);
    subject
        .report(&context.objects, &context.recorder, cached, |present| {
            status::status(&observed, &now, present)
        })
        .await?;
    Ok(())
}
