//! Where accepted mail is kept and how long delivery is tried.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where accepted mail is kept and how long delivery is tried.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("!(has(self.storage) && has(self.ephemeral))")
        .message("set at most one of storage and ephemeral"),
    validation = Rule::new("self.minimumBackoffSeconds <= self.maximumBackoffSeconds")
        .message("minimumBackoffSeconds must not exceed maximumBackoffSeconds"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Queue {
    /// A volume per relay, made from a claim. The default, of 10Gi and the cluster's default storage class. Cannot be changed
    /// later: make a new RelayPool and move the apps to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("self == oldSelf")
            .message("queue.storage cannot be changed: make a new RelayPool and move the apps to it")
    )]
    pub storage: Option<Storage>,
    /// Keeps mail on the node's disk for the life of the pod: it outlives the relay process and a restart of the container,
    /// but not the pod. Instead of `storage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<Ephemeral>,
    /// Seconds after acceptance at which an undelivered message is returned to its sender. Default: four days.
    #[serde(default = "default_expire_after_seconds")]
    #[schemars(range(min = 60, max = 1_209_600))]
    pub expire_after_seconds: i32,
    /// Seconds from the first failed attempt to the second; each further wait is twice as long.
    #[serde(default = "default_minimum_backoff_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub minimum_backoff_seconds: i32,
    /// The longest wait between two attempts, in seconds.
    #[serde(default = "default_maximum_backoff_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub maximum_backoff_seconds: i32,
    /// What becomes of a message that a recipient may have already: all of it was sent, and then the connection broke or the relay
    /// died before the upstream's reply was known. `Resend`: it is sent again, and may arrive twice. `Hold`: it waits, with all
    /// its recipients that are still queued, until somebody releases or drops it (`postroad-relay queue list`), and never expires
    /// meanwhile; each message then costs a disk sync more before it is sent. Both are counted and logged.
    #[serde(default)]
    pub ambiguous_delivery: AmbiguousDelivery,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            storage: None,
            ephemeral: None,
            expire_after_seconds: default_expire_after_seconds(),
            minimum_backoff_seconds: default_minimum_backoff_seconds(),
            maximum_backoff_seconds: default_maximum_backoff_seconds(),
            ambiguous_delivery: AmbiguousDelivery::default(),
        }
    }
}

/// What becomes of a message that a recipient may have already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AmbiguousDelivery {
    /// It is sent again.
    #[default]
    Resend,
    /// It waits for a decision.
    Hold,
}

fn default_expire_after_seconds() -> i32 {
    345_600
}
fn default_minimum_backoff_seconds() -> i32 {
    60
}
fn default_maximum_backoff_seconds() -> i32 {
    3600
}

/// A volume per relay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Storage {
    /// The size of each relay's volume. Nine tenths of it hold mail; beyond that new mail is answered 452.
    #[serde(default = "default_storage_size")]
    pub size: Quantity,
    /// The storage class. Default: the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

impl Default for Storage {
    fn default() -> Self {
        Self { size: default_storage_size(), storage_class_name: None }
    }
}

fn default_storage_size() -> Quantity {
    Quantity("10Gi".into())
}

/// The node's disk, for the life of the pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ephemeral {
    /// How much of the node's disk each relay may use. Nine tenths of it hold mail; beyond that new mail is answered 452.
    #[serde(default = "default_ephemeral_size")]
    pub size_limit: Quantity,
}

fn default_ephemeral_size() -> Quantity {
    Quantity("1Gi".into())
}
