//! The objects of one pool, as built or as applied. Leaf: no behaviour but naming the two states, so that status can only
//! be computed from objects that the API server has answered with.

use std::marker::PhantomData;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

/// As the build made them.
#[derive(Clone, Copy, Debug)]
pub enum Prepared {}

/// As the API server holds them.
#[derive(Clone, Copy, Debug)]
pub enum Applied {}

/// All objects of one pool. Whoever handles them takes them apart without `..`, so that a kind added here and forgotten there
/// does not compile. No `Debug`: one of them is a Secret.
pub struct Resources<State> {
    /// The account of the pods.
    pub service_account: ServiceAccount,
    /// The rendered configuration.
    pub config_secret: Secret,
    /// What apps connect to.
    pub service: Service,
    /// Names of the pods.
    pub headless_service: Service,
    /// What drains may do.
    pub pod_disruption_budget: PodDisruptionBudget,
    /// The relays.
    pub stateful_set: StatefulSet,
    /// [`Prepared`] or [`Applied`].
    pub state: PhantomData<State>,
}
