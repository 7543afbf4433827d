//! A relay that runs: it serves, leaves its pool or stops, and lets what must not be cut come to its end.

use std::pin::{Pin, pin};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::config::{Policy, Role};
use crate::handover::Departure;
use crate::shutdown::Phase;
use crate::spool::Spool;
use crate::submission::Accepted;

/// A relay that has started.
pub(super) struct Relay {
    pub(super) ordinal: u32,
    pub(super) policies: watch::Receiver<Arc<Policy>>,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) sessions: TaskTracker,
    /// Lets dispatch hear of messages that come by hand-over, until it is to end.
    pub(super) announcing: Option<mpsc::Sender<Accepted>>,
    /// What makes known what earlier runs left.
    pub(super) recovering: JoinHandle<()>,
    /// Until dispatch has ended.
    pub(super) dispatching: Option<JoinHandle<()>>,
    pub(super) spool: Spool,
    pub(super) departure: Departure,
}

impl Relay {
    /// Plays its role until `stop` completes or another role takes a new start.
    pub(super) async fn run(mut self, role: Role, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        if role == Role::Serving {
            let next = tokio::select! {
                () = &mut stop => None,
                next = next_role(&mut self.policies, self.ordinal, role) => Some(next),
            };
            match next {
                None => return self.stop().await,
                Some(next) => {
                    tracing::info!(role = ?next, "this relay is to leave");
                    self.close().await;
                    return self.leave(next, stop).await;
                }
            }
        }
        self.leave(role, stop).await;
    }

    /// Leaves for good. Ends by `stop`, which the operator brings about once nothing is left here.
    async fn leave(mut self, role: Role, mut stop: Pin<&mut impl Future<Output = ()>>) {
        if role == Role::PassingOn {
            self.phase.send_replace(Phase::Stopping);
            self.sessions.close();
            self.sessions.wait().await;
            self.dispatched().await;
            self.recovered().await;
        }
        let passing_on = async {
            if role == Role::PassingOn {
                self.departure.pass_on().await;
            }
            std::future::pending::<()>().await;
        };
        let mut policies = self.policies.clone();
        tokio::select! {
            () = &mut stop => {}
            next = next_role(&mut policies, self.ordinal, role) => {
                tracing::info!(role = ?next, "the relay starts anew for another role");
            }
            () = passing_on => {}
        }
        self.stop().await;
    }

    /// Lets what must not be cut come to its end, within the grace period.
    async fn stop(mut self) {
        let policy = self.policies.borrow().clone();
        let ephemeral = policy.hand_over.as_ref().is_some_and(|hand_over| hand_over.ephemeral);
        let stopping = async {
            self.close().await;
            self.phase.send_replace(Phase::Stopping);
            self.sessions.close();
            self.sessions.wait().await;
            self.dispatched().await;
            if ephemeral {
                self.recovered().await;
                self.departure.pass_on().await;
            }
            self.spool.close().await;
        };
        match timeout(policy.grace_period, stopping).await {
            Ok(()) => tracing::info!("relay stopped"),
            Err(_) => {
                tracing::warn!("grace period over; what was under way is tried again after the next start")
            }
        }
    }

    async fn dispatched(&mut self) {
        self.announcing = None;
        if let Some(dispatching) = self.dispatching.take() {
            let _ = dispatching.await;
        }
    }

    /// Nothing may be handed over before it is known what an earlier run was sending.
    async fn recovered(&mut self) {
        let _ = (&mut self.recovering).await;
    }

    /// Not ready at once; still accepting while clients learn of it; then nothing new.
    async fn close(&self) {
        if *self.phase.borrow() >= Phase::Draining {
            return;
        }
        let accept_after_stop = self.policies.borrow().accept_after_stop;
        tracing::info!(accept_seconds = accept_after_stop.as_secs(), "stopping");
        self.phase.send_replace(Phase::Leaving);
        sleep(accept_after_stop).await;
        self.phase.send_replace(Phase::Draining);
    }
}

/// Waits for another role than `role`.
async fn next_role(policies: &mut watch::Receiver<Arc<Policy>>, ordinal: u32, role: Role) -> Role {
    match policies.wait_for(|policy| policy.role(ordinal) != role).await {
        Ok(policy) => policy.role(ordinal),
        // No configuration is read any more: the process is ending.
        Err(_) => std::future::pending().await,
    }
}
