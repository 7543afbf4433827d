//! Build: from a validated pool to the objects it consists of. Pure: no client, no clock; the same input gives the same
//! objects, octet for octet (tests/golden).

pub mod config;
pub mod metadata;
pub mod pod_disruption_budget;
pub mod quantity;
pub mod service;
pub mod service_account;
pub mod stateful_set;

use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::reason::Problem;
use crate::relay_pool::admin_token::AdminToken;
use crate::relay_pool::credentials::Credentials;
use crate::relay_pool::membership::Membership;
use crate::relay_pool::resources::{Prepared, Resources};
use crate::relay_pool::validate::ValidatedPool;
pub use stateful_set::RelayImage;

/// What was made at random once for a pool and is kept in the Secret with its configuration.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What opens the relays' admin API.
    pub token: AdminToken,
    /// What they know each other by.
    pub credentials: Credentials,
}

/// The objects of the pool that `owner` refers to.
///
/// # Errors
/// `ConfigurationTooLarge`, when the rendered configuration does not fit into a Secret.
pub fn build(
    pool: &ValidatedPool,
    owner: &OwnerReference,
    image: &RelayImage,
    cluster_domain: &str,
    kept: &Kept,
    membership: &Membership,
) -> Result<Resources<Prepared>, Problem> {
    let endpoint = pool.names.endpoint(&pool.namespace, cluster_domain);
    Ok(Resources {
        service_account: service_account::service_account(pool, owner),
        config_secret: config::secret(pool, owner, &endpoint, cluster_domain, kept, membership)?,
        service: service::service(pool, owner),
        headless_service: service::headless_service(pool, owner),
        pod_disruption_budget: pod_disruption_budget::pod_disruption_budget(pool, owner),
        stateful_set: stateful_set::stateful_set(pool, owner, image, membership.replicas),
        state: PhantomData,
    })
}
