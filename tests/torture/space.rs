//! A volume that fills up, and one that fails when it is synced.

use std::time::Instant;

use postroad_tests::prometheus::Metrics;
use postroad_tests::smtp_server::{Fault, Stage};

use crate::judge::judge;
use crate::volume::{Kind, Volume};
use crate::{LIMIT, Scene};

/// A spool of this budget has segments of 2 MiB, and keeps three of them free.
const BUDGET: u64 = 32 << 20;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "mounts file systems: make torture"]
async fn a_disk_that_fills_up_is_answered_452_before_its_end_and_empties_by_delivery() {
    let begin = Instant::now();
    let volume = Volume::new(Kind::Ext4, 24 << 20);
    let scene = Scene::new(Some(&volume.path().join("data")), BUDGET).await;
    let outage = scene.upstream.inject(Fault::reply(Stage::Mail, "451 4.3.2 later"));
    let running = scene.load.clone().start();
    scene.relay.wait_for_readiness(false, LIMIT).await.unwrap();
    assert!(scene.relay.get("/readyz").await.unwrap().body.contains("full"));
    // A full spool is healthy: it empties by itself.
    assert_eq!(scene.relay.get("/healthz").await.unwrap().status, 200);
    running.stop();
    let sent = running.finish().await;
    assert!(sent.transient_refusals > 0 && sent.lost_connections == 0, "{sent:?}");
    scene.upstream.withdraw(outage);
    judge("disk full", &sent, &scene.upstream, &[], begin, LIMIT).await;
    scene.relay.wait_ready().await.unwrap();
    scene.relay.sigkill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "mounts file systems: make torture"]
async fn a_failed_sync_is_never_acknowledged_and_ends_acceptance_until_the_restart() {
    let begin = Instant::now();
    let volume = Volume::new(Kind::Ext4, 512 << 20);
    let mut scene = Scene::new(Some(&volume.path().join("data")), BUDGET).await;
    let outage = scene.upstream.inject(Fault::reply(Stage::Greeting, "421 4.3.2 later"));
    let running = scene.load.clone().start();
    running.wait_for_acknowledged(200, LIMIT).await.unwrap();
    // The data of one flush is lost; every later flush succeeds.
    volume.disk().medium().fail_flushes(1);
    scene.relay.wait_for_readiness(false, LIMIT).await.unwrap();
    assert_eq!(scene.relay.get("/healthz").await.unwrap().status, 503);
    let failed = Instant::now();
    let acknowledged = running.acknowledged();
    // A sync would succeed again, with what it lost before still lost. Nothing may be tried.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(running.acknowledged(), acknowledged, "acknowledged after a failed sync");
    assert_eq!(scene.relay.get("/healthz").await.unwrap().status, 503);
    // What it knows it delivers all the same, and counts that it cannot record it: the next start will deliver it again.
    scene.upstream.withdraw(outage);
    let counted = |metrics: &Metrics| {
        let arrived = scene.upstream.ledger(|ledger| ledger.messages.len());
        arrived > 0 && metrics.value("postroad_relay_recipients_unrecorded_total") == Some(arrived as f64)
    };
    scene.relay.wait_for_metrics("copies to be counted", LIMIT, counted).await.unwrap();
    scene.relay.sigkill().await.unwrap();
    let restarted = Instant::now();
    volume.remount();
    scene.relay.restart().await.unwrap();
    running.wait_for_acknowledged(acknowledged + 200, LIMIT).await.unwrap();
    running.stop();
    let sent = running.finish().await;
    judge("failed sync", &sent, &scene.upstream, &[failed, restarted], begin, LIMIT).await;
    scene.relay.sigkill().await.unwrap();
}
