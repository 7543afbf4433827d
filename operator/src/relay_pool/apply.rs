//! Apply: makes the cluster hold the objects of a pool, by server-side apply under one field manager, and removes what the
//! pool no longer wants. Only what differs is written: a settled pool costs reads alone.

use std::marker::PhantomData;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::core::PartialObjectMeta;

use crate::client::{ApiError, Kind, Objects};
use crate::drift;
use crate::reason::{Problem, Reason};
use crate::relay_pool::build::metadata::{labels, query, selector};
use crate::relay_pool::resources::{Applied, Prepared, Resources};

/// The annotation on pods that makes the kubelet refresh their volumes at once instead of within its sync period. Its value is
/// the resourceVersion of the configuration's Secret: a hash of the content would let readers of pods test guesses.
pub const CONFIG_ANNOTATION: &str = "postroad.dev/relay-config";

/// Why the objects are not in place.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server did not answer or refused.
    #[error("{0}")]
    Api(#[from] ApiError),
    /// An object of a needed name belongs to something else.
    #[error(
        "{kind} {namespace}/{name} exists and does not belong to RelayPool {pool}: remove it, or give the pool another name"
    )]
    NameTaken {
        /// The object's kind.
        kind: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The pool that needs the name.
        pool: String,
    },
    /// An object could not be written as JSON.
    #[error("an object of the pool cannot be written as JSON: {0}")]
    Serialize(#[from] serde_json::Error),
}

impl ApplyError {
    /// Whether the namespace is going away, so that nothing is left to do.
    #[must_use]
    pub fn is_namespace_ending(&self) -> bool {
        matches!(self, Self::Api(error) if error.is_namespace_ending())
    }

    /// The problem for conditions, events and metrics.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let reason = match self {
            Self::Api(error) => error.reason(),
            Self::NameTaken { .. } => Reason::NameTaken,
            Self::Serialize(_) => Reason::ObjectRefused,
        };
        Problem::new(reason, self.to_string())
    }
}

/// Applies the objects of the pool that `owner` refers to.
///
/// The configuration's Secret goes before the StatefulSet, so that no pod starts without it, and what is no longer wanted goes
/// last. Cancellation leaves some objects applied; the next call does the rest.
///
/// # Errors
/// The first failure, with the object it concerns.
pub async fn apply(
    objects: &Objects,
    owner: &OwnerReference,
    namespace: &str,
    resources: Resources<Prepared>,
) -> Result<Resources<Applied>, ApplyError> {
    let Resources {
        service_account,
        config_secret,
        service,
        headless_service,
        pod_disruption_budget,
        stateful_set,
        state: PhantomData,
    } = resources;
    let children = Children { objects, owner, namespace, labels: query(&labels(&owner.name)) };
    let (service_account, old_accounts) = children.put([service_account]).await?;
    let (config_secret, old_secrets) = children.put([config_secret]).await?;
    let (services, old_services) = children.put([service, headless_service]).await?;
    let (pod_disruption_budget, old_budgets) = children.put([pod_disruption_budget]).await?;
    let (stateful_set, old_sets) = children.put([stateful_set]).await?;
    children.remove(old_sets).await?;
    children.remove(old_budgets).await?;
    children.remove(old_services).await?;
    children.remove(old_secrets).await?;
    children.remove(old_accounts).await?;
    let (
        [service_account],
        [config_secret],
        [service, headless_service],
        [pod_disruption_budget],
        [stateful_set],
    ) = (service_account, config_secret, services, pod_disruption_budget, stateful_set);
    announce(objects, namespace, &owner.name, &config_secret.resource_version().unwrap_or_default()).await?;
    Ok(Resources {
        service_account,
        config_secret,
        service,
        headless_service,
        pod_disruption_budget,
        stateful_set,
        state: PhantomData,
    })
}

/// Tells the kubelets of the pool's pods that the configuration has this version.
///
/// # Errors
/// When the API server does not answer or refuses.
pub async fn announce(objects: &Objects, namespace: &str, pool: &str, version: &str) -> Result<(), ApiError> {
    let pods: Vec<PartialObjectMeta<Pod>> = objects.list(namespace, &query(&selector(pool))).await?;
    let behind = pods.iter().filter(|pod| {
        pod.metadata.deletion_timestamp.is_none()
            && pod.annotations().get(CONFIG_ANNOTATION).is_none_or(|known| known != version)
    });
    for pod in behind {
        match objects.annotate(pod, CONFIG_ANNOTATION, version).await {
            Err(error) if error.code() != Some(404) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The objects in the cluster that carry the pool's labels.
struct Children<'a> {
    objects: &'a Objects,
    owner: &'a OwnerReference,
    namespace: &'a str,
    labels: String,
}

impl Children<'_> {
    /// Puts the desired objects of one kind in place; also returns the pool's objects of that kind that are not desired.
    async fn put<K: Kind, const N: usize>(&self, desired: [K; N]) -> Result<([K; N], Vec<K>), ApplyError> {
        let mut present: Vec<K> = self.objects.list(self.namespace, &self.labels).await?;
        let mut applied = desired;
        for object in &mut applied {
            let live = present.iter().position(|live| live.name_any() == object.name_any());
            let live = match live {
                Some(at) => Some(present.swap_remove(at)),
                // It may exist without the labels: somebody else's, or ours with the labels taken off.
                None => self.objects.find(self.namespace, &object.name_any()).await?,
            };
            *object = self.put_one(object.clone(), live).await?;
        }
        present.retain(|live| self.owns(live));
        Ok((applied, present))
    }

    async fn put_one<K: Kind>(&self, mut desired: K, live: Option<K>) -> Result<K, ApplyError> {
        drift::stamp(&mut desired)?;
        if let Some(live) = live {
            if !self.owns(&live) {
                return Err(self.taken(&live));
            }
            if drift::settled(&desired, &live)? {
                return Ok(live);
            }
        }
        Ok(self.objects.apply(&desired).await?)
    }

    async fn remove<K: Kind>(&self, stale: Vec<K>) -> Result<(), ApiError> {
        for object in stale.iter().filter(|object| object.meta().deletion_timestamp.is_none()) {
            self.objects.delete(object).await?;
        }
        Ok(())
    }

    fn owns<K: Kind>(&self, object: &K) -> bool {
        object
            .owner_references()
            .iter()
            .any(|owner| owner.uid == self.owner.uid && owner.controller == Some(true))
    }

    fn taken<K: Kind>(&self, object: &K) -> ApplyError {
        ApplyError::NameTaken {
            kind: K::kind(&()).into_owned(),
            namespace: self.namespace.to_owned(),
            name: object.name_any(),
            pool: self.owner.name.clone(),
        }
    }
}
