//! Watches: what changes in the cluster, and which pools and upstreams it concerns. Decides nothing about them.
//!
//! A fresh list, at the start or after a watch was lost for too long, concerns everything in the scope: what was deleted
//! meanwhile is in no event. Secrets are watched by their metadata alone; their content is read by name where it is named.

use std::fmt::Debug;
use std::sync::Arc;

use futures::{StreamExt, future};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, Store, store::Writer};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use postroad_crds::v1alpha1::{RelayPool, Upstream};
use serde::de::DeserializeOwned;

use crate::backoff::Rests;
use crate::client::explain;
use crate::health::Health;
use crate::queue::Queue;
use crate::relay_pool::build::metadata::FIELD_MANAGER;
use crate::relay_pool::validate as pool;
use crate::upstream::validate as upstream;

/// Secrets of these types are never named by a pool or an upstream, and there may be many.
const SECRETS: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token";

/// A pool as watched: one that cannot be read does not end the watch.
pub type GuardedPool = DeserializeGuard<RelayPool>;

/// An upstream as watched.
pub type GuardedUpstream = DeserializeGuard<Upstream>;

/// The namespace that is watched, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The whole cluster.
    All,
    /// One namespace.
    Namespace(String),
}

impl Scope {
    fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self, client: &Client) -> Api<K> {
        match self {
            Self::All => Api::all(client.clone()),
            Self::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }

    fn place(&self) -> String {
        match self {
            Self::All => "all namespaces".to_owned(),
            Self::Namespace(namespace) => format!("namespace {namespace}"),
        }
    }
}

/// What one scope's watches have shown, and the queues they fill.
#[derive(Clone)]
pub struct Watched {
    /// The pools.
    pub pools: Store<GuardedPool>,
    /// The upstreams.
    pub upstreams: Store<GuardedUpstream>,
    /// Pools to reconcile.
    pub pool_queue: Arc<Queue<GuardedPool>>,
    /// Upstreams to reconcile.
    pub upstream_queue: Arc<Queue<GuardedUpstream>>,
}

impl Watched {
    fn everything(&self) {
        self.pools.state().iter().for_each(|pool| self.pool(pool.as_ref()));
        self.upstreams.state().iter().for_each(|upstream| self.upstream_alone(upstream.as_ref()));
    }

    fn pool(&self, pool: &GuardedPool) {
        self.pool_queue.push(&pool.name_any(), &pool.namespace().unwrap_or_default());
    }

    /// A pool concerns itself and the upstreams that it names, or has named: its relays share them with others.
    pub fn pool_with_upstreams(&self, changed: &GuardedPool) {
        self.pool(changed);
        let name = changed.name_any();
        let named = changed.0.as_ref().map(pool::upstream_names).unwrap_or_default();
        let shared = self.upstreams.state_filter(|candidate| {
            let status = candidate.0.as_ref().ok().and_then(|upstream| upstream.status.as_ref());
            let mut divided = status.into_iter().flat_map(|status| &status.divisions);
            candidate.namespace() == changed.namespace()
                && (named.contains(&candidate.name_any().as_str())
                    || divided.any(|division| division.pools.iter().any(|pool| pool.name == name)))
        });
        for upstream in &shared {
            self.upstream_alone(upstream);
        }
    }

    fn upstream_alone(&self, upstream: &GuardedUpstream) {
        self.upstream_queue.push(&upstream.name_any(), &upstream.namespace().unwrap_or_default());
    }

    /// An upstream concerns itself and the pools whose routes name it.
    fn upstream(&self, changed: &GuardedUpstream) {
        self.upstream_alone(changed);
        self.pools_naming(changed.namespace(), |named| {
            pool::upstream_names(named).contains(&changed.name_any().as_str())
        });
    }

    /// A Secret concerns what names it, and the pool it belongs to when it is a pool's configuration.
    fn secret(&self, changed: &PartialObjectMeta<Secret>) {
        self.child(changed);
        let name = changed.name_any();
        let named = self.upstreams.state_filter(|candidate| {
            let names = |upstream: &Upstream| upstream::secret_names(upstream).contains(&name.as_str());
            candidate.namespace() == changed.namespace() && candidate.0.as_ref().is_ok_and(names)
        });
        for upstream in &named {
            self.upstream(upstream);
        }
        self.pools_naming(changed.namespace(), |named| pool::secret_names(named).contains(&name.as_str()));
    }

    /// An object of a pool concerns that pool.
    fn child<K: Resource>(&self, changed: &K) {
        let namespace = changed.namespace().unwrap_or_default();
        let owners = changed.owner_references().iter();
        for owner in owners.filter(|owner| {
            owner.kind == RelayPool::kind(&()) && owner.api_version == RelayPool::api_version(&())
        }) {
            self.pool_queue.push(&owner.name, &namespace);
        }
    }

    fn pools_naming(&self, namespace: Option<String>, names: impl Fn(&RelayPool) -> bool) {
        let concerned = self
            .pools
            .state_filter(|pool| pool.namespace() == namespace && pool.0.as_ref().is_ok_and(&names));
        for pool in &concerned {
            self.pool(pool);
        }
    }
}

/// The watches of one scope: what they show, and the future that keeps them, which never ends.
pub fn watch(
    client: &Client,
    scope: &Scope,
    health: &Arc<Health>,
) -> (Watched, impl Future<Output = ()> + use<>) {
    let (pools, pool_writer) = reflector::store();
    let (upstreams, upstream_writer) = reflector::store();
    let watched = Watched { pools, upstreams, pool_queue: Arc::default(), upstream_queue: Arc::default() };
    let every = watcher::Config::default();
    let ours = watcher::Config::default().labels(&format!("app.kubernetes.io/managed-by={FIELD_MANAGER}"));
    let secrets = watcher::Config::default().fields(SECRETS);
    let keep = Keep {
        client: client.clone(),
        scope: scope.clone(),
        health: health.clone(),
        watched: watched.clone(),
    };
    let kept = async move {
        future::join5(
            keep.stored(pool_writer, every.clone(), Watched::pool_with_upstreams),
            keep.stored(upstream_writer, every, Watched::upstream),
            keep.seen::<PartialObjectMeta<Secret>>(secrets, Watched::secret),
            future::join(
                keep.seen::<StatefulSet>(ours.clone(), Watched::child),
                keep.seen::<PartialObjectMeta<Service>>(ours.clone(), Watched::child),
            ),
            future::join(
                keep.seen::<PartialObjectMeta<ServiceAccount>>(ours.clone(), Watched::child),
                keep.seen::<PartialObjectMeta<PodDisruptionBudget>>(ours, Watched::child),
            ),
        )
        .await;
    };
    (watched, kept)
}

/// Keeps watches.
struct Keep {
    client: Client,
    scope: Scope,
    health: Arc<Health>,
    watched: Watched,
}

impl Keep {
    /// A watch whose objects are kept for lookup.
    async fn stored<K>(&self, writer: Writer<K>, config: watcher::Config, concern: fn(&Watched, &K))
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let events =
            watcher(self.scope.api::<K>(&self.client), config).backoff(Rests::default()).reflect(writer);
        self.follow(events, concern).await;
    }

    /// A watch whose objects are looked at and forgotten.
    async fn seen<K>(&self, config: watcher::Config, concern: fn(&Watched, &K))
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let events = watcher(self.scope.api::<K>(&self.client), config).backoff(Rests::default());
        self.follow(events, concern).await;
    }

    async fn follow<K: Resource<DynamicType = ()>>(
        &self,
        events: impl futures::Stream<Item = Result<Event<K>, watcher::Error>>,
        concern: fn(&Watched, &K),
    ) {
        let name = format!("{} in {}", K::plural(&()), self.scope.place());
        self.health.await_watch(&name);
        let mut events = Box::pin(events);
        let mut lost = false;
        while let Some(event) = events.next().await {
            if event.is_ok() && std::mem::take(&mut lost) {
                tracing::info!("the watch of {name} is back");
            }
            match event {
                Ok(Event::Apply(object) | Event::Delete(object)) => concern(&self.watched, &object),
                Ok(Event::Init | Event::InitApply(_)) => {}
                Ok(Event::InitDone) => {
                    self.health.watch_synced(&name);
                    self.watched.everything();
                }
                Err(error) if !std::mem::replace(&mut lost, true) => {
                    tracing::warn!(
                        "the watch of {name} was interrupted and is being resumed: {}",
                        fault(&error)
                    );
                }
                Err(error) => tracing::debug!("the watch of {name} is still interrupted: {}", fault(&error)),
            }
        }
    }
}

fn fault(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => explain(error),
        watcher::Error::WatchError(status) => status.message.clone(),
        watcher::Error::NoResourceVersion => "the API server gave no resource version".to_owned(),
    }
}
