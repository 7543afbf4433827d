//! Nothing that was acknowledged is lost (P1), the relay accounts for all of it (P2), and without a fault nothing comes twice (P3).

use postroad_tests::conservation::account;
use postroad_tests::load::Load;
use postroad_tests::ports::free_port;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::smtp_server::{Ledger, SmtpServer};

use crate::{LIMIT, alone, arrived_once, config};

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_messages_arrive_once_and_unchanged_over_few_sessions() {
    let _alone = alone().await;
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    let port = free_port().unwrap();
    let relay =
        RelayProcess::start(&config(port, &upstream, "secret"), RelayOptions::default()).await.unwrap();
    let load = Load::to_address(([127, 0, 0, 1], port).into());

    let sent = load.clone().start().finish().await;
    arrived_once(&load, &sent, &upstream, 4).await;
    assert!(upstream.sessions().len() <= 4, "sessions were not kept: {}", upstream.sessions().len());
    let account = relay.wait_until_all_ended(LIMIT).await.unwrap();
    assert_eq!((account.accepted, account.ended_as("delivered")), (1_000, 1_000), "{account:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_message_arrives_though_the_relay_is_killed_fifty_times() {
    let _alone = alone().await;
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    let port = free_port().unwrap();
    let mut relay =
        RelayProcess::start(&config(port, &upstream, "secret"), RelayOptions::default()).await.unwrap();
    let mut load = Load::to_address(([127, 0, 0, 1], port).into());
    load.messages_per_client = 500;
    let running = load.start();
    for round in 1..=50 {
        // The kills are spread over the load by what it has achieved, not by time.
        let reached = running.acknowledged() + 20 + (round * 37) % 120;
        running.wait_for_acknowledged(reached, LIMIT).await.unwrap();
        relay.sigkill().await.unwrap();
        relay.restart().await.unwrap();
    }
    running.stop();
    let sent = running.finish().await;

    // Comparing is costly; before as many have come as were acknowledged it could only say no.
    let complete = |ledger: &Ledger| {
        ledger.messages.len() >= sent.acknowledged.len()
            && account(&sent.acknowledged, ledger.tokens()).lost.is_empty()
    };
    let arrived = upstream.wait_until("every acknowledged message", LIMIT, complete).await;
    arrived.unwrap();
    let account = relay.wait_until_all_ended(LIMIT).await.unwrap();
    let (acknowledged, unknown) = (sent.acknowledged.len() as u64, sent.unknown.len() as u64);
    assert!((acknowledged..=acknowledged + unknown).contains(&account.accepted), "{account:?}, {sent:?}");
    assert_eq!(account.ended_as("delivered"), account.accepted, "{account:?}");
}
