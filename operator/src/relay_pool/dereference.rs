//! Dereference: fetches what a pool names. Upstreams come from the watch, Secrets by name, and only those that are named.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store};
use postroad_crds::v1alpha1::{RelayPool, Upstream};

use crate::client::{ApiError, Objects};
use crate::relay_pool::validate::{References, secret_names, upstream_names};
use crate::secrets::Secrets;
use crate::upstream::validate as upstream;

/// What the pool names, as far as it exists.
///
/// # Errors
/// When the API server does not answer or refuses to show a Secret.
pub async fn dereference(
    objects: &Objects,
    upstreams: &Store<DeserializeGuard<Upstream>>,
    namespace: &str,
    pool: &RelayPool,
) -> Result<References, ApiError> {
    let found = find_upstreams(upstreams, namespace, pool);
    let mut names: Vec<&str> = secret_names(pool);
    names.extend(found.values().flatten().flat_map(upstream::secret_names));
    names.sort_unstable();
    names.dedup();
    let mut secrets = Secrets::of(namespace);
    for name in names {
        if let Some(secret) = objects.find::<Secret>(namespace, name).await? {
            secrets.insert(name, secret);
        }
    }
    Ok(References { upstreams: found, secrets })
}

fn find_upstreams(
    upstreams: &Store<DeserializeGuard<Upstream>>,
    namespace: &str,
    pool: &RelayPool,
) -> BTreeMap<String, Result<Upstream, String>> {
    let find = |name: &str| {
        let found = upstreams.get(&ObjectRef::new(name).within(namespace))?;
        let read = found.0.clone().map(|mut upstream| {
            // One that is not divided yet gives nobody a share.
            upstream.status.get_or_insert_default();
            upstream
        });
        Some((name.to_owned(), read.map_err(|invalid| invalid.error)))
    };
    upstream_names(pool).into_iter().filter_map(find).collect()
}
