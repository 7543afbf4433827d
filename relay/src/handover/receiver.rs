//! The receiving side: takes mail from relays of the pool that leave, and tells the operator what this one still holds.
//!
//! Served as long as the process runs, whatever phase it is in: a relay that leaves itself takes nothing more, yet still answers
//! for what it was given before.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postroad_crds::relay_config::{REMAINING_PROTOCOL, Remaining, UpstreamStanding};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;

use super::Tombstones;
use super::protocol::{Channel, Reply, Request};
use super::standings;
use crate::config::Policy;
use crate::message::{DeliveryState, Envelope};
use crate::metrics::Metrics;
use crate::order::{Order, UpstreamOrder};
use crate::shutdown::{Phase, Shutdown};
use crate::spool::{Spool, SpoolError};
use crate::submission::Accepted;

/// Connections served at once: those of a pool that leaves all at once, with room to spare.
const CONNECTIONS: usize = 256;
/// How long the handshake, and the answer to the operator, may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long dispatch may take to say how upstreams stand: what the relay holds is told all the same.
const DISPATCH_TIMEOUT: Duration = Duration::from_secs(1);
/// How long accepting pauses when the system has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often useless tombstones are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// What the receiving side is made of.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// This relay's ordinal.
    pub ordinal: u32,
    /// Where messages are kept.
    pub spool: Spool,
    /// What is left of those that are done with.
    pub tombstones: Tombstones,
    /// The policy in force.
    pub policy: watch::Receiver<Arc<Policy>>,
    /// Where messages are announced, as long as dispatch takes any.
    pub accepted: mpsc::WeakSender<Accepted>,
    /// How far the relay is on its way to stopping.
    pub shutdown: Shutdown,
    /// Clients' sessions: one that has not ended may still bring a message.
    pub sessions: TaskTracker,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// By upstream, the number of the newest division to which dispatch keeps.
    pub divisions: watch::Receiver<BTreeMap<String, u64>>,
    /// Where dispatch is asked how upstreams stand.
    pub orders: mpsc::Sender<Order>,
}

impl Receiver {
    /// Serves `socket` and looks after tombstones until dropped, from when the spool knows what it holds: peers ask for it.
    pub async fn serve(self, socket: TcpListener) {
        self.spool.recovered().await;
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        tokio::join!(self.accept(socket, permits), self.sweep());
    }

    async fn sweep(&self) {
        let mut policy = self.policy.clone();
        loop {
            let current = policy.borrow_and_update().clone();
            self.tombstones.sweep(&self.spool, &current, SystemTime::now().into()).await;
            tokio::select! {
                Ok(()) = policy.changed() => {}
                () = sleep(SWEEP) => {}
            }
        }
    }

    async fn accept(&self, socket: TcpListener, permits: Arc<Semaphore>) {
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            match socket.accept().await {
                Ok((stream, peer)) => {
                    let receiver = self.clone();
                    tokio::spawn(async move {
                        let _permit = permit;
                        if let Err(error) = receiver.connection(stream).await {
                            tracing::debug!(%peer, %error, "connection of a relay ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection of a relay");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(&self, stream: TcpStream) -> io::Result<()> {
        let _ = stream.set_nodelay(true);
        let Some(server) = self.policy.borrow().hand_over.as_ref().map(|policy| policy.server.clone()) else {
            return Ok(());
        };
        let handshake = timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(server).accept(stream));
        let stream = handshake.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        match stream.get_ref().1.alpn_protocol() {
            None => Err(io::Error::other("the peer named no protocol")),
            Some(REMAINING_PROTOCOL) => self.tell_remaining(stream).await,
            Some(_) => self.take(Channel::new(stream)).await,
        }
    }

    /// How the upstreams stand; nothing when dispatch does not say so soon, or has ended.
    async fn standings(&self) -> Vec<UpstreamStanding> {
        let (answer, answered) = oneshot::channel();
        let order = Order::Upstream(UpstreamOrder { act: None, answer });
        let asked = async { self.orders.send(order).await.is_ok().then_some(answered.await.ok()??) };
        standings::bounded(timeout(DISPATCH_TIMEOUT, asked).await.ok().flatten().unwrap_or_default())
    }

    /// What this relay holds: read after whether it is closed, so that what was let in before is counted.
    fn remaining(&self, upstreams: Vec<UpstreamStanding>) -> Remaining {
        let leaving =
            self.policy.borrow().hand_over.as_ref().is_some_and(|policy| policy.leaves(self.ordinal));
        let closed = leaving && self.shutdown.phase() >= Phase::Draining && self.sessions.is_empty();
        let usage = self.spool.usage();
        Remaining {
            ordinal: self.ordinal,
            closed,
            messages: usage.messages.saturating_sub(self.tombstones.count()),
            quarantined: usage.quarantined,
            divisions: self.divisions.borrow().clone(),
            upstreams,
        }
    }

    async fn tell_remaining(&self, mut stream: TlsStream<TcpStream>) -> io::Result<()> {
        let told = async {
            let remaining = self.remaining(self.standings().await);
            stream.write_all(&serde_json::to_vec(&remaining)?).await?;
            stream.shutdown().await
        };
        timeout(HANDSHAKE_TIMEOUT, told).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn take(&self, mut channel: Channel<TlsStream<TcpStream>>) -> io::Result<()> {
        while let Some(request) = channel.next_request().await? {
            let reply = match request {
                Request::Offer { by, envelope, state } => {
                    self.offered(&mut channel, by, *envelope, state).await?
                }
                Request::Confirm { id } => {
                    self.tombstones.confirm(&self.spool, id).await.map_err(io::Error::other)?;
                    Reply::Confirmed
                }
            };
            channel.say(&reply).await?;
        }
        Ok(())
    }

    /// Answers an offer. An error ends the connection without an answer: whether the message is kept is not known then.
    async fn offered(
        &self,
        channel: &mut Channel<TlsStream<TcpStream>>,
        by: u32,
        envelope: Envelope,
        mut state: DeliveryState,
    ) -> io::Result<Reply> {
        let id = envelope.id;
        if self.spool.contains(id) {
            return Ok(Reply::Kept);
        }
        let Some(announce) = self.accepted.upgrade().filter(|_| self.stays()) else {
            return Ok(Reply::Refused(format!("relay {} is leaving itself", self.ordinal)));
        };
        channel.say(&Reply::Send).await?;
        state.handing_over_to = None;
        state.handed_over_by = Some(by);
        match self.store(channel, &envelope, &state).await? {
            Stored::Now => {
                self.metrics.messages_taken_over.inc();
                tracing::info!(%id, by, "taken over from another relay");
                // Dispatch has ended when nobody hears this: the next start finds the message.
                let _ = announce.send(Accepted::stored(envelope, state)).await;
                Ok(Reply::Kept)
            }
            Stored::Before => Ok(Reply::Kept),
            Stored::Not(why) => Ok(Reply::Refused(why)),
        }
    }

    fn stays(&self) -> bool {
        self.policy.borrow().hand_over.as_ref().is_some_and(|policy| !policy.leaves(self.ordinal))
    }

    async fn store(
        &self,
        channel: &mut Channel<TlsStream<TcpStream>>,
        envelope: &Envelope,
        state: &DeliveryState,
    ) -> io::Result<Stored> {
        let mut draft = self.spool.draft();
        let mut failure = None;
        let mut received: u64 = 0;
        while received < envelope.size {
            let chunk = channel.receive().await?.freeze();
            received += chunk.len() as u64;
            if failure.is_none() {
                failure = draft.append(chunk).await.err();
            }
        }
        let outcome = match failure {
            Some(error) => Err(error),
            None => draft.commit(envelope.clone(), state.clone()).await,
        };
        match outcome {
            Ok(()) => Ok(Stored::Now),
            Err(SpoolError::Duplicate(_)) => Ok(Stored::Before),
            Err(
                error @ (SpoolError::Full { .. } | SpoolError::DiskFull { .. } | SpoolError::Inconsistent(_)),
            ) => Ok(Stored::Not(error.to_string())),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

/// What became of content that was sent.
enum Stored {
    Now,
    Before,
    Not(String),
}
