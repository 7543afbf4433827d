//! What a pool names.

use std::collections::BTreeMap;

use postroad_crds::v1alpha1::{RelayPool, Upstream};

use crate::secrets::Secrets;

/// Everything a pool names, as far as it exists.
#[derive(Clone, Default)]
pub struct References {
    /// Upstreams by name. An `Err` is one that exists but cannot be read, with the reason.
    pub upstreams: BTreeMap<String, Result<Upstream, String>>,
    /// The Secrets that the pool and its upstreams name.
    pub secrets: Secrets,
}

/// The names of the Secrets a pool itself refers to.
#[must_use]
pub fn secret_names(pool: &RelayPool) -> Vec<&str> {
    let certificate = pool.spec.certificate.as_ref().map(|certificate| certificate.secret_ref.name.as_str());
    let users = pool.spec.clients.identities.iter().filter_map(|identity| identity.password.as_ref());
    let users = users.map(|password| password.users_secret_ref.name.as_str());
    let requests = pool.spec.listeners.iter().filter_map(|listener| listener.client_certificate.as_ref());
    let authorities = requests.map(|request| request.ca_bundle_secret_ref.name.as_str());
    certificate.into_iter().chain(users).chain(authorities).collect()
}

/// The names of the Upstreams a pool refers to, each once.
#[must_use]
pub fn upstream_names(pool: &RelayPool) -> Vec<&str> {
    let upstreams = pool.spec.routes.iter().flat_map(|route| &route.upstreams);
    let mut names: Vec<&str> = upstreams.map(|upstream| upstream.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}
