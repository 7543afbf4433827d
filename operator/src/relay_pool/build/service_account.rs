//! The ServiceAccount of a pool's pods: it has no rights and its token is not mounted, because relays talk to no API server.
//! Pure.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::relay_pool::build::metadata;
use crate::relay_pool::validate::ValidatedPool;

/// The ServiceAccount of the pool's name.
#[must_use]
pub fn service_account(pool: &ValidatedPool, owner: &OwnerReference) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata::object(&pool.names.pool, &pool.namespace, owner),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
