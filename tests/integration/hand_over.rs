//! Relays as processes that leave their pool: told so by their configuration, told to stay after all, or stopped with storage
//! that goes with them. Kills are tests/torture's.

use std::sync::Arc;
use std::time::Duration;

use postroad_crds::relay_config::{
    Destination, Division, HAND_OVER_NAME, REMAINING_PROTOCOL, RelayConfig, Remaining, Standing,
    UpstreamPort, UpstreamTls,
};
use postroad_tests::conservation::account;
use postroad_tests::load::{Load, Sent};
use postroad_tests::ports::free_port;
use postroad_tests::prometheus::Metrics;
use postroad_tests::relay_pool::Pool;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::smtp_client::{Security, SmtpClient};
use postroad_tests::smtp_server::SmtpServer;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::LIMIT;

/// Few enough to be sent in a moment, more than are given at once.
const MESSAGES: usize = 100;

async fn start(pool: &Pool, ordinal: u32) -> RelayProcess {
    let options = RelayOptions { ordinal, ..RelayOptions::default() };
    RelayProcess::start(&pool.config(ordinal, []), options).await.unwrap()
}

/// A pool in front of an upstream that is down, one of its relays full of mail.
async fn pool(relays: u32, full: u32) -> (Pool, SmtpServer, Vec<RelayProcess>, Sent) {
    let mut upstream = SmtpServer::plain().await.unwrap();
    upstream.stop().await;
    let pool = Pool::new(relays, upstream.port()).unwrap();
    let mut processes = Vec::new();
    for ordinal in 0..relays {
        processes.push(start(&pool, ordinal).await);
    }
    let mut load = Load::to_address(pool.smtp(full));
    load.messages_per_client = MESSAGES / load.clients;
    let sent = load.start().finish().await;
    assert_eq!(sent.acknowledged.len(), MESSAGES);
    (pool, upstream, processes, sent)
}

fn holds(messages: usize) -> impl Fn(&Metrics) -> bool {
    move |metrics| metrics.value("postroad_relay_queue_messages") == Some(messages as f64)
}

async fn arrived_once(upstream: &SmtpServer, sent: &Sent) {
    upstream.wait_for(MESSAGES, LIMIT).await.unwrap();
    let account = account(&sent.acknowledged, upstream.ledger(|ledger| ledger.tokens()));
    assert!(account.balanced(), "{account:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_told_to_leave_accepts_nothing_more_and_gives_all_to_one_that_stays() {
    let (pool, mut upstream, relays, sent) = pool(2, 1).await;
    for (ordinal, relay) in (0..).zip(&relays) {
        relay.rewrite_config(&pool.config(ordinal, [1])).unwrap();
    }
    relays[1].wait_for_metrics("nothing left", LIMIT, holds(0)).await.unwrap();
    relays[0].wait_for_metrics("everything", LIMIT, holds(MESSAGES)).await.unwrap();
    relays[1].wait_for_readiness(false, LIMIT).await.unwrap();
    SmtpClient::connect(pool.smtp(1)).await.err().expect("its port is closed");
    upstream.restart().await.unwrap();
    arrived_once(&upstream, &sent).await;
    assert!(relays[1].get("/healthz").await.unwrap().status == 200, "it waits for its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_that_all_leave_finish_what_they_hold() {
    let (pool, mut upstream, mut relays, sent) = pool(1, 0).await;
    relays[0].rewrite_config(&pool.config(0, [0])).unwrap();
    relays[0].wait_for_readiness(false, LIMIT).await.unwrap();
    // A death in between changes nothing.
    relays[0].relaunch().await.unwrap();
    upstream.restart().await.unwrap();
    arrived_once(&upstream, &sent).await;
    relays[0].wait_for_metrics("nothing left", LIMIT, holds(0)).await.unwrap();
    SmtpClient::connect(pool.smtp(0)).await.err().expect("its port is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_told_to_stay_after_all_delivers_what_it_still_holds() {
    let (pool, mut upstream, mut relays, sent) = pool(2, 1).await;
    relays[0].sigkill().await.unwrap();
    relays[1].rewrite_config(&pool.config(1, [1])).unwrap();
    relays[1].log().wait_for("a try", LIMIT, |line| line.contains("could not be handed over")).await.unwrap();
    relays[1].rewrite_config(&pool.config(1, [])).unwrap();
    // It ends, and its container is started anew.
    assert!(relays[1].wait(LIMIT).await.unwrap().success());
    relays[1].restart().await.unwrap();
    upstream.restart().await.unwrap();
    arrived_once(&upstream, &sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_whose_storage_goes_with_it_gives_its_mail_away_when_it_is_stopped() {
    let (pool, mut upstream, relays, sent) = pool(2, 1).await;
    let mut config = pool.config(1, []);
    config.hand_over.as_mut().unwrap().ephemeral = true;
    relays[1].rewrite_config(&config).unwrap();
    let applied =
        |metrics: &Metrics| metrics.value("postroad_relay_configurations_applied_total") == Some(2.0);
    relays[1].wait_for_metrics("the configuration", LIMIT, applied).await.unwrap();
    relays[1].sigterm();
    assert!(relays[1].wait(Duration::from_secs(10)).await.unwrap().success());
    relays[0].wait_for_metrics("everything", LIMIT, holds(MESSAGES)).await.unwrap();
    upstream.restart().await.unwrap();
    arrived_once(&upstream, &sent).await;
}

/// What the relay tells the operator.
async fn told(config: &RelayConfig) -> Remaining {
    let held = config.hand_over.as_ref().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(held.authority_pem.as_bytes()).unwrap()).unwrap();
    let shown = CertificateDer::from_pem_slice(held.certificate.certificate_chain_pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(held.certificate.private_key_pem.0.as_bytes()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let versions = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut client = versions.with_client_auth_cert(vec![shown], key).unwrap();
    client.alpn_protocols = vec![REMAINING_PROTOCOL.to_vec()];
    let stream = TcpStream::connect(&held.address).await.unwrap();
    let name = ServerName::try_from(HAND_OVER_NAME).unwrap();
    let mut stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    serde_json::from_slice(&answer).unwrap()
}

/// Waits until what the relay tells is so.
async fn until_told(config: &RelayConfig, is: impl Fn(&Remaining) -> bool) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let told = told(config).await;
        if is(&told) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{told:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_tells_to_which_division_of_an_upstream_it_keeps() {
    let upstream = SmtpServer::plain().await.unwrap();
    let pool = Pool::new(1, upstream.port()).unwrap();
    let mut config = pool.config(0, []);
    let divided = |number| vec![Division { number, ..Division::alone(1) }];
    config.upstreams[0].divisions = divided(7);
    let relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
    for number in [7, 8] {
        config.upstreams[0].divisions = divided(number);
        relay.rewrite_config(&config).unwrap();
        until_told(&config, |told| told.divisions == [("service".to_owned(), number)].into()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_tells_how_upstreams_stand_and_which_port_is_in_use() {
    let mut upstream = SmtpServer::plain().await.unwrap();
    let pool = Pool::new(1, upstream.port()).unwrap();
    let mut config = pool.config(0, []);
    let blocked = free_port().unwrap();
    let Destination::Smarthost(smarthost) = &mut config.upstreams[0].destination else { unreachable!() };
    smarthost.ports.insert(0, UpstreamPort { port: blocked, tls: UpstreamTls::None });
    // A session lives for one message, so that each finds out anew.
    config.upstreams[0].connections.messages_per_connection = 1;
    let relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
    let is = |standing| move |told: &Remaining| told.upstreams.iter().any(|it| it.standing == standing);
    until_told(&config, is(Standing::Untried)).await;

    let mut client = SmtpClient::open(pool.smtp(0), &Security::None, "client.example").await.unwrap();
    let mut send = async || {
        let reply = client.message("a@example.com", &["b@example.net"], b"Subject: x\r\n\r\n").await.unwrap();
        assert_eq!(reply.code, 250, "{reply:?}");
    };
    send().await;
    upstream.wait_for(1, LIMIT).await.unwrap();
    let port = upstream.port();
    let on_the_second = |told: &Remaining| {
        told.upstreams.first().is_some_and(|it| {
            let why = format!("port {blocked}: ");
            it.standing == Standing::Works && it.port == Some(port) && it.passed_over[0].starts_with(&why)
        })
    };
    until_told(&config, on_the_second).await;

    upstream.stop().await;
    send().await;
    until_told(&config, is(Standing::Fails)).await;
    let why = told(&config).await.upstreams.remove(0).obstacle.unwrap();
    assert!(why.contains("no port could be used") && why.contains(&format!("port {blocked}: ")), "{why}");
    upstream.restart().await.unwrap();
    until_told(&config, is(Standing::Works)).await;
    drop(relay);
}
