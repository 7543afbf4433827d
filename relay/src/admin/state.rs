//! What the admin port looks at.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::config::Policy;
use crate::handover::Tombstones;
use crate::limits::ConnectionLimits;
use crate::metrics::Metrics;
use crate::order::Order;
use crate::shutdown::Shutdown;
use crate::spool::Spool;

/// What the admin port looks at.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The spool.
    pub spool: Spool,
    /// What in it is no message any more.
    pub tombstones: Tombstones,
    /// How far the relay is on its way to stopping.
    pub shutdown: Shutdown,
    /// Connections open now.
    pub limits: ConnectionLimits,
    /// The policy in force.
    pub policy: watch::Receiver<Arc<Policy>>,
    /// Where orders go.
    pub orders: mpsc::Sender<Order>,
    /// The file with the token. It is read for each request, so that a changed token counts at once.
    pub token: PathBuf,
}
