//! Two relays' spools and the channel between them, in one process: what goes along, and what a repeated offer finds.
//! That nothing is lost or doubled over deaths of processes is shown by tests/torture/hand_over.rs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postroad_crds::relay_config::{Certificate, HAND_OVER_NAME, HandOver, RelayConfig, Sensitive};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use super::{Receiver, Sender, Tombstones};
use crate::config::Policy;
use crate::message::{DeliveryState, Envelope, MessageId, Recipient, RecipientState, Timestamp};
use crate::metrics::Metrics;
use crate::shutdown;
use crate::spool::{Fate, Fates, Options, Settlement, Spool, Stored};
use crate::submission::Accepted;

const ACCEPTED_AT: Timestamp = Timestamp(1_795_000_000_000);

/// Two relays: 0 stays and takes, 1 leaves and gives.
struct Pair {
    stays: Spool,
    leaves: Spool,
    taken: Tombstones,
    accepted: mpsc::Receiver<Accepted>,
    sender: Sender,
    _announce: mpsc::Sender<Accepted>,
    _phase: watch::Sender<shutdown::Phase>,
    _policies: [watch::Sender<Arc<Policy>>; 2],
    _folder: tempfile::TempDir,
}

/// An authority of the pool and the certificate it has signed.
fn certified() -> (String, Certificate) {
    let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(params, authority_key);
    let certificate =
        CertificateParams::new(vec![HAND_OVER_NAME.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let private_key_pem = Sensitive(key.serialize_pem());
    (authority.pem(), Certificate { certificate_chain_pem: certificate.pem(), private_key_pem })
}

fn policy(peer: &str, leaving: &[u32], (authority, certificate): &(String, Certificate)) -> Arc<Policy> {
    let text = "version: relay-config.postroad.dev/v1
pool: {namespace: mail, name: main}
replicas: 1
hostname: relay.example
listeners: [{name: smtp, address: '127.0.0.1:0', tls: None, authentication: None}]
identities: []
routes: []
upstreams: []
queue: {expireAfterSeconds: 600, minimumBackoffSeconds: 1, maximumBackoffSeconds: 2, maximumBytes: 1000000000}
limits: {messageBytes: 10000000, recipientsPerMessage: 100, connections: 100, connectionsPerClient: 100}
shutdown: {acceptSeconds: 0, gracePeriodSeconds: 10}
";
    let mut config = RelayConfig::from_yaml(text).unwrap();
    config.hand_over = Some(HandOver {
        address: "127.0.0.1:0".into(),
        peers: vec![peer.into(), "127.0.0.1:1".into()],
        authority_pem: authority.clone(),
        certificate: certificate.clone(),
        leaving: leaving.iter().copied().collect(),
        ephemeral: false,
    });
    Arc::new(Policy::compile(&config).unwrap())
}

fn open(folder: &Path) -> Spool {
    let options = Options { segment_bytes: 1 << 20, ..Options::default() };
    Spool::open(folder, options).unwrap().0
}

impl Pair {
    /// `of_sender` is what the giving relay shows, by default what the taking one believes.
    async fn new(taker_leaves: bool, of_sender: Option<(String, Certificate)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (stays, leaves) = (open(&folder.path().join("0")), open(&folder.path().join("1")));
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let certified = certified();
        let leaving: &[u32] = if taker_leaves { &[0, 1] } else { &[1] };
        let (for_taker, taker_policy) = watch::channel(policy(&address, leaving, &certified));
        let (for_sender, sender_policy) =
            watch::channel(policy(&address, &[1], of_sender.as_ref().unwrap_or(&certified)));
        let (announce, accepted) = mpsc::channel(64);
        let (phase, shutdown) = shutdown::channel();
        let (taken, metrics) = (Tombstones::default(), Arc::new(Metrics::new()));
        let receiver = Receiver {
            ordinal: 0,
            spool: stays.clone(),
            tombstones: taken.clone(),
            policy: taker_policy,
            accepted: announce.downgrade(),
            shutdown,
            sessions: TaskTracker::new(),
            metrics: metrics.clone(),
            divisions: watch::channel(Default::default()).1,
            orders: mpsc::channel(1).0,
        };
        tokio::spawn(receiver.serve(socket));
        let sender = Sender {
            ordinal: 1,
            spool: leaves.clone(),
            tombstones: Tombstones::default(),
            policy: sender_policy,
            metrics,
        };
        let (_announce, _phase, _policies, _folder) = (announce, phase, [for_taker, for_sender], folder);
        Self { stays, leaves, taken, accepted, sender, _announce, _phase, _policies, _folder }
    }

    /// Stores a message in the leaving relay's spool that has been tried three times and has one recipient left.
    async fn message(&self) -> Stored {
        let content = Bytes::from_static(b"Subject: x\r\n\r\n.\r\n");
        let id = MessageId::new(ACCEPTED_AT, rand::random());
        let notified = Recipient {
            notify: Some(smtp_protocol::Notify::NEVER),
            original: Some("rfc822;c@example.net".into()),
            ..Recipient::new("b@example.org")
        };
        let envelope = Envelope {
            id,
            reverse_path: "a@example.com".into(),
            recipients: vec!["x@example.org".into(), notified],
            eight_bit: true,
            smtp_utf8: true,
            ret: Some(smtp_protocol::Return::Headers),
            envelope_id: Some("e-1".into()),
            size: content.len() as u64,
            accepted_at: ACCEPTED_AT,
            identity: Some("apps".into()),
            user: Some("app".into()),
        };
        let mut draft = self.leaves.draft();
        draft.append(content).await.unwrap();
        draft.commit(envelope.clone(), DeliveryState::new(2, ACCEPTED_AT)).await.unwrap();
        let mut state = DeliveryState {
            attempts: 3,
            due_at: Timestamp(ACCEPTED_AT.0 + 60_000),
            delay_reported: true,
            ..DeliveryState::new(2, ACCEPTED_AT)
        };
        state.recipients[0] = RecipientState::Delivered;
        let fates = Fates::of(Fate::Delivered, 1);
        let settlement =
            Settlement { id, state: Some(state.clone()), fates, under_way: Vec::new(), accept: Vec::new() };
        self.leaves.settle(settlement).await.unwrap();
        Stored { envelope, state }
    }

    /// What dispatch does once the last recipient has its fate.
    async fn deliver(&self, id: MessageId) {
        let by = self.stays.load(id).await.unwrap().state.handed_over_by;
        let fates = Fates::of(Fate::Delivered, 1);
        let settlement = Settlement { id, state: None, fates, under_way: Vec::new(), accept: Vec::new() };
        self.taken.settle(&self.stays, by, settlement).await.unwrap();
    }
}

#[tokio::test]
async fn a_message_goes_over_with_its_whole_state_and_is_gone_where_it_was() {
    let mut pair = Pair::new(false, None).await;
    let stored = pair.message().await;
    let id = stored.envelope.id;
    pair.sender.run([id]).await;

    let expected = DeliveryState { handed_over_by: Some(1), ..stored.state };
    let found = pair.stays.load(id).await.unwrap();
    assert_eq!((&found.envelope, &found.state), (&stored.envelope, &expected));
    let content = pair.stays.content(id).unwrap().next().await.unwrap().unwrap();
    assert_eq!(&content[..], b"Subject: x\r\n\r\n.\r\n");
    let announced = pair.accepted.recv().await.unwrap();
    assert_eq!((announced.envelope.id, announced.state), (id, expected));
    assert!(!pair.leaves.contains(id));
    assert_eq!(pair.leaves.usage().ledger.fates.get(Fate::HandedOver), 1);
    assert_eq!(pair.leaves.usage().queued, 0);

    pair.deliver(id).await;
    assert!(!pair.stays.contains(id), "its sender had confirmed");
    assert_eq!(pair.taken.count(), 0);
}

#[tokio::test]
async fn a_message_that_is_offered_again_after_its_delivery_is_known_until_its_sender_confirms() {
    let mut pair = Pair::new(false, None).await;
    let stored = pair.message().await;
    let id = stored.envelope.id;
    // The giver dies between the taker's word and its own removal: it has the message, marked, and the taker has it too.
    let content = Bytes::from_static(b"Subject: x\r\n\r\n.\r\n");
    let mut draft = pair.stays.draft();
    draft.append(content).await.unwrap();
    let theirs = DeliveryState { handed_over_by: Some(1), ..stored.state.clone() };
    draft.commit(stored.envelope.clone(), theirs).await.unwrap();
    pair.leaves.update(id, DeliveryState { handing_over_to: Some(0), ..stored.state }).await.unwrap();
    pair.deliver(id).await;
    assert_eq!((pair.stays.contains(id), pair.taken.count()), (true, 1), "a tombstone");

    pair.sender.run([id]).await;
    assert!(!pair.leaves.contains(id) && !pair.stays.contains(id));
    assert_eq!(pair.taken.count(), 0);
    assert!(pair.accepted.try_recv().is_err(), "nothing is delivered again");
}

#[tokio::test]
async fn a_relay_that_stays_after_all_gets_back_what_its_peer_does_not_have() {
    let pair = Pair::new(true, None).await;
    let stored = pair.message().await;
    let id = stored.envelope.id;
    pair.leaves.update(id, DeliveryState { handing_over_to: Some(0), ..stored.state.clone() }).await.unwrap();
    assert!(pair.sender.under_way([id]).await.contains(&id));
    let (ours, mut announced) = mpsc::channel(1);
    pair.sender.resolve(vec![id], ours.downgrade()).await;
    assert_eq!(announced.recv().await.unwrap().state, stored.state);
    assert!(pair.sender.under_way([id]).await.is_empty());
}

#[tokio::test]
async fn a_relay_of_another_authority_can_give_nothing() {
    let pair = Pair::new(false, Some(certified())).await;
    let id = pair.message().await.envelope.id;
    let given = tokio::time::timeout(Duration::from_secs(1), pair.sender.run([id])).await;
    assert!(given.is_err() && pair.leaves.contains(id) && !pair.stays.contains(id));
}
