//! What reconciles share: access to the API server, the Upstreams that a watch has shown, settings and metrics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::core::DeserializeGuard;
use kube::runtime::events::Recorder;
use kube::runtime::reflector::Store;
use postroad_crds::v1alpha1::{RelayPool, Upstream};

use crate::client::Objects;
use crate::metrics::Metrics;
use crate::relay_pool::build::RelayImage;
use crate::relay_pool::heard::Heard;
use crate::standing::board::Board;

/// What the operator was started with, as far as the build needs it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The image of relay pods.
    pub relay_image: RelayImage,
    /// The DNS domain of the cluster.
    pub cluster_domain: String,
}

/// Shared by all reconciles of one watched scope.
pub struct Context {
    /// Access to the API server.
    pub objects: Objects,
    /// Publishes Events.
    pub recorder: Recorder,
    /// The Upstreams of the scope.
    pub upstreams: Store<DeserializeGuard<Upstream>>,
    /// The RelayPools of the scope.
    pub pools: Store<DeserializeGuard<RelayPool>>,
    /// What the operator was started with.
    pub settings: Settings,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// How often objects have failed in a row.
    pub retries: Retries,
    /// What leaving relays have lately said.
    pub heard: Heard,
    /// What all relays have lately said of their upstreams.
    pub board: Board,
}

/// How long to wait before an object that failed is tried again: 1 s, doubling to 5 minutes, forgotten at its first success.
#[derive(Default)]
pub struct Retries {
    failures: Mutex<HashMap<String, u32>>,
}

const LONGEST_WAIT: Duration = Duration::from_secs(300);

impl Retries {
    /// Notes a failure and says how long to wait.
    pub fn failed(&self, object: &str) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(object.to_owned()).or_default();
        let wait = Duration::from_secs(1 << (*count).min(16)).min(LONGEST_WAIT);
        *count += 1;
        wait
    }

    /// Forgets an object, because it succeeded or is gone.
    pub fn forget(&self, object: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_bound_and_are_forgotten() {
        let retries = Retries::default();
        let waits: Vec<u64> = (0..10).map(|_| retries.failed("RelayPool mail/main").as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(retries.failed("RelayPool mail/other").as_secs(), 1);
        retries.forget("RelayPool mail/main");
        assert_eq!(retries.failed("RelayPool mail/main").as_secs(), 1);
    }
}
