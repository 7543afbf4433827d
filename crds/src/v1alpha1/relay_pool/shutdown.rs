//! How a relay stops.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// How a relay stops.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("self.acceptSeconds < self.gracePeriodSeconds")
        .message("acceptSeconds must be less than gracePeriodSeconds"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Shutdown {
    /// Seconds after the request to stop in which a relay still accepts mail, because clients learn late that its endpoint is
    /// gone. It reports itself not ready at once.
    #[serde(default = "default_accept_seconds")]
    #[schemars(range(min = 0, max = 300))]
    pub accept_seconds: i32,
    /// Seconds after the request to stop at which a relay ends whatever still runs. What it has not delivered stays on its
    /// volume.
    #[serde(default = "default_grace_period_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub grace_period_seconds: i32,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            accept_seconds: default_accept_seconds(),
            grace_period_seconds: default_grace_period_seconds(),
        }
    }
}

fn default_accept_seconds() -> i32 {
    5
}
fn default_grace_period_seconds() -> i32 {
    60
}
