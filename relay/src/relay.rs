//! The relay as a whole: what is started in which order, how configurations come into force, how it stops.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;

use anyhow::Context as _;
use postroad_crds::admin_token;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::admin::{self, Admin};
use crate::ambiguity::Ambiguity;
use crate::config::{self, Policy, Role};
use crate::dispatch::{self, Dispatch};
use crate::handover::{Departure, Receiver, Sender, Tombstones};
use crate::limits::ConnectionLimits;
use crate::listen;
use crate::memory::Memory;
use crate::message::Timestamp;
use crate::metrics::Metrics;
use crate::shutdown::{self, Phase, Shutdown};
use crate::spool::{self, Recovered, Recovering, Recovery, Spool, SpoolError};
use crate::submission::{Accepted, Context, Listeners};
use crate::telemetry;

/// Accepted messages that may wait for dispatch to hear of them.
const ACCEPTED_BACKLOG: usize = 1024;

/// Orders of people that may wait for dispatch.
const ORDERS_BACKLOG: usize = 16;
/// Recovered messages that dispatch is told of at once; between two such batches it looks at everything else.
const RECOVERED_BATCH: usize = 1024;

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
    let metrics = Arc::new(Metrics::new());
    let (phase, shutdown) = shutdown::channel();
    let (policy_in_force, policies) = watch::channel(policy.clone());
    let (accepted_in, accepted) = mpsc::channel(ACCEPTED_BACKLOG);
    let (orders_in, orders) = mpsc::channel(ORDERS_BACKLOG);
    let limits = ConnectionLimits::default();
    let sessions = TaskTracker::new();
    let tombstones = Tombstones::default();
    let role = policy.role(arguments.ordinal);

    let (announce, announcing) = (accepted_in.downgrade(), accepted_in.clone());
    let mut listeners = Listeners::new(Context {
        policy: policies.clone(),
        spool: spool.clone(),
        memory: arguments.memory_limit.map_or_else(Memory::unlimited, Memory::watch),
        accepted: accepted_in,
        metrics: metrics.clone(),
        shutdown: shutdown.clone(),
        limits: limits.clone(),
        verifier: Arc::default(),
        sessions: sessions.clone(),
    });
    let bound = match role {
        Role::Serving => Some(listeners.bind(&policy).await?),
        Role::Finishing | Role::PassingOn => None,
    };
    if bound.is_none() {
        phase.send_replace(Phase::Draining);
    }
    let divisions = watch::Sender::default();
    if let Some(socket) = hand_over_socket {
        let receiver = Receiver {
            ordinal: arguments.ordinal,
            spool: spool.clone(),
            tombstones: tombstones.clone(),
            policy: policies.clone(),
            accepted: announce.clone(),
            shutdown: shutdown.clone(),
            sessions: sessions.clone(),
            metrics: metrics.clone(),
            divisions: divisions.subscribe(),
        };
        tokio::spawn(receiver.serve(socket));
    }
    let departure = Departure::new(
        &arguments.data,
        Sender {
            ordinal: arguments.ordinal,
            spool: spool.clone(),
            tombstones: tombstones.clone(),
            policy: policies.clone(),
            metrics: metrics.clone(),
        },
    );
    let (recovered_in, recovered) = mpsc::channel(1);
    let ambiguity =
        Ambiguity { spool: spool.clone(), delivery: policy.ambiguous_delivery, metrics: metrics.clone() };
    let resuming = (role != Role::PassingOn).then(|| (departure.clone(), announce));
    let recovering = tokio::spawn(recover(recovering, ambiguity, resuming, recovered_in));
    let dispatching = match role {
        Role::PassingOn => None,
        Role::Serving | Role::Finishing => {
            let dispatch = Dispatch {
                spool: spool.clone(),
                tombstones: tombstones.clone(),
                policy: policies.clone(),
                ordinal: arguments.ordinal,
                data: arguments.data.clone(),
                metrics: metrics.clone(),
                divisions,
                shutdown: shutdown.clone(),
            };
            Some(tokio::spawn(dispatch::run(dispatch, recovered, accepted, orders)))
        }
    };
    let listeners = bound.map(|bound| {
        listeners.apply(&policy, bound);
        listeners
    });
    metrics.configurations_applied.inc();
    let admin = Admin {
        metrics: metrics.clone(),
        spool: spool.clone(),
        tombstones,
        shutdown: shutdown.clone(),
        limits,
        policy: policies.clone(),
        orders: orders_in,
        token: arguments.config.with_file_name(admin_token::FILE_NAME),
    };
    let admin = tokio::spawn(admin::serve(admin_socket, admin));
    tracing::info!(pool = policy.pool, ordinal = arguments.ordinal, ?role, "relay started");
    let reloading =
        tokio::spawn(reload(arguments.config, changes, listeners, policy_in_force, metrics, shutdown));

    let relay = Relay {
        ordinal: arguments.ordinal,
        policies,
        phase,
        sessions,
        announcing: Some(announcing),
        recovering,
        dispatching,
        spool,
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

/// A relay that has started.
struct Relay {
    ordinal: u32,
    policies: watch::Receiver<Arc<Policy>>,
    phase: watch::Sender<Phase>,
    sessions: TaskTracker,
    /// Lets dispatch hear of messages that come by hand-over, until it is to end.
    announcing: Option<mpsc::Sender<Accepted>>,
    /// What makes known what earlier runs left.
    recovering: JoinHandle<()>,
    /// Until dispatch has ended.
    dispatching: Option<JoinHandle<()>>,
    spool: Spool,
    departure: Departure,
}

impl Relay {
    /// Plays its role until `stop` completes or another role takes a new start.
    async fn run(mut self, role: Role, stop: impl Future<Output = ()>) {
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

fn open_spool(data: &Path, policy: &Policy) -> anyhow::Result<(Spool, Recovering)> {
    let options = spool::Options { maximum_bytes: policy.spool_bytes, ..spool::Options::default() };
    Ok(Spool::open(&data.join("spool"), options)?)
}

/// Settles what earlier runs were sending, once all they left is read, and gives it to dispatch, but for what a departure left
/// under way: that is announced when it turns out to be this relay's. Mail is taken and delivered meanwhile. A relay that passes
/// on all it has is `resuming` nothing.
async fn recover(
    recovering: Recovering,
    ambiguity: Ambiguity,
    resuming: Option<(Departure, mpsc::WeakSender<Accepted>)>,
    recovered: mpsc::Sender<Vec<Recovered>>,
) {
    let recovery = match recovering.finished().await {
        Ok(recovery) => recovery,
        Err(SpoolError::Closed) => return,
        Err(error) => return tracing::error!(%error, "what earlier runs left in the spool cannot be read"),
    };
    report(&recovery);
    let held = ambiguity.settle(recovery.ambiguous).await;
    let Some((departure, announced)) = resuming else { return };
    let under_way = match departure.resume(announced).await {
        Ok(under_way) => under_way,
        Err(error) => {
            let error = telemetry::sentence(&error);
            return tracing::error!(error, "what earlier runs left is not delivered before the next start");
        }
    };
    let due = |message: Recovered| {
        let due_at = if held.contains(&message.id) { Timestamp::NEVER } else { message.due_at };
        Recovered { due_at, ..message }
    };
    let messages = recovery.messages.filter(|message| !under_way.contains(&message.id));
    let mut messages = messages.map(due).peekable();
    while messages.peek().is_some() {
        let batch = messages.by_ref().take(RECOVERED_BATCH).collect();
        if recovered.send(batch).await.is_err() {
            // Dispatch has stopped; the next start finds the rest again.
            return;
        }
    }
}

fn report(recovery: &Recovery) {
    tracing::info!(
        messages = recovery.messages.len(),
        segments = recovery.segments,
        torn_bytes = recovery.torn_bytes,
        quarantined = recovery.quarantined.len(),
        clean = recovery.clean,
        "spool read"
    );
    for quarantined in &recovery.quarantined {
        tracing::error!(subject = ?quarantined.subject, reason = quarantined.reason, "damaged on disk, put into quarantine");
    }
}

/// Puts every usable configuration in force and keeps the last one when another cannot be used (P6). The ports are closed when
/// nothing more is accepted; what is delivered then still follows the configuration.
async fn reload(
    path: PathBuf,
    mut changes: mpsc::Receiver<()>,
    mut listeners: Option<Listeners>,
    policy_in_force: watch::Sender<Arc<Policy>>,
    metrics: Arc<Metrics>,
    mut shutdown: Shutdown,
) {
    loop {
        tokio::select! {
            Some(()) = changes.recv() => {}
            () = shutdown.reached(Phase::Draining), if listeners.is_some() => {
                // With them goes the last sender of accepted messages that is not a session's.
                listeners = None;
                continue;
            }
            else => return,
        }
        match put_in_force(&path, listeners.as_mut(), &policy_in_force).await {
            Ok(()) => {
                metrics.configurations_applied.inc();
                tracing::info!("configuration changed");
            }
            Err(error) => {
                metrics.configurations_refused.inc();
                tracing::error!(
                    error = telemetry::sentence(&error),
                    "configuration refused; the last good one stays in force"
                );
            }
        }
    }
}

async fn put_in_force(
    path: &Path,
    listeners: Option<&mut Listeners>,
    policy_in_force: &watch::Sender<Arc<Policy>>,
) -> anyhow::Result<()> {
    let policy = Arc::new(config::load(path)?);
    let Some(listeners) = listeners else {
        policy_in_force.send_replace(policy);
        return Ok(());
    };
    let bound = listeners.bind(&policy).await?;
    policy_in_force.send_replace(policy.clone());
    listeners.apply(&policy, bound);
    Ok(())
}
