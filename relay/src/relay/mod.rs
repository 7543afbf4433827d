//! The relay as a whole: what is started in which order. How it goes on is [`lifecycle`]'s, how configurations come into force
//! [`reload`]'s, and what becomes of mail of earlier runs [`recovery`]'s.

mod lifecycle;
mod parts;
mod recovery;
mod reload;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use crate::config::{self, Policy, Role};
use crate::handover::Tombstones;
use crate::limits::ConnectionLimits;
use crate::messages::Messages;
use crate::metrics::Metrics;
use crate::shutdown::{self, Phase};
use crate::spool::{self, Recovering, Spool};
use crate::submission::Listeners;
use crate::transit::Transit;
use crate::{admin, dispatch, listen};
use lifecycle::Relay;
use parts::Shared;

/// Accepted messages that may wait for dispatch to hear of them.
const ACCEPTED_BACKLOG: usize = 1024;
/// Orders of people that may wait for dispatch.
const ORDERS_BACKLOG: usize = 16;

/// What a relay is started with.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// The rendered configuration. The token of the admin API is the file beside it.
    pub config: PathBuf,
    /// The folder for the spool and the sandbox.
    pub data: PathBuf,
    /// This relay's number in its pool.
    pub ordinal: u32,
    /// Where `/healthz`, `/readyz`, `/metrics` and the admin API are served.
    pub admin: SocketAddr,
    /// Octets of memory it may use; `None`: as much as there is.
    pub memory_limit: Option<u64>,
}

/// Runs a relay until `stop` completes and the work that must not be cut is done, or until its role changes in a way that takes a
/// new start.
///
/// # Errors
/// When it cannot start: no usable configuration, spool or port. Each error is one sentence.
pub async fn run(arguments: Arguments, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    // Watched first, so that no change falls between the two; a file that is not there is better told by loading it.
    let changes = config::watch(arguments.config.clone());
    let policy = Arc::new(config::load(&arguments.config)?);
    let changes = changes.with_context(|| format!("{} cannot be watched", arguments.config.display()))?;
    let admin_socket = listen::bind(arguments.admin)
        .await
        .with_context(|| format!("the admin port {} cannot be bound", arguments.admin))?;
    let hand_over_socket = bind_hand_over(&policy).await?;
    let (spool, recovering) = open_spool(&arguments.data, &policy)?;
    let (phase, shutdown) = shutdown::channel();
    let (policy_in_force, policies) = watch::channel(policy.clone());
    let shared = Shared {
        ordinal: arguments.ordinal,
        data: arguments.data,
        messages: Messages { spool, transit: Transit::new(arguments.memory_limit) },
        tombstones: Tombstones::default(),
        policies,
        metrics: Arc::new(Metrics::new()),
        shutdown,
        limits: ConnectionLimits::default(),
        sessions: TaskTracker::new(),
    };
    let (accepted_in, accepted) = mpsc::channel(ACCEPTED_BACKLOG);
    let (orders_in, orders) = mpsc::channel(ORDERS_BACKLOG);
    let (recovered_in, recovered) = mpsc::channel(1);
    let (announce, announcing) = (accepted_in.downgrade(), accepted_in.clone());

    let role = policy.role(arguments.ordinal);
    let mut listeners =
        Listeners::new(shared.submission(arguments.memory_limit, accepted_in, orders_in.clone()));
    let bound = match role {
        Role::Serving => Some(listeners.bind(&policy).await?),
        Role::Finishing | Role::PassingOn => None,
    };
    if bound.is_none() {
        phase.send_replace(Phase::Draining);
    }
    let divisions = watch::Sender::default();
    if let Some(socket) = hand_over_socket {
        let receiver = shared.receiver(announce.clone(), divisions.subscribe(), orders_in.clone());
        tokio::spawn(receiver.serve(socket));
    }
    let departure = shared.departure();
    let resuming = (role != Role::PassingOn).then(|| (departure.clone(), announce));
    let recovering = tokio::spawn(recovery::recover(recovering, shared.ambiguity(), resuming, recovered_in));
    let dispatching = match role {
        // Nobody waits for an answer that does not come.
        Role::PassingOn => {
            drop(orders);
            None
        }
        Role::Serving | Role::Finishing => {
            Some(tokio::spawn(dispatch::run(shared.dispatch(divisions), recovered, accepted, orders)))
        }
    };
    let listeners = bound.map(|bound| {
        listeners.apply(&policy, bound);
        listeners
    });
    shared.metrics.configurations_applied.inc();
    let admin = tokio::spawn(admin::serve(admin_socket, shared.admin(&arguments.config, orders_in)));
    tracing::info!(pool = policy.pool, ordinal = shared.ordinal, ?role, "relay started");
    let (metrics, shutdown) = (shared.metrics.clone(), shared.shutdown.clone());
    let reloading = tokio::spawn(reload::reload(
        arguments.config,
        changes,
        listeners,
        policy_in_force,
        metrics,
        shutdown,
    ));

    let relay = Relay {
        ordinal: shared.ordinal,
        policies: shared.policies,
        phase,
        sessions: shared.sessions,
        announcing: Some(announcing),
        recovering,
        dispatching,
        spool: shared.messages.spool,
        departure,
    };
    relay.run(role, stop).await;
    reloading.abort();
    admin.abort();
    Ok(())
}

async fn bind_hand_over(policy: &Policy) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = policy.hand_over.as_ref().map(|hand_over| hand_over.address) else { return Ok(None) };
    let socket = listen::bind(address).await;
    Ok(Some(socket.with_context(|| format!("the hand-over port {address} cannot be bound"))?))
}

fn open_spool(data: &Path, policy: &Policy) -> anyhow::Result<(Spool, Recovering)> {
    let options = spool::Options { maximum_bytes: policy.spool_bytes, ..spool::Options::default() };
    Ok(Spool::open(&data.join("spool"), options)?)
}
