//! The RelayPool's controller, one file a step:
//!
//! 1. [`dereference`] fetches what the pool names (reads),
//! 2. [`validate`] decides whether pool and names can be used (pure),
//! 3. [`build`] makes the objects (pure),
//! 4. [`apply`] puts them in place and removes what is no longer wanted (writes what differs),
//! 5. [`status`] says what came of it (pure; `report` writes it).
//!
//! A relay that is to go is first told to leave and asked what it still holds ([`departure`], [`remaining`]); [`membership`] decides
//! when it goes. What relays say of their Upstreams tells which routes go another way ([`ways`]).
//!
//! A pool that cannot be used keeps what it had: its objects are neither changed nor removed, its status says why. A pool
//! that has none yet gets none. A pool that is deleted waits for its relays ([`deletion`]); its objects belong to it and go with it.

pub mod admin_token;
pub mod apply;
pub mod build;
pub mod credentials;
pub mod deletion;
pub mod departure;
pub mod dereference;
pub mod heard;
pub mod membership;
pub mod names;
pub mod ports;
pub mod remaining;
pub mod resources;
pub mod status;
pub mod validate;
pub mod ways;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::discovery::ApiResource;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use postroad_crds::v1alpha1::{DeletionPolicy, RelayPool, RelayPoolStatus, Route};

use crate::context::Context;
use crate::error::Error;
use crate::metrics::Outcome;
use crate::reason::{Findings, Problem, Reason};
use crate::relay_pool::admin_token::AdminToken;
use crate::relay_pool::build::Kept;
use crate::relay_pool::deletion::End;
use crate::relay_pool::departure::{Departure, Remains};
use crate::relay_pool::heard::LOOK_AGAIN;
use crate::relay_pool::membership::Membership;
use crate::relay_pool::names::Names;
use crate::relay_pool::validate::ValidatedPool;
use crate::report::{self, Subject};

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
        return end(&guarded, &context).await;
    }
    match &guarded.0 {
        Ok(pool) => reconcile_readable(pool, &context).await,
        Err(invalid) => {
            let message = format!("RelayPool {}: it cannot be read: {}", guarded.name_any(), invalid.error);
            let mut findings = Findings::default();
            findings.spec.push(Problem::new(Reason::InvalidSpec, message));
            refused(guarded.as_ref(), None, None, &findings, &context).await
        }
    }
}

async fn reconcile_readable(pool: &RelayPool, context: &Context) -> Result<Action, Error> {
    let namespace = pool.namespace().unwrap_or_default();
    let references = dereference::dereference(&context.objects, &context.upstreams, &namespace, pool).await?;
    let valid = match validate::validate(pool, &references) {
        Ok(valid) => valid,
        Err(findings) => {
            let routes = Some(pool.spec.routes.as_slice());
            return refused(pool, pool.status.as_ref(), routes, &findings, context).await;
        }
    };
    let owner = owner(pool);
    let kept = match kept(&valid, context).await? {
        Ok(kept) => kept,
        Err(problem) => return unprogrammed(pool, &problem, context).await.map(|()| Action::await_change()),
    };
    let present = present(pool, context).await?;
    let departure =
        Departure::observe(&context.objects, &namespace, &valid.names.pool, present.as_ref()).await?;
    let (situation, remains) =
        departure.situation(valid.replicas, Some(&kept.credentials), &context.heard).await;
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
    if !deletion::is_held(pool.meta()) {
        hold(pool, Some(deletion::FINALIZER), context).await?;
    }
    // Before the StatefulSet: a claim is removed only if this was noted while its relay was there to say so.
    departure.mark(membership.replicas).await?;
    match apply::apply(&context.objects, &owner, &namespace, resources).await {
        Ok(applied) => {
            let waiting = departure.tidy(membership.replicas).await?;
            let remains = if membership.leaving.is_empty() { Remains::default() } else { remains };
            let found = Found {
                replicas: pool.spec.replicas,
                set: Some(&applied.stateful_set),
                remains: Some(&remains),
                routes: Some(&pool.spec.routes),
                ..Found::default()
            };
            write(pool, pool.status.as_ref(), &found, context).await?;
            context.metrics.reconcile(KIND, Outcome::Settled);
            let settled = !waiting && membership == Membership::of(valid.replicas);
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

/// A pool that is being deleted: its relays finish what they hold, then it goes.
async fn end(guarded: &DeserializeGuard<RelayPool>, context: &Context) -> Result<Action, Error> {
    if !deletion::is_held(guarded.meta()) {
        return Ok(Action::await_change());
    }
    let (namespace, name) = (guarded.namespace().unwrap_or_default(), guarded.name_any());
    let set = present(guarded, context).await?.filter(|set| set.metadata.deletion_timestamp.is_none());
    let secret: Option<Secret> = match Names::of(&name) {
        Ok(names) => context.objects.find(&namespace, &names.config_secret).await?,
        Err(_) => None,
    };
    let departure = Departure::observe(&context.objects, &namespace, &name, set.as_ref()).await?;
    let policy =
        guarded.0.as_ref().map_or_else(|_| DeletionPolicy::default(), |pool| pool.spec.deletion_policy);
    let subject = subject(guarded.meta());
    match deletion::pursue(&context.objects, &departure, secret.as_ref(), policy, &context.heard).await? {
        End::Free(told) => {
            if let Some(problem) = told {
                subject.tell(&context.recorder, &problem).await;
            }
            hold(guarded, None, context).await?;
            context.metrics.reconcile(KIND, Outcome::Settled);
            Ok(Action::await_change())
        }
        End::Waits(remains) => {
            let endpoint = endpoint(guarded.meta(), context);
            let ending = status::Ending {
                pool: &name,
                generation: guarded.meta().generation.unwrap_or_default(),
                endpoint: &endpoint,
                stateful_set: set.as_ref(),
                remains: &remains,
            };
            let (cached, now) =
                (guarded.0.as_ref().ok().and_then(|pool| pool.status.as_ref()), report::now());
            let compute = |present: &RelayPoolStatus| status::ending(&ending, &now, &present.conditions);
            subject.report(&context.objects, &context.recorder, cached, compute).await?;
            Ok(Action::requeue(LOOK_AGAIN))
        }
    }
}

/// Puts the finalizer on the pool, or takes it away.
async fn hold<K: Resource<DynamicType = ()>>(
    pool: &K,
    finalizer: Option<&str>,
    context: &Context,
) -> Result<(), Error> {
    let kind = ApiResource::erase::<RelayPool>(&());
    Ok(context.objects.set_finalizer(&kind, pool.meta(), finalizer).await?)
}

fn subject(metadata: &ObjectMeta) -> Subject {
    Subject::new(ApiResource::erase::<RelayPool>(&()), metadata, &status::CONDITIONS)
}

fn endpoint(metadata: &ObjectMeta, context: &Context) -> String {
    let (name, namespace) = (metadata.name.as_deref(), metadata.namespace.as_deref());
    format!(
        "{}.{}.svc.{}",
        name.unwrap_or_default(),
        namespace.unwrap_or_default(),
        context.settings.cluster_domain
    )
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
    routes: Option<&[Route]>,
    findings: &Findings,
    context: &Context,
) -> Result<Action, Error> {
    for problem in findings.iter() {
        context.metrics.error(KIND, problem.reason);
    }
    let present = present(pool, context).await?;
    let replicas = present.as_ref().and_then(|set| set.spec.as_ref()?.replicas).unwrap_or_default();
    let set = present.as_ref();
    let found = Found { replicas, findings: Some(findings), set, routes, ..Found::default() };
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
    let routes = Some(pool.spec.routes.as_slice());
    let found = Found { replicas, unprogrammed: Some(problem), set, routes, ..Found::default() };
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
    /// The routes, when they can be read.
    routes: Option<&'a [Route]>,
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
    let endpoint = endpoint(metadata, context);
    let relays = context.board.relays(metadata.namespace.as_deref().unwrap_or_default(), &name);
    let ways = found.routes.and_then(|routes| ways::preferred_upstreams(routes, &relays));
    let observed = status::Observation {
        pool: &name,
        generation: metadata.generation.unwrap_or_default(),
        replicas: found.replicas,
        endpoint: &endpoint,
        findings: found.findings.unwrap_or(&none),
        unprogrammed: found.unprogrammed,
        stateful_set: found.set,
        remains: found.remains,
        ways: ways.as_ref(),
    };
    let now = report::now();
    subject(metadata)
        .report(&context.objects, &context.recorder, cached, |present| {
            status::status(&observed, &now, &present.conditions)
        })
        .await?;
    Ok(())
}
