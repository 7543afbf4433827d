//! What the parts of a relay share, and the parts made of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postroad_crds::admin_token;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use crate::admin::Admin;
use crate::ambiguity::Ambiguity;
use crate::config::Policy;
use crate::dispatch::Dispatch;
use crate::handover::{Departure, Receiver, Sender, Tombstones};
use crate::limits::ConnectionLimits;
use crate::memory::Memory;
use crate::messages::Messages;
use crate::metrics::Metrics;
use crate::order::Order;
use crate::shutdown::Shutdown;
use crate::submission::{Accepted, Context, Passage};

/// What the parts share.
pub(super) struct Shared {
    pub(super) ordinal: u32,
    pub(super) data: PathBuf,
    pub(super) messages: Messages,
    pub(super) tombstones: Tombstones,
    pub(super) policies: watch::Receiver<Arc<Policy>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shutdown: Shutdown,
    pub(super) limits: ConnectionLimits,
    pub(super) sessions: TaskTracker,
}

impl Shared {
    /// What clients' sessions need.
    pub(super) fn submission(
        &self,
        memory_limit: Option<u64>,
        accepted: mpsc::Sender<Accepted>,
        orders: mpsc::Sender<Order>,
    ) -> Context {
        Context {
            policy: self.policies.clone(),
            spool: self.messages.spool.clone(),
            passage: Arc::new(Passage { transit: self.messages.transit.clone(), orders }),
            memory: memory_limit.map_or_else(Memory::unlimited, Memory::watch),
            accepted,
            metrics: self.metrics.clone(),
            shutdown: self.shutdown.clone(),
            limits: self.limits.clone(),
            verifier: Arc::default(),
            sessions: self.sessions.clone(),
        }
    }

    /// Takes mail from relays that leave.
    pub(super) fn receiver(
        &self,
        accepted: mpsc::WeakSender<Accepted>,
        divisions: watch::Receiver<BTreeMap<String, u64>>,
        orders: mpsc::Sender<Order>,
    ) -> Receiver {
        Receiver {
            ordinal: self.ordinal,
            spool: self.messages.spool.clone(),
            tombstones: self.tombstones.clone(),
            policy: self.policies.clone(),
            accepted,
            shutdown: self.shutdown.clone(),
            sessions: self.sessions.clone(),
            metrics: self.metrics.clone(),
            divisions,
            orders,
        }
    }

    /// Gives mail to relays that stay.
    pub(super) fn departure(&self) -> Departure {
        let sender = Sender {
            ordinal: self.ordinal,
            spool: self.messages.spool.clone(),
            tombstones: self.tombstones.clone(),
            policy: self.policies.clone(),
            metrics: self.metrics.clone(),
        };
        Departure::new(&self.data, sender)
    }

    /// Settles what an earlier run was sending.
    pub(super) fn ambiguity(&self) -> Ambiguity {
        let delivery = self.policies.borrow().ambiguous_delivery;
        Ambiguity { spool: self.messages.spool.clone(), delivery, metrics: self.metrics.clone() }
    }

    /// Delivers.
    pub(super) fn dispatch(&self, divisions: watch::Sender<BTreeMap<String, u64>>) -> Dispatch {
        Dispatch {
            messages: self.messages.clone(),
            tombstones: self.tombstones.clone(),
            policy: self.policies.clone(),
            ordinal: self.ordinal,
            data: self.data.clone(),
            metrics: self.metrics.clone(),
            divisions,
            shutdown: self.shutdown.clone(),
        }
    }

    /// Answers people. The token of its API is the file beside the configuration.
    pub(super) fn admin(&self, config: &Path, orders: mpsc::Sender<Order>) -> Admin {
        Admin {
            metrics: self.metrics.clone(),
            spool: self.messages.spool.clone(),
            tombstones: self.tombstones.clone(),
            shutdown: self.shutdown.clone(),
            limits: self.limits.clone(),
            policy: self.policies.clone(),
            orders,
            token: config.with_file_name(admin_token::FILE_NAME),
        }
    }
}
