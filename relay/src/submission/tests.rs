//! Listeners over real sockets in paused time: while nothing can happen the clock runs ahead, so minutes pass at once.

use std::net::SocketAddr;
use std::sync::Arc;

use postroad_crds::relay_config::RelayConfig;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant};
use tokio_util::task::TaskTracker;

use super::{Accepted, Context, Listeners, Passage, connection};
use crate::config::Policy;
use crate::limits::ConnectionLimits;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::shutdown::{self, Phase};
use crate::spool::{Options, Spool};
use crate::transit::Transit;

struct Served {
    _listeners: Listeners,
    context: Context,
    policy: Arc<Policy>,
    _accepted: mpsc::Receiver<Accepted>,
    _phase: watch::Sender<Phase>,
    _folder: tempfile::TempDir,
    address: SocketAddr,
}

async fn served() -> Served {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!(
        "version: relay-config.postroad.dev/v1
pool: {{namespace: mail, name: main}}
replicas: 1
hostname: relay.example
listeners: [{{name: smtp, address: '{address}', tls: None, authentication: None}}]
identities: [{{name: local, match: {{network: {{cidrs: [127.0.0.0/8]}}}}}}]
routes: [{{name: all, upstreams: [{{name: box}}]}}]
upstreams:
- name: box
  destination: {{sandbox: {{keepMessages: 1}}}}
  connections: {{maximum: 1, messagesPerConnection: 1, idleTimeoutSeconds: 1, maximumAgeSeconds: 10}}
queue: {{expireAfterSeconds: 60, minimumBackoffSeconds: 1, maximumBackoffSeconds: 2, maximumBytes: 10000000}}
limits: {{messageBytes: 1000, recipientsPerMessage: 1, connections: 2, connectionsPerClient: 1}}
shutdown: {{acceptSeconds: 0, gracePeriodSeconds: 1}}
"
    );
    let policy = Arc::new(Policy::compile(&RelayConfig::from_yaml(&text).unwrap()).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(folder.path(), Options::default()).unwrap();
    let (accepted, announcements) = mpsc::channel(1);
    let (phase, shutdown) = shutdown::channel();
    let context = Context {
        policy: watch::channel(policy.clone()).1,
        spool,
        passage: Arc::new(Passage { transit: Transit::new(None), orders: mpsc::channel(1).0 }),
        memory: Memory::unlimited(),
        accepted,
        metrics: Arc::new(Metrics::new()),
        shutdown,
        limits: ConnectionLimits::default(),
        verifier: Arc::default(),
        sessions: TaskTracker::new(),
    };
    let mut listeners = Listeners::new(context.clone());
    let bound = listeners.bind(&policy).await.unwrap();
    listeners.apply(&policy, bound);
    Served {
        _listeners: listeners,
        context,
        policy,
        _accepted: announcements,
        _phase: phase,
        _folder: folder,
        address,
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stalls_is_told_so_after_five_minutes() {
    let served = served().await;
    let mut client = BufReader::new(TcpStream::connect(served.address).await.unwrap());
    let begin = Instant::now();
    let mut text = String::new();
    client.read_line(&mut text).await.unwrap();
    client.write_all(b"EHLO client.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@examp").await.unwrap();
    client.read_to_string(&mut text).await.unwrap();
    let last = text.lines().last().unwrap_or_default();
    assert!(last.starts_with("421 4.4.2"), "{text}");
    let waited = begin.elapsed();
    assert!((Duration::from_secs(300)..Duration::from_secs(310)).contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_comes_an_octet_at_a_time_is_not_waited_for_longer() {
    let served = served().await;
    let mut client = TcpStream::connect(served.address).await.unwrap();
    client.set_nodelay(true).unwrap();
    let begin = Instant::now();
    let mut octets = b"NOOP".iter().cycle();
    let mut reply = [0; 512];
    loop {
        tokio::time::sleep(Duration::from_secs(100)).await;
        let _ = client.write_all(&[*octets.next().unwrap()]).await;
        let read = client.try_read(&mut reply);
        if matches!(read, Ok(count) if String::from_utf8_lossy(&reply[..count]).contains("421 4.4.2")) {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(1000), "still waited for");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_drips_steadily_is_not_waited_for_longer_than_a_message_may_take() {
    let served = served().await;
    let mut client = BufReader::new(TcpStream::connect(served.address).await.unwrap());
    let begin = "EHLO client.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n";
    // Paused time does not wait for an octet that the system holds back.
    client.get_ref().set_nodelay(true).unwrap();
    client.write_all(begin.as_bytes()).await.unwrap();
    let mut text = String::new();
    while !text.contains("\r\n354 ") {
        assert!(client.read_line(&mut text).await.unwrap() > 0, "{text}");
    }
    let begin = Instant::now();
    let mut rest = [0; 512];
    loop {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let _ = client.get_mut().write_all(b"x").await;
        let read = client.get_mut().try_read(&mut rest);
        if matches!(read, Ok(count) if String::from_utf8_lossy(&rest[..count]).contains("421 4.4.2")) {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(3600), "still waited for");
    }
    assert!(begin.elapsed() >= Duration::from_secs(1800), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn an_idle_session_is_small() {
    let served = served().await;
    let stream = TcpStream::connect(served.address).await.unwrap();
    let listener = served.policy.listeners[0].clone();
    let future = connection::serve(stream, [127, 0, 0, 1].into(), listener, served.context.clone());
    let octets = size_of_val(&future) + connection::STATE_OCTETS;
    assert!(octets <= 1_280, "{octets} octets");
}

#[tokio::test]
async fn one_connection_too_many_is_told_to_come_back() {
    let served = served().await;
    let mut first = BufReader::new(TcpStream::connect(served.address).await.unwrap());
    let mut text = String::new();
    first.read_line(&mut text).await.unwrap();
    assert!(text.starts_with("220 "), "{text}");
    let mut second = TcpStream::connect(served.address).await.unwrap();
    let mut refusal = String::new();
    second.read_to_string(&mut refusal).await.unwrap();
    assert!(refusal.starts_with("421 4.7.0"), "{refusal}");
}
