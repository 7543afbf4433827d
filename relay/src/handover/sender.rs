//! The giving side: passes on every message of the spool, while nothing is delivered here.
//!
//! A few workers take messages in the order of their acceptance; each keeps a connection with every peer it has used. A message
//! that could not be passed on waits for its next turn, for as long as it takes.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postroad_crds::relay_config::HAND_OVER_NAME;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Tombstones;
use super::protocol::{Channel, Reply, Request};
use crate::config::{HandOverPolicy, Policy};
use crate::message::{DeliveryState, MessageId};
use crate::metrics::Metrics;
use crate::spool::{Fate, Fates, Settlement, Spool, SpoolError, Stored};
use crate::submission::Accepted;

/// Messages under way at once: enough for syncs on both sides to be shared.
const WORKERS: usize = 16;
/// How long a worker rests after a failure.
const REST: Duration = Duration::from_millis(500);
/// How long connecting and the handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What the giving side is made of.
#[derive(Clone, Debug)]
pub struct Sender {
    /// This relay's ordinal.
    pub ordinal: u32,
    /// Where the messages are.
    pub spool: Spool,
    /// What is left of those that this relay was given itself.
    pub tombstones: Tombstones,
    /// The policy in force.
    pub policy: watch::Receiver<Arc<Policy>>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

type Peer = Channel<TlsStream<TcpStream>>;

/// Why a message is still here after its turn.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("no relay of the pool stays that could take it")]
    NobodyStays,
    #[error("relay {peer} does not take it: {source}")]
    Connection { peer: u32, source: io::Error },
    #[error("relay {peer} refuses it: {reason}")]
    Refused { peer: u32, reason: String },
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// The messages that wait for their turn, and how many are not done with.
struct Turns {
    waiting: Mutex<VecDeque<MessageId>>,
    left: AtomicU64,
    next_peer: AtomicU64,
    /// Where messages go that turn out to be this relay's to deliver; `None` when it delivers nothing.
    ours: Option<mpsc::WeakSender<Accepted>>,
}

impl Turns {
    fn new(messages: impl IntoIterator<Item = MessageId>, ours: Option<mpsc::WeakSender<Accepted>>) -> Self {
        let waiting: VecDeque<_> = messages.into_iter().collect();
        let left = AtomicU64::new(waiting.len() as u64);
        Self { waiting: Mutex::new(waiting), left, next_peer: AtomicU64::new(0), ours }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<MessageId>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender {
    /// Passes on `messages`; returns when none of them is this relay's any more.
    ///
    /// *Durability*: what was passed on is on stable storage there and gone here. *Cancellation*: a message under way is offered
    /// to the same relay again by the next call, in this process or another; nothing is lost or doubled.
    pub async fn run(&self, messages: impl IntoIterator<Item = MessageId>) {
        self.take_turns(&Turns::new(messages, None)).await;
    }

    /// Finds out whose `messages` are that were [under way](Self::under_way): those that their peer does not have are announced
    /// to `ours`, unless dispatch has ended by then; the next start finds them. Durability and cancellation as [`run`](Self::run).
    pub async fn resolve(&self, messages: Vec<MessageId>, ours: mpsc::WeakSender<Accepted>) {
        self.take_turns(&Turns::new(messages, Some(ours))).await;
    }

    /// The messages among `candidates` that were under way when a process ended: they must not be delivered before
    /// [`resolve`](Self::resolve) has found out whose they are. Reads the state of each.
    pub async fn under_way(&self, candidates: impl IntoIterator<Item = MessageId>) -> HashSet<MessageId> {
        let mut found = HashSet::new();
        for id in candidates {
            if self.spool.load(id).await.is_ok_and(|stored| stored.state.handing_over_to.is_some()) {
                found.insert(id);
            }
        }
        found
    }

    async fn take_turns(&self, turns: &Turns) {
        futures::future::join_all((0..WORKERS).map(|_| self.work(turns))).await;
    }

    async fn work(&self, turns: &Turns) {
        let mut peers = HashMap::new();
        while turns.left.load(Ordering::Relaxed) > 0 {
            let next = turns.waiting().pop_front();
            let Some(id) = next else {
                sleep(REST).await;
                continue;
            };
            match self.pass_on(id, &mut peers, turns).await {
                Ok(()) => {
                    turns.left.fetch_sub(1, Ordering::Relaxed);
                }
                Err(fault) => {
                    tracing::info!(%id, %fault, "a message could not be handed over; it is tried again");
                    turns.waiting().push_back(id);
                    sleep(REST).await;
                }
            }
        }
    }

    /// Passes on one message, or finds that there is nothing to pass on.
    async fn pass_on(
        &self,
        id: MessageId,
        peers: &mut HashMap<u32, Peer>,
        turns: &Turns,
    ) -> Result<(), Fault> {
        let stored = match self.spool.load(id).await {
            Ok(stored) => stored,
            Err(SpoolError::Unknown(_)) => return Ok(()),
            Err(SpoolError::Damaged { reason, .. }) => return self.quarantine(id, &reason).await,
            Err(error) => return Err(error.into()),
        };
        if let (true, Some(by)) = (stored.state.is_tombstone(), stored.state.handed_over_by) {
            self.tombstones.found(id, by);
            return Ok(());
        }
        let policy = self.policy.borrow().hand_over.clone().ok_or(Fault::NobodyStays)?;
        // A relay that is gone has first delivered or passed on all it had; whether this was among it nobody knows any more.
        let peer = match stored.state.handing_over_to.filter(|peer| !policy.is_gone(*peer)) {
            Some(peer) => peer,
            None if turns.ours.is_some() => return self.is_ours(id, stored, turns).await,
            None => choose(&policy, self.ordinal, turns.next_peer.fetch_add(1, Ordering::Relaxed))?,
        };
        let given = self.give(peer, id, stored, peers, &policy).await;
        // What is not kept is not known to be in step any more.
        if matches!(given, Err(Fault::Connection { .. } | Fault::Spool(_))) {
            peers.remove(&peer);
        }
        if let Err(Fault::Spool(SpoolError::Damaged { reason, .. })) = &given {
            return self.quarantine(id, reason).await;
        }
        given
    }

    /// The message is to be delivered here after all.
    async fn is_ours(&self, id: MessageId, stored: Stored, turns: &Turns) -> Result<(), Fault> {
        let state = DeliveryState { handing_over_to: None, ..stored.state };
        self.spool.update(id, state.clone()).await?;
        if let Some(ours) = turns.ours.as_ref().and_then(mpsc::WeakSender::upgrade) {
            let _ = ours.send(Accepted::stored(stored.envelope, state)).await;
        }
        Ok(())
    }

    async fn give(
        &self,
        peer: u32,
        id: MessageId,
        Stored { envelope, mut state }: Stored,
        peers: &mut HashMap<u32, Peer>,
        policy: &HandOverPolicy,
    ) -> Result<(), Fault> {
        let lost = |source| Fault::Connection { peer, source };
        let channel = match peers.entry(peer) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(none) => none.insert(connect(policy, peer).await.map_err(lost)?),
        };
        let offer = Request::Offer { by: self.ordinal, envelope: Box::new(envelope), state: state.clone() };
        channel.say(&offer).await.map_err(lost)?;
        let mut reply = channel.hear().await.map_err(lost)?;
        if reply == Reply::Send {
            if state.handing_over_to != Some(peer) {
                state.handing_over_to = Some(peer);
                self.spool.update(id, state.clone()).await?;
            }
            self.send_content(id, channel, peer).await?;
            reply = channel.hear().await.map_err(lost)?;
        }
        match reply {
            Reply::Kept => {}
            Reply::Refused(reason) => {
                // The word of the peer that it has not: another one may be asked.
                if state.handing_over_to.take().is_some() {
                    self.spool.update(id, state).await?;
                }
                return Err(Fault::Refused { peer, reason });
            }
            Reply::Send | Reply::Confirmed => return Err(lost(io::Error::other("it answered out of turn"))),
        }
        let fates = Fates::of(Fate::HandedOver, state.queued().count() as u64);
        let settlement = Settlement { id, state: None, fates, under_way: Vec::new(), accept: Vec::new() };
        self.tombstones.settle(&self.spool, state.handed_over_by, settlement).await?;
        self.metrics.messages_handed_over.inc();
        tracing::info!(%id, to = peer, "handed over");
        // Only tidying up: without it the peer remembers the message longer.
        if channel.say(&Request::Confirm { id }).await.is_err() || channel.hear::<Reply>().await.is_err() {
            peers.remove(&peer);
        }
        Ok(())
    }

    async fn send_content(&self, id: MessageId, channel: &mut Peer, peer: u32) -> Result<(), Fault> {
        let mut content = self.spool.content(id)?;
        while let Some(chunk) = content.next().await? {
            channel.send(chunk).await.map_err(|source| Fault::Connection { peer, source })?;
        }
        Ok(())
    }

    async fn quarantine(&self, id: MessageId, reason: &str) -> Result<(), Fault> {
        tracing::error!(%id, reason, "a message is damaged and goes into quarantine instead of being handed over");
        self.metrics.messages_quarantined.inc();
        Ok(self.spool.quarantine(id, reason).await?)
    }
}

/// One of the relays that stay, in turn.
fn choose(policy: &HandOverPolicy, ordinal: u32, turn: u64) -> Result<u32, Fault> {
    let staying = policy.staying(ordinal);
    let index = turn.checked_rem(staying.len() as u64).ok_or(Fault::NobodyStays)?;
    usize::try_from(index).ok().and_then(|index| staying.get(index).copied()).ok_or(Fault::NobodyStays)
}

async fn connect(policy: &HandOverPolicy, peer: u32) -> io::Result<Peer> {
    let address = policy
        .peers
        .get(peer as usize)
        .ok_or_else(|| io::Error::other("it is not a relay of the pool any more"))?;
    let name = ServerName::try_from(HAND_OVER_NAME).map_err(io::Error::other)?;
    let connected = async {
        let stream = TcpStream::connect(address.as_str()).await?;
        let _ = stream.set_nodelay(true);
        TlsConnector::from(policy.client.clone()).connect(name, stream).await
    };
    let stream =
        timeout(CONNECT_TIMEOUT, connected).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok(Channel::new(stream))
}
