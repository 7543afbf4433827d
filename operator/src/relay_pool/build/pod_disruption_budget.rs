//! The PodDisruptionBudget of a pool: drains take one relay at a time. Pure.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::relay_pool::build::metadata;
use crate::relay_pool::validate::ValidatedPool;

/// The PodDisruptionBudget of the pool's name. `maxUnavailable`, not `minAvailable`: a pool of one relay must not block a
/// drain for ever.
#[must_use]
pub fn pod_disruption_budget(pool: &ValidatedPool, owner: &OwnerReference) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata::object(&pool.names.pool, &pool.namespace, owner),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(metadata::label_selector(&pool.names.pool)),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}
