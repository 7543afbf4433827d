//! `postroad-operator uninstall`: what `helm uninstall` runs first. Without an operator nobody would let a pool go that is deleted,
//! and its namespace could not go either.
//!
//! It stops the operators, takes the Lease so that none of them works any more, and takes the operator's finalizer from all pools.
//! The pools stay, and their relays run on.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::discovery::ApiResource;
use kube::{Api, Client, ResourceExt};
use postroad_crds::v1alpha1::RelayPool;

use crate::client::{Objects, explain};
use crate::lease::Candidate;
use crate::relay_pool::build::metadata::FIELD_MANAGER;
use crate::relay_pool::deletion;

/// What to let go.
#[derive(Clone, Debug)]
pub struct Options {
    /// The namespaces that the operator serves; empty: all.
    pub namespaces: Vec<String>,
    /// The Deployment of the operators, in the Lease's namespace; `None`: they were stopped otherwise.
    pub deployment: Option<String>,
    /// The Lease's namespace.
    pub lease_namespace: String,
    /// The Lease's name.
    pub lease_name: String,
    /// Who this process is in the election.
    pub identity: String,
    /// How long the operators may take to give up the Lease.
    pub limit: Duration,
}

/// Stops the operators and lets all pools go; answers one line for each. May be repeated.
///
/// # Errors
/// What could not be done, in a sentence. Operators that were stopped stay so: the next `helm upgrade` or `helm install` starts them.
pub async fn uninstall(client: &Client, objects: &Objects, options: &Options) -> Result<Vec<String>, String> {
    if let Some(deployment) = &options.deployment {
        stop(client, &options.lease_namespace, deployment).await?;
    }
    let mut candidate = Candidate::new(
        client.clone(),
        &options.lease_namespace,
        &options.lease_name,
        &options.identity,
        Instant::now(),
    );
    let acquired = tokio::time::timeout(options.limit, candidate.acquire(|| {})).await;
    acquired.map_err(|_| {
        let (namespace, name, seconds) =
            (&options.lease_namespace, &options.lease_name, options.limit.as_secs());
        format!("an operator has held the Lease {namespace}/{name} for {seconds} seconds: stop it")
    })?;
    let released = release(client, objects, options).await;
    candidate.release().await;
    released
}

async fn stop(client: &Client, namespace: &str, name: &str) -> Result<(), String> {
    let deployments = Api::<Deployment>::namespaced(client.clone(), namespace);
    let none = serde_json::json!({"spec": {"replicas": 0}});
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    match deployments.patch_scale(name, &parameters, &Patch::Merge(none)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => {
            Err(format!("cannot stop the operators of Deployment {namespace}/{name}: {}", explain(&error)))
        }
        Ok(_) => Ok(()),
    }
}

async fn release(client: &Client, objects: &Objects, options: &Options) -> Result<Vec<String>, String> {
    let apis: Vec<Api<RelayPool>> = match &options.namespaces[..] {
        [] => vec![Api::all(client.clone())],
        names => names.iter().map(|name| Api::namespaced(client.clone(), name)).collect(),
    };
    let kind = ApiResource::erase::<RelayPool>(&());
    let mut told = Vec::new();
    for api in apis {
        let listed = match api.list_metadata(&ListParams::default()).await {
            // The definitions are gone, and all pools with them.
            Err(kube::Error::Api(status)) if status.code == 404 => continue,
            listed => listed.map_err(|error| format!("cannot list {}: {}", kind.plural, explain(&error)))?,
        };
        for pool in listed.items.iter().filter(|pool| deletion::is_held(&pool.metadata)) {
            let released = objects.set_finalizer(&kind, &pool.metadata, None).await;
            released.map_err(|error| error.to_string())?;
            told.push(fate(pool));
        }
    }
    Ok(told)
}

fn fate(pool: &PartialObjectMeta<RelayPool>) -> String {
    let name = format!("RelayPool {}/{}", pool.namespace().unwrap_or_default(), pool.name_any());
    match pool.metadata.deletion_timestamp {
        None => format!("{name} stays and may be deleted without an operator"),
        Some(_) => format!(
            "{name} waited for its relays to finish and goes now; its volumes stay, with what is on them: a pool of the same name \
             delivers it"
        ),
    }
}
