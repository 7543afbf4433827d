//! What sessions share, and what they announce.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use super::passage::Passage;
use crate::config::Policy;
use crate::credentials::Verifier;
use crate::limits::ConnectionLimits;
use crate::memory::Memory;
use crate::message::{DeliveryState, Envelope};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::spool::Spool;

/// A message that is now dispatch's to deliver.
#[derive(Debug)]
pub struct Accepted {
    /// Its envelope.
    pub envelope: Arc<Envelope>,
    /// Its delivery state.
    pub state: DeliveryState,
    /// Whether its client waits for the outcome; any other is on stable storage.
    pub in_transit: bool,
}

impl Accepted {
    /// A message that is on stable storage.
    #[must_use]
    pub fn stored(envelope: Envelope, state: DeliveryState) -> Self {
        Self { envelope: Arc::new(envelope), state, in_transit: false }
    }

    /// A message whose client waits for the outcome.
    #[must_use]
    pub fn in_transit(envelope: Arc<Envelope>) -> Self {
        let state = DeliveryState::new(envelope.recipients.len(), envelope.accepted_at);
        Self { envelope, state, in_transit: true }
    }
}

/// What every session needs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    /// The policy in force; sessions look at it again at each decision.
    pub policy: watch::Receiver<Arc<Policy>>,
    /// Where messages are kept.
    pub spool: Spool,
    /// Where those are that pass through.
    pub passage: Arc<Passage>,
    /// Whether there is memory for more.
    pub memory: Memory,
    /// Where messages are announced.
    pub accepted: mpsc::Sender<Accepted>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How far the relay is on its way to stopping.
    pub shutdown: Shutdown,
    /// Connections open now.
    pub limits: ConnectionLimits,
    /// Verifies passwords.
    pub verifier: Arc<Verifier>,
    /// The running sessions, to be waited for.
    pub sessions: TaskTracker,
}
